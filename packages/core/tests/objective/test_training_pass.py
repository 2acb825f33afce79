import pytest
import torch
from torch import nn

from medbolt.core import Indexed, ObjectiveCallback, UserError, network_input, training_pass


class Watcher(ObjectiveCallback):
    """Looks at the training set between epochs."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        self.epochs, self.logits, self.modes = [], [], []

    def begin_epoch(self, trainer, pl_module):
        def evaluate(batch):
            self.modes.append((pl_module.training, torch.is_grad_enabled()))
            torch.rand(3)
            return {"logits": pl_module.model(network_input(batch)), "target": batch[1]}

        before = torch.get_rng_state()
        pl_module.model[1].eval()  # a frozen part, which must stay as it is
        seen = training_pass(trainer, pl_module, evaluate, logits=torch.zeros(3), target=torch.tensor(-1))
        assert torch.equal(torch.get_rng_state(), before)
        assert pl_module.training
        assert not pl_module.model[1].training
        self.epochs.append(trainer.current_epoch)
        self.logits.append(seen["logits"])
        self.target = seen["target"]


def test_every_sample_is_evaluated_by_the_network_as_it_stands(classifier, data, fitted):
    watcher, samples = Watcher(), data()
    module = classifier()
    start = module.model(samples.x).detach()
    fitted(lambda: module, Indexed(samples), watcher, epochs=2)
    assert watcher.epochs == [0, 1]
    assert torch.equal(watcher.target, samples.y)
    torch.testing.assert_close(watcher.logits[0], start)
    assert not torch.allclose(watcher.logits[1], start)
    assert set(watcher.modes) == {(False, False)}


def test_the_first_batch_after_it_is_still_known_by_its_own_index(classifier, data, fitted):
    class Checked(Watcher):
        def objective(self, step):
            self.indices.append(step.index.clone())
            assert torch.equal(samples.y[step.index], step.target)
            return step.loss()

    watcher, samples = Checked(), data(10)  # the pass ends with a batch of two, training begins with one of four
    watcher.indices = []
    fitted(classifier, Indexed(samples), watcher, epochs=2)
    assert [len(index) for index in watcher.indices] == [4, 4, 2] * 2
    assert sorted(torch.cat(watcher.indices[3:]).tolist()) == list(range(10))


def test_training_is_not_changed_by_it(classifier, data, fitted):
    plain = fitted(classifier, Indexed(data()), ObjectiveCallback(), epochs=2)
    watched = fitted(classifier, Indexed(data()), Watcher(), epochs=2)
    assert watched.losses == plain.losses


def test_data_that_cannot_tell_their_samples_are_answered_with_the_remedy(classifier, data, fitted):
    with pytest.raises(UserError, match=r"no train_eval_dataloader\(\); .*medbolt.core.Indexed\(datamodule\)"):
        fitted(classifier, data(), Watcher())


@pytest.mark.parametrize("batch", [{"image": "x", "target": 0}, ("x", 0), ["x", 0], "x"])
def test_the_input_is_found_in_any_batch(batch):
    assert network_input(batch) == "x"


def test_batch_norm_is_not_moved(classifier, data, fitted):
    module = classifier()
    module.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    class Once(Watcher):
        def begin_epoch(self, trainer, pl_module):
            statistics = pl_module.model[1].running_mean.clone()
            super().begin_epoch(trainer, pl_module)
            pl_module.model[1].train()
            assert torch.equal(pl_module.model[1].running_mean, statistics)

    fitted(lambda: module, Indexed(data()), Once())


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_network_gets_its_own_precision(classifier, data, fitted, precision):
    watcher = Watcher()
    fitted(classifier, Indexed(data()), watcher, precision=precision)
    assert watcher.logits[0].isfinite().all()
