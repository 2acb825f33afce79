"""Training on a GPU, in single and half precision: it fails nowhere, stays finite and learns what the CPU learns."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import ToyClassifier, ToyImages, weights

from medbolt.core import ObjectiveCallback, RandomState, SampleMemory
from medbolt.longtail import BalancedSoftmaxLoss, ConMix, DeferredReweighting, Remix, SharpnessAwareMinimization
from medbolt.noisy import (
    CDR,
    CoTeaching,
    CriterionEpoch,
    EarlyLearningRegularization,
    PeerSieveLoss,
    SelfEnsembleLabelCorrection,
    VolMinNet,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

METHODS = {
    "no-op": lambda: ObjectiveCallback(),
    "ELR": lambda: EarlyLearningRegularization(),
    "SELC": lambda: SelfEnsembleLabelCorrection(start_epoch=1),
    "Co-teaching": lambda: CoTeaching(0.2),
    "VolMinNet": lambda: VolMinNet(),
    "CDR": lambda: CDR(0.2),
    "DRW": lambda: DeferredReweighting(1),
    "Remix": lambda: Remix(),
    "ConMix": lambda: ConMix(strong=nn.Identity(), features="model.3"),
    "SAM": lambda: SharpnessAwareMinimization(),
}


def fitted(accelerator, *callbacks, **options):
    module = ToyClassifier(lr=0.01, dropout=0.0)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator=accelerator, devices=1, max_epochs=2, callbacks=list(callbacks), **quiet, **options)
    trainer.fit(module, datamodule=ToyImages(seed=0))
    return module


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_method_stays_finite(name, precision):
    module = fitted("gpu", RandomState(0), METHODS[name](), precision=precision)
    assert weights(module).isfinite().all()


@pytest.mark.parametrize("name", ["no-op", "ELR", "Co-teaching", "DRW"])
def test_it_learns_what_the_cpu_learns(name):
    on_gpu, on_cpu = (fitted(kind, RandomState(0), METHODS[name]()) for kind in ("gpu", "cpu"))
    torch.testing.assert_close(weights(on_gpu), weights(on_cpu), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_cores2_goes_on_from_the_end_of_an_epoch(strategy, tmp_path):
    def fit(epochs, checkpoint=None):
        module = ToyClassifier(lr=0.01)
        module.criterion = PeerSieveLoss(warmup_epochs=0, ramp_epochs=1, sieve_epoch=1)
        saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        callbacks = [RandomState(0), CriterionEpoch(), saving]
        run = Trainer(accelerator="gpu", devices=1, strategy=strategy, max_epochs=epochs, callbacks=callbacks, **quiet)
        run.fit(module, datamodule=ToyImages(seed=0), ckpt_path=checkpoint, weights_only=True)
        return weights(module)

    whole = fit(4)
    torch.testing.assert_close(fit(4, tmp_path / "epoch=1.ckpt"), whole, rtol=1e-3, atol=1e-4)


def test_a_memory_moves_and_keeps_what_it_holds():
    memory = SampleMemory(10, score=torch.tensor(0.0))
    memory.write(torch.tensor([3, 1]), score=torch.tensor([0.5, 0.25]))
    moved = memory.to(torch.device("cuda"))
    moved.write(torch.tensor([7], device="cuda"), score=torch.tensor([1.0], device="cuda"))
    assert moved["score"].is_cuda
    assert moved["score"][[3, 1, 7]].tolist() == [0.5, 0.25, 1.0]


def test_a_loss_on_the_gpu_is_that_on_the_cpu():
    logits, target = torch.randn(16, 5), torch.arange(16) % 5
    loss = BalancedSoftmaxLoss(class_counts=[9, 7, 5, 3, 1])
    expected = loss(logits, target)
    torch.testing.assert_close(loss.cuda()(logits.cuda(), target.cuda()).cpu(), expected)
