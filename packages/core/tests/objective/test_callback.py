import pickle

import pytest
import torch
from torch import nn

from medbolt.core import Indexed, ObjectiveCallback, UserError


class Recorder(ObjectiveCallback):
    """Keeps what each step shows; changes nothing."""

    def objective(self, step):
        self.seen.append((step.inputs[0].detach().clone(), step.target.clone(), type(step.batch)))
        return step.loss()

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        self.seen = []


class Tripled(ObjectiveCallback):
    def objective(self, step):
        return 3 * step.loss()


class WithPeer(ObjectiveCallback):
    """Trains a second network on the same batches."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            torch.manual_seed(7)
            self.peer = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            self.attach(pl_module, "peer", self.peer)

    def objective(self, step):
        return step.loss() + step.loss(logits=self.peer(*step.inputs))


class Remembers(ObjectiveCallback):
    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, loss=torch.tensor(float("nan")), target=torch.tensor(-1))

    def objective(self, step):
        losses = step.loss()
        self.memory.write(step.index, loss=losses, target=step.target)
        return losses


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.model.parameters()])


def going_on(trainer, *fits):
    for epochs, (module, data) in enumerate(fits, 1):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(module, datamodule=data)


@pytest.mark.filterwarnings("error:Remembers")
def test_a_fit_that_goes_on_knows_what_the_one_before_knew(classifier, data, trainer):
    class Notes(Remembers):
        def begin_epoch(self, trainer, pl_module):
            known.append((self.memory.seen.clone(), self.memory["loss"].clone()))

        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            ends.append(self.memory["loss"].clone())

    known, ends = [], []
    module, indexed = classifier(), Indexed(data())
    going_on(trainer(Notes()), (module, indexed), (module, indexed), (module, indexed))
    assert [bool(seen.all()) for seen, _ in known] == [False, True, True]
    assert not known[0][0].any()
    assert torch.equal(known[1][1], ends[0])
    assert torch.equal(known[2][1], ends[1])


def test_a_fit_that_goes_on_elsewhere_says_that_memory_begins_anew(classifier, data, trainer):
    module, other = classifier(), Indexed(data(16))
    begun = (module, Indexed(data(12)))
    for fits in ([begun, (classifier(), begun[1])], [begun, (module, other)]):
        with pytest.warns(UserWarning, match="Remembers goes on in epoch 1 without what it remembered of the samples"):
            going_on(trainer(Remembers()), *fits)


def test_a_callback_can_be_sent_to_processes_that_are_spawned():
    assert pickle.loads(pickle.dumps(ObjectiveCallback("loss_fn"))).criterion == "loss_fn"


def test_the_base_callback_changes_nothing(classifier, data, fitted):
    plain = fitted(classifier, data(), epochs=2)
    watched = fitted(classifier, data(), ObjectiveCallback(), epochs=2)
    torch.testing.assert_close(watched.losses, plain.losses)
    torch.testing.assert_close(weights(watched), weights(plain))


def test_an_objective_reaches_training_and_not_validation(classifier, data, fitted):
    plain, tripled = fitted(classifier, data()), fitted(classifier, data(), Tripled())
    assert tripled.losses[0] == pytest.approx(3 * plain.losses[0])
    fresh = classifier()
    fresh.load_state_dict(tripled.state_dict())
    x, y = next(iter(data().val_dataloader()))
    assert tripled.val_losses[0] == pytest.approx(float(fresh.criterion(fresh.model(x), y)))


def test_callbacks_stack(classifier, data, fitted):
    class PlusOne(ObjectiveCallback):
        def objective(self, step):
            return 1 + step.loss()

    plain, both = fitted(classifier, data()), fitted(classifier, data(), Tripled(), Recorder(), PlusOne())
    assert both.losses[0] == pytest.approx(1 + 3 * plain.losses[0])
    both = fitted(classifier, data(), PlusOne(), Tripled())
    assert both.losses[0] == pytest.approx(3 * (1 + plain.losses[0]))


def test_functional_losses_are_reached(functional_classifier, data, fitted):
    plain = fitted(functional_classifier, data())
    tripled = fitted(functional_classifier, data(), Tripled(criterion="functional"))
    assert tripled.losses[0] == pytest.approx(3 * plain.losses[0])


def test_the_step_shows_inputs_target_and_batch(classifier, data, fitted):
    recorder, source = Recorder(), data()
    fitted(classifier, source, recorder)
    inputs, target, batch_type = recorder.seen[0]
    assert batch_type in (tuple, list)
    for x, y in zip(inputs, target, strict=True):
        assert y == source.y[(source.x == x).all(1).nonzero().item()]


def test_the_module_is_as_before_after_fit(classifier, data, fitted):
    module = fitted(classifier, data(), Tripled(), WithPeer())
    assert "forward" not in vars(module.criterion)
    assert not hasattr(module, "peer")
    assert not module.model._forward_pre_hooks


def test_the_module_is_as_before_after_an_exception(classifier, data, fitted):
    class Fails(Tripled):
        def objective(self, step):
            raise RuntimeError("boom")

    module = classifier()
    with pytest.raises(RuntimeError, match="boom"):
        fitted(lambda: module, data(), Fails(), WithPeer())
    assert "forward" not in vars(module.criterion)
    assert not hasattr(module, "peer")
    fitted(lambda: module, data(), Tripled())  # and it trains again


def test_functional_interception_ends_with_an_exception(functional_classifier, data, fitted):
    class Fails(Tripled):
        def objective(self, step):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fitted(functional_classifier, data(), Fails(criterion="functional"))
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    assert torch.nn.functional.cross_entropy(logits, target) == pytest.approx(torch.log(torch.tensor(3.0)))


def test_an_attached_network_trains_and_stays_out_of_the_modules_weights(classifier, data, fitted, tmp_path):
    callback = WithPeer()
    module = fitted(classifier, data(), callback, epochs=2, enable_checkpointing=True)
    torch.manual_seed(7)
    untrained = nn.Linear(4, 8)
    assert not torch.equal(callback.peer[0].weight, untrained.weight)
    checkpoint = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
    assert not [key for key in checkpoint["state_dict"] if "peer" in key]
    classifier().load_state_dict(checkpoint["state_dict"])
    assert set(checkpoint["state_dict"]) == set(module.state_dict())


def test_an_attached_network_resumes(classifier, data, fitted, trainer, tmp_path):
    whole = WithPeer()
    fitted(classifier, data(), whole, epochs=3, enable_checkpointing=True)
    # the checkpoint of the last epoch holds the trained peer
    path = next(tmp_path.rglob("*.ckpt"))
    resumed = WithPeer()
    trainer(resumed, epochs=3).fit(classifier(), datamodule=data(), ckpt_path=path)
    torch.testing.assert_close(resumed.peer.state_dict(), whole.peer.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_saved_after_the_fit_holds_what_was_attached(classifier, data, trainer, tmp_path):
    whole, pausing = WithPeer(), trainer(WithPeer(), epochs=2)
    torch.manual_seed(0)
    start = classifier().state_dict()

    def module():
        fresh = classifier()
        fresh.load_state_dict(start)
        return fresh

    source = data()
    source.train_dataloader = source.val_dataloader  # no shuffling
    trainer(whole, epochs=3).fit(module(), datamodule=source)
    pausing.fit(module(), datamodule=source)
    pausing.save_checkpoint(tmp_path / "later.ckpt")
    resumed = WithPeer()
    trainer(resumed, epochs=3).fit(module(), datamodule=source, ckpt_path=tmp_path / "later.ckpt")
    torch.testing.assert_close(resumed.peer.state_dict(), whole.peer.state_dict(), rtol=0, atol=0)


def test_attached_parameters_without_an_optimizer_are_refused(classifier, data, fitted):
    class Selective(classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), 0.1)

    with pytest.raises(
        UserError, match=r"no optimizer of Selective holds .* WithPeer attached as 'peer'.*self.parameters"
    ):
        fitted(Selective, data(), WithPeer())


def test_an_attribute_that_is_taken_is_not_overwritten(classifier, data, fitted):
    class HasPeer(classifier):
        peer = 3

    with pytest.raises(UserError, match="HasPeer already has an attribute 'peer'"):
        fitted(HasPeer, data(), WithPeer())


def test_a_memory_learns_every_sample(classifier, data, fitted):
    callback, source = Remembers(), data()
    fitted(classifier, Indexed(source), callback)
    assert torch.equal(callback.memory["target"], source.y)
    assert callback.memory.seen.all()
    assert callback.memory["loss"].isfinite().all()


def test_a_memory_without_a_data_module_that_knows_its_size_is_refused(classifier, data, fitted):
    with pytest.raises(UserError, match=r"Remembers keeps a memory .* datamodule=medbolt.core.Indexed"):
        fitted(classifier, data(), Remembers())


def test_an_absent_index_is_answered_with_the_remedy(classifier, data, fitted):
    class NeedsIndex(ObjectiveCallback):
        def objective(self, step):
            return step.loss() * (step.index >= 0)

    with pytest.raises(UserError, match=r"carries no 'index'; wrap .*medbolt.core.Indexed\(datamodule\)"):
        fitted(classifier, data(), NeedsIndex())


def test_a_criterion_that_training_does_not_call_is_refused(functional_classifier, data, fitted):
    with pytest.raises(UserError, match="FunctionalClassifier never called its criterion 'criterion'"):
        fitted(functional_classifier, data(), Tripled())


def test_a_failure_before_setup_is_shown_as_it_is(classifier, data, fitted):
    class Unset(Tripled):
        def state_dict(self):
            return super().state_dict() | {"threshold": self.threshold}

    class NoData(data):
        def setup(self, stage):
            raise UserError("no such folder.")

    with pytest.raises(UserError, match="no such folder"):
        fitted(classifier, NoData(), Unset())


def test_a_checkpoint_of_other_data_is_refused(classifier, data, fitted, trainer, tmp_path):
    fitted(classifier, Indexed(data(12)), Remembers(), enable_checkpointing=True)
    path = next(tmp_path.rglob("*.ckpt"))
    with pytest.raises(UserError, match="belongs to other training data"):
        trainer(Remembers(), epochs=2).fit(classifier(), datamodule=Indexed(data(16)), ckpt_path=path)


def test_gradient_is_finite_under_bfloat16(classifier, data, fitted):
    module = fitted(classifier, data(), Tripled(), precision="bf16-mixed")
    assert weights(module).isfinite().all()


def test_a_checkpoint_of_a_run_without_what_is_attached_is_refused(classifier, data, fitted, trainer, tmp_path):
    class Helped(Tripled):
        def setup(self, trainer, pl_module, stage):
            super().setup(trainer, pl_module, stage)
            if stage == "fit":
                self.attach(pl_module, "helper", nn.Linear(2, 2))

    fitted(classifier, data(), enable_checkpointing=True)
    path = next(tmp_path.rglob("*.ckpt"))
    with pytest.raises(UserError, match="the checkpoint holds nothing of Helped, which attaches .*helper"):
        trainer(Helped(), epochs=2).fit(classifier(), datamodule=data(), ckpt_path=path)
