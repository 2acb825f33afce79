import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from toys import ToyClassifier, ToyImages, trainer

from medbolt.core import ClassificationTask
from medbolt.noisy import CoTeachingSchedule


def optimizer(kind=torch.optim.Adam):
    return kind([torch.zeros(1, requires_grad=True)], lr=0.001)


def test_values_are_the_authors():
    adam = optimizer()
    schedule = CoTeachingSchedule(adam, total_epochs=50, decay_start=20)
    found = []
    for _ in range(52):
        found.append((adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]))
        adam.step()
        schedule.step()
    for epoch, (rate, betas) in enumerate(found):
        expected = 0.001 if epoch < 20 else 0.001 * max(50 - epoch, 0) / 30
        assert rate == pytest.approx(expected)
        assert betas == (0.9 if epoch < 20 else 0.1, 0.999)


def test_momentum_may_stay_for_any_optimizer():
    sgd = optimizer(torch.optim.SGD)
    CoTeachingSchedule(sgd, total_epochs=2, decay_start=0, late_beta1=None)
    with pytest.raises(ValueError, match="SGD has no betas"):
        CoTeachingSchedule(sgd, total_epochs=2, decay_start=0)


@pytest.mark.parametrize("options", [{"decay_start": 5}, {"decay_start": -1}, {"late_beta1": 1.0}])
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CoTeachingSchedule(optimizer(), **({"total_epochs": 5, "decay_start": 2} | options))


class Watches(Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        (group,) = trainer.optimizers[0].param_groups
        self.seen.append((trainer.current_epoch, round(group["lr"], 6), group["betas"][0]))


def test_a_resumed_run_goes_on_with_it(tmp_path):
    def task():
        return ClassificationTask(
            ToyClassifier().model,
            num_classes=3,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.004),
            scheduler=lambda optimizer: CoTeachingSchedule(optimizer, total_epochs=4, decay_start=1),
        )

    whole, first, second = Watches(), Watches(), Watches()
    trainer(whole, epochs=4).fit(task(), datamodule=ToyImages())
    saving = ModelCheckpoint(tmp_path, save_last=True)
    trainer(first, saving, epochs=2, enable_checkpointing=True).fit(task(), datamodule=ToyImages())
    trainer(second, epochs=4).fit(task(), datamodule=ToyImages(), ckpt_path=tmp_path / "last.ckpt")
    assert whole.seen == [(0, 0.004, 0.9), (1, 0.004, 0.1), (2, 0.002667, 0.1), (3, 0.001333, 0.1)]
    assert first.seen + second.seen == whole.seen
