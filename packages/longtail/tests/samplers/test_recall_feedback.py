import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from medbolt.core import RandomState, UserError
from medbolt.longtail import FlexRebalancingSampler, RecallFeedback, Resampled


class Orders(Callback):
    """Notes the recalls in use and the samples drawn in each epoch."""

    def __init__(self):
        self.recalls, self.drawn = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0 or not self.drawn:
            self.recalls.append(trainer.train_dataloader.sampler.recall.tolist())
            self.drawn.append([])
        self.drawn[-1] += batch["index"].tolist()


def recall_of(task, data):
    batches = list(data.val_dataloader())
    with torch.no_grad():
        predicted = torch.cat([task(batch["image"]).argmax(1) for batch in batches])
    target = torch.cat([batch["target"] for batch in batches])
    return [(predicted[target == c] == c).double().mean().item() for c in range(4)]


def test_the_recalls_of_a_validation_hold_in_the_next_epoch(bright, make_task, make_trainer):
    orders, after = Orders(), []

    class Measure(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            after.append(recall_of(pl_module, trainer.datamodule))

    data = Resampled(bright(), FlexRebalancingSampler)
    make_trainer(max_epochs=3, callbacks=[RecallFeedback(), orders, Measure()]).fit(make_task(), data)
    assert orders.recalls[0] == [1, 1, 1, 1]
    assert orders.recalls[1:] == [pytest.approx(recall) for recall in after[:2]]
    assert len(set(map(tuple, orders.recalls))) > 1


def test_a_resumed_run_repeats_the_uninterrupted_one(bright, make_task, make_trainer, tmp_path):
    def run(epochs, checkpoint=None):
        orders = Orders()
        trainer = make_trainer(max_epochs=epochs, callbacks=[RecallFeedback(), orders])
        task = make_task()
        trainer.fit(task, Resampled(bright(), FlexRebalancingSampler), ckpt_path=checkpoint)
        return trainer, task, orders

    _, task, whole = run(4)
    stopped, _, _ = run(2)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed_task, resumed = run(4, tmp_path / "half.ckpt")
    assert resumed.drawn == whole.drawn[2:]
    torch.testing.assert_close(resumed_task.state_dict(), task.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("saves", "step"),
    [
        ({"every_n_train_steps": 6}, 6),  # inside the second epoch of four steps
        ({"every_n_epochs": 1, "save_on_train_epoch_end": False}, 4),  # after a validation
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, 8),
    ],
)
def test_it_goes_on_from_any_checkpoint(saves, step, bright, make_task, make_trainer, tmp_path):
    def run(folder, checkpoint=None):
        orders = Orders()
        saving = ModelCheckpoint(tmp_path / folder, "{step}", save_top_k=-1, **saves)
        callbacks = [RecallFeedback(), orders, RandomState(1), saving]
        task = make_task()
        trainer = make_trainer(max_epochs=4, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(task, Resampled(bright(), FlexRebalancingSampler), ckpt_path=checkpoint, weights_only=True)
        return task, [index for drawn in orders.drawn for index in drawn]

    whole_task, whole = run("whole")
    task, rest = run("resumed", tmp_path / f"whole/step={step}.ckpt")
    assert rest == whole[-len(rest) :]
    assert len(rest) == len(whole) - 16 * step
    torch.testing.assert_close(task.state_dict(), whole_task.state_dict(), rtol=0, atol=0)


def test_another_sampler_is_named(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="drives a FlexRebalancingSampler, but the training loader has a EpochSampler"):
        make_trainer(callbacks=[RecallFeedback()]).fit(make_task(), bright())


def test_a_validation_step_that_returns_nothing_is_named(bright, make_task, make_trainer):
    task = make_task()
    task.validation_step = lambda batch, batch_idx: None
    with pytest.raises(UserError, match="validation_step of ClassificationTask to return a dict"):
        make_trainer(callbacks=[RecallFeedback()]).fit(task, Resampled(bright(), FlexRebalancingSampler))


class Two(LightningModule):
    """Predicts what its batches say, by one probability or one logit; knows two validation loaders."""

    def __init__(self, name):
        super().__init__()
        self.name, self.weight = name, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch["image"]).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        right = (batch["target"] == 1).float() if dataloader_idx == 0 else (batch["target"] == 0).float()
        score = 0.4 * right + 0.3 if self.name == "probability" else 2 * right - 1
        return {self.name: score[:, None], "target": batch["target"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("name", ["probability", "logits"])
def test_one_score_a_sample_and_the_first_of_several_loaders_count(bright, make_trainer, name):
    class Pair(bright):
        class_names = ["a", "b"]

        def load(self, split):
            dataset = super().load(split)
            dataset.targets.clamp_(max=1)
            return dataset

        def val_dataloader(self):
            return [super().val_dataloader(), super().val_dataloader()]

    feedback = RecallFeedback()
    make_trainer(max_epochs=1, callbacks=[feedback]).fit(Two(name), Resampled(Pair(), FlexRebalancingSampler))
    assert feedback.recall == [1, 1]


def test_outside_fit_it_asks_for_nothing(bright, make_task, make_trainer):
    data = bright()
    data.setup("validate")
    make_trainer(callbacks=[RecallFeedback()]).validate(make_task(), dataloaders=data.val_dataloader(), verbose=False)


def test_overfitting_batches_puts_the_sampler_aside(bright, make_task, make_trainer):
    trainer = make_trainer(callbacks=[RecallFeedback()], overfit_batches=2)
    with pytest.raises(UserError, match="has a SequentialSampler; leave overfit_batches out"):
        trainer.fit(make_task(), Resampled(bright(), FlexRebalancingSampler))


def test_another_run_begins_without_recalls(bright, make_task, make_trainer):
    feedback, orders = RecallFeedback(), Orders()
    make_trainer(max_epochs=2, callbacks=[feedback]).fit(make_task(), Resampled(bright(), FlexRebalancingSampler))
    assert feedback.recall is not None
    data = Resampled(bright(), FlexRebalancingSampler)
    make_trainer(max_epochs=1, callbacks=[feedback, orders]).fit(make_task(), data)
    assert orders.recalls == [[1, 1, 1, 1]]
