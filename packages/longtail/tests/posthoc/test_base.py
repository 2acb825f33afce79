"""When and where logits are changed, whatever the change."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from medbolt.core import DataModuleWrapper, UserError
from medbolt.longtail import EvaluationHead, ExpertAggregation, ExpertsClassifier, NearestClassMeanHead
from medbolt.longtail.posthoc.base import PosthocCallback


class Plus(PosthocCallback):
    """Adds to the last class what it is given, and notes what it was tuned on."""

    def __init__(self, amount, network="model"):
        super().__init__(network)
        self.amount, self.tuned_on = amount, []

    def adjusted(self, logits):
        return logits + self.amount * (torch.arange(logits.shape[1]) == logits.shape[1] - 1)

    def tune(self, logits, target):
        self.tuned_on.append((logits, target))
        return {"size": float(len(target))}


def last_class(logits):
    return torch.cat(logits)[:, -1]


def test_it_acts_in_evaluations_and_nowhere_in_fit(bright, noting, make_trainer):
    task, plus = noting(), Plus(2.0)
    trainer = make_trainer(callbacks=[plus], max_epochs=2)
    trainer.fit(task, bright())
    trainer.validate(task, bright(), verbose=False)
    trainer.test(task, bright(), verbose=False)
    trainer.predict(task, bright())
    assert set(task.seen) == {"fit", "fit training", "validate", "test", "predict"}
    for stage, seen in task.seen.items():
        expected = 0.0 if stage.startswith("fit") else 2.0
        difference = torch.cat(seen) - torch.cat(task.raw[stage])
        torch.testing.assert_close(difference[:, -1], torch.full((len(difference),), expected), atol=1e-5, rtol=0)
        assert (difference[:, :-1] == 0).all()
    assert not task.model._forward_hooks


def test_it_is_tuned_after_each_validation_of_a_fit_and_not_again(bright, make_task, make_trainer):
    plus, task = Plus(1.0), make_task()
    trainer = make_trainer(callbacks=[plus], max_epochs=3, num_sanity_val_steps=2)
    trainer.fit(task, bright())
    assert len(plus.tuned_on) == 3
    assert float(trainer.callback_metrics["val/posthoc_size"]) == 24
    trainer.test(task, bright(), verbose=False)
    assert len(plus.tuned_on) == 3
    logits, target = plus.tuned_on[-1]
    with torch.no_grad():
        expected = torch.cat([task.eval()(batch["image"]) for batch in bright().val_dataloader()])
    assert sorted(logits[:, 0].tolist()) == pytest.approx(sorted(expected[:, 0].tolist()))
    assert target.tolist() == sorted(target.tolist())


def test_it_is_tuned_before_an_evaluation_of_weights_it_does_not_know(bright, make_task, make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(make_task(), bright())
    trainer.save_checkpoint(tmp_path / "foreign.ckpt")
    plus = Plus(1.0)
    for evaluate in ("validate", "test", "predict"):
        run = make_trainer(callbacks=[plus])
        options = {} if evaluate == "predict" else {"verbose": False}
        getattr(run, evaluate)(make_task(), datamodule=bright(), ckpt_path=tmp_path / "foreign.ckpt", **options)
    assert len(plus.tuned_on) == 3  # once for each: the checkpoint does not tell, and memory may be of other weights


def test_it_is_tuned_anew_for_weights_that_trained_on_after_the_last_validation(
    bright, make_task, make_trainer, tmp_path
):
    plus, task = Plus(1.0), make_task()
    trainer = make_trainer(callbacks=[plus], max_epochs=3, check_val_every_n_epoch=2)
    trainer.fit(task, bright())
    assert len(plus.tuned_on) == 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.test(task, bright(), verbose=False)
    assert len(plus.tuned_on) == 2
    other = Plus(1.0)
    run = make_trainer(callbacks=[other])
    run.test(make_task(), bright(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert len(other.tuned_on) == 1


def test_each_model_of_several_is_tuned_for_and_one_that_was_is_not_again(bright, make_task, make_trainer):
    plus, first, second = Plus(1.0), make_task(), make_task()
    second.model[1].bias.data[0] += 1
    trainer = make_trainer(callbacks=[plus])
    for task, times in ((first, 1), (first, 1), (second, 2), (second, 2), (first, 3)):
        trainer.test(task, bright(), verbose=False)
        assert len(plus.tuned_on) == times
    torch.testing.assert_close(plus.tuned_on[1][0][:, 0], plus.tuned_on[0][0][:, 0] + 1)


@pytest.mark.parametrize("kind", [list, lambda loaders: dict(zip("ab", loaders, strict=True))])
def test_of_several_validation_loaders_the_first_is_tuned_on(bright, make_task, make_trainer, kind):
    class Two(DataModuleWrapper):
        def val_dataloader(self):
            return kind([self.data.val_dataloader(), self.data.train_dataloader()])

    plus, plain = Plus(1.0), Plus(1.0)
    make_trainer(callbacks=[plus]).test(make_task(), Two(bright()), verbose=False)
    make_trainer(callbacks=[plain]).test(make_task(), bright(), verbose=False)
    torch.testing.assert_close(plus.tuned_on, plain.tuned_on)


def test_with_an_evaluation_head_it_is_tuned_on_that_head_s_logits(bright, make_task, make_trainer):
    head, plus, task = EvaluationHead(NearestClassMeanHead, "model.1"), Plus(1.0), make_task()
    trainer = make_trainer(callbacks=[head, plus])
    trainer.fit(task, bright())
    fresh = Plus(1.0)
    make_trainer(callbacks=[head, fresh]).test(task, bright(), verbose=False)
    trainer.test(task, bright(), verbose=False)
    torch.testing.assert_close(plus.tuned_on[1:], fresh.tuned_on)
    assert not torch.equal(plus.tuned_on[0][0], plus.tuned_on[1][0])
    make_trainer(callbacks=[plus]).test(task, bright(), verbose=False)  # the trained head again
    torch.testing.assert_close(plus.tuned_on[2], plus.tuned_on[0])


class Noise(nn.Module):
    """Views under which predictions are uncertain."""

    def forward(self, image):
        return image + 0.5 * torch.randn(image.shape[-2:])


def experts(make_task):
    task = make_task()
    task.model = ExpertsClassifier(task.model, 3, [], "1")
    return task


def test_with_weights_of_experts_it_is_tuned_on_the_experts_so_weighted(bright, make_task, make_trainer):
    task, aggregation, plus = experts(make_task), ExpertAggregation(views=Noise()), Plus(1.0)
    trainer = make_trainer(callbacks=[aggregation, plus])
    trainer.fit(task, bright())
    trainer.test(task, bright(), verbose=False)
    assert aggregation.weights[0].std() > 1e-3
    images = torch.cat([batch["image"] for batch in bright().val_dataloader()])
    with torch.no_grad():
        logits = (aggregation.weights[0].float().view(-1, 1, 1) * task.model.each(images)).sum(0)
    assert sorted(plus.tuned_on[-1][0][:, 0].tolist()) == pytest.approx(sorted(logits[:, 0].tolist()), abs=1e-5)
    assert task.model.weights.tolist() == pytest.approx([1 / 3] * 3)
    make_trainer(callbacks=[plus]).test(task, bright(), verbose=False)  # the mean of experts again
    torch.testing.assert_close(plus.tuned_on[2], plus.tuned_on[0])


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_what_changes_the_network_comes_before(bright, make_task, make_trainer, stage):
    head = EvaluationHead(NearestClassMeanHead, "model.1")
    with pytest.raises(UserError, match="put EvaluationHead before Plus in the callbacks"):
        getattr(make_trainer(callbacks=[Plus(1.0), head]), stage)(make_task(), bright())
    with pytest.raises(UserError, match="put ExpertAggregation before Plus in the callbacks"):
        getattr(make_trainer(callbacks=[Plus(1.0), ExpertAggregation()]), stage)(experts(make_task), bright())


def test_each_is_tuned_on_what_the_ones_before_give(bright, make_task, make_trainer):
    class After(Plus):
        pass

    first, second, task = Plus(1.0), After(10.0), make_task()
    make_trainer(callbacks=[first, second]).fit(task, bright())
    make_trainer(callbacks=[Plus(1.0), third := After(10.0)]).test(task, bright(), verbose=False)
    ((raw, _),), ((given, _),), ((again, _),) = first.tuned_on, second.tuned_on, third.tuned_on
    torch.testing.assert_close(given[:, -1], raw[:, -1] + 1)
    torch.testing.assert_close(again, given)


class Binary(LightningModule):
    """One logit, in two shapes; its network is the module itself."""

    def __init__(self, flat):
        super().__init__()
        self.layer, self.flat = nn.Linear(48, 1), flat

    def forward(self, image):
        logits = self.layer(image.flatten(1))
        return logits.flatten() if self.flat else logits

    def predict_step(self, batch, batch_idx):
        return self(batch["image"])


@pytest.mark.parametrize("flat", [True, False])
def test_one_logit_is_that_of_the_second_class(bright, make_trainer, flat):
    class Data(bright):
        def load(self, split):
            dataset = super().load(split)
            dataset.targets.clamp_(max=1)
            return dataset

    module = Binary(flat)
    raw = torch.cat(make_trainer().predict(module, datamodule=Data()))
    changed = torch.cat(make_trainer(callbacks=[Plus(3.0, "self")]).predict(module, datamodule=Data()))
    assert changed.shape == raw.shape
    torch.testing.assert_close(changed, raw + 3)


def test_after_a_failure_the_network_is_left_alone(bright, make_task, make_trainer):
    class Fails(Callback):
        def on_test_batch_start(self, *arguments):
            raise RuntimeError("out of luck")

    task, plus = make_task(), Plus(1.0)
    with pytest.raises(RuntimeError, match="out of luck"):
        make_trainer(callbacks=[plus, Fails()]).test(task, bright())
    assert not task.model._forward_hooks


def test_a_network_that_is_not_there_is_named(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="ClassificationTask has no network 'net' .* 'model'"):
        make_trainer(callbacks=[Plus(1.0, "net")]).test(make_task(), bright())


def test_an_output_that_is_no_logits_is_named(bright, make_task, make_trainer):
    task = make_task()
    task.model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Unflatten(1, (2, 2)))
    with pytest.raises(UserError, match=r"needs logits \(B, C\) of 'model', but it gives \(16, 2, 2\)"):
        make_trainer(callbacks=[Plus(1.0)]).test(task, bright())


def test_multi_label_tasks_are_refused(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="one class a sample, but the task is multilabel"):
        make_trainer(callbacks=[Plus(1.0)]).fit(make_task(task="multilabel"), bright("labels"))
