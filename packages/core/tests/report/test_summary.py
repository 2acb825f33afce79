from lightning.pytorch import LightningModule, Trainer
from torch import nn

from medbolt.core.report.summary import run_summary


def test_says_what_is_known_and_leaves_out_the_rest():
    module = LightningModule()
    module.model = nn.Linear(3, 2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    summary = run_summary(trainer, module)
    assert summary["network"] == "Linear"
    assert summary["parameters"] == "8"
    assert summary["processes"] == "1"
    assert "criterion" not in summary
    assert "checkpoint" not in summary
