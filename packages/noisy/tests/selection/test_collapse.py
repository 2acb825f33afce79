import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import ClassificationTask
from medbolt.noisy import CollapseMonitor, Selection


class Constant(nn.Module):
    """Predicts the same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.bias.expand(len(x), -1)


class Selects(Callback):
    def __init__(self, kept):
        self.kept, self.selection = kept, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.selection = Selection(batch["index"], self.kept[batch["index"]])


def fit(model, *callbacks, task="multiclass", num_classes=3, epochs=1):
    module = ClassificationTask(model, num_classes, task, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0))
    run = trainer(*callbacks, epochs=epochs)
    run.fit(module, datamodule=ToyImages())
    return {name: float(value) for name, value in run.callback_metrics.items()}


def told(recwarn):
    return [str(w.message) for w in recwarn if str(w.message).startswith("in epoch")]


def test_warns_once_when_one_class_is_predicted(recwarn):
    found = fit(Constant([0.0, 1.0, 0.0]), CollapseMonitor(), epochs=2)
    (text,) = told(recwarn)
    assert "in epoch 0 100.0% of the validation samples were predicted to be 'mild'" in text
    assert found["val/dominant_share"] == 1


def test_says_nothing_of_varied_predictions(recwarn):
    class Pixels(Constant):
        def forward(self, x):
            return x[:, :, 0, 0] + 0 * self.bias

    found = fit(Pixels([0.0, 0.0, 0.0]), CollapseMonitor())
    assert told(recwarn) == []
    assert 1 / 3 <= found["val/dominant_share"] < 0.95


def test_the_share_is_counted(recwarn):
    monitor = CollapseMonitor(threshold=0.5)
    probability = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])

    class Returns(ClassificationTask):
        def validation_step(self, batch, batch_idx):
            return {"probability": probability}

    module = Returns(Constant([0.0, 0.0, 0.0]), 3)
    run = trainer(monitor)
    run.fit(module, datamodule=ToyImages({"val": 12}))
    assert float(run.callback_metrics["val/dominant_share"]) == pytest.approx(2 / 3)
    assert len(told(recwarn)) == 1


def test_other_outputs_are_passed_over(recwarn):
    class Silent(ClassificationTask):
        def validation_step(self, batch, batch_idx):
            return None

    run = trainer(CollapseMonitor())
    run.fit(Silent(Constant([0.0, 1.0, 0.0]), 3), datamodule=ToyImages())
    assert "val/dominant_share" not in run.callback_metrics
    assert told(recwarn) == []


def test_one_probability_for_two_classes():
    from medbolt.noisy.selection.collapse import _counts

    assert _counts(torch.tensor([0.2, 0.7, 0.1])).tolist() == [2, 1]
    assert _counts(torch.tensor([[0.2], [0.7]])).tolist() == [1, 1]


def test_warns_once_when_a_class_is_never_selected(recwarn):
    class Switches(Selects):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.kept = torch.arange(24) % 3 != 1 if trainer.current_epoch else torch.ones(24, dtype=torch.bool)
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    fit(Constant([0.0, 0.0, 0.0]), Switches(None), CollapseMonitor(0.999999), epochs=3)
    (text,) = [text for text in told(recwarn) if "selected" in text]
    assert "in epoch 1 no training sample of 'mild' was selected" in text


def test_says_nothing_of_classes_that_were_not_drawn(recwarn):
    class OfTheFirstClass(Selects):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, {"index": batch["index"] // 3 * 3}, batch_idx)

    fit(Constant([0.0, 0.0, 0.0]), OfTheFirstClass(torch.ones(24, dtype=torch.bool)), CollapseMonitor(0.999999))
    assert [text for text in told(recwarn) if "selected" in text] == []


def test_refuses_a_threshold_out_of_range():
    with pytest.raises(ValueError, match="threshold"):
        CollapseMonitor(1.0)
