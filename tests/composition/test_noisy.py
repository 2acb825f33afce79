"""Methods of medbolt-noisy over long-tail losses, over each other, and on batches of an unusual kind."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.functional import one_hot
from toys import ToyImages, trainer, weights

from medbolt.core import ClassificationTask, EpochSampler, ImageDataset, ObjectiveCallback, TimmClassifier, UserError
from medbolt.longtail import (
    ClassBalancedLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    SeesawLoss,
)
from medbolt.noisy import (
    CDR,
    DISC,
    CoDis,
    ConfidentWeighting,
    CoTeaching,
    CoTeachingPlus,
    EarlyLearningRegularization,
    EarlyLearningRegularizationPlus,
    JoCoR,
    LabelQuality,
    MixUp,
    SampleSelectionAndRelabelling,
    SelfEnsembleLabelCorrection,
    SmallLossSelection,
    SparseOverParameterization,
    TRevision,
    VolMinNet,
)

CLASSES = 3
METHODS: dict[str, Any] = {
    "disc": lambda: DISC(1, sigma=0.1, momentum=0.0, strong=nn.Hardshrink(0.3)),
    "mixup": MixUp,
    "ssr": lambda: SampleSelectionAndRelabelling(0.5, neighbours=3, consistency=1.0, strong=nn.Hardshrink(0.3)),
    "small loss": lambda: SmallLossSelection(0.4, gradual_epochs=0),
    "co-teaching": lambda: CoTeaching(0.4, gradual_epochs=0),
    "co-teaching+": lambda: CoTeachingPlus(0.4, warmup_epochs=0, gradual_epochs=0),
    "jocor": lambda: JoCoR(0.4, gradual_epochs=0),
    "codis": lambda: CoDis(0.4, gradual_epochs=0),
    "volminnet": VolMinNet,
    "t-revision": lambda: TRevision(1),
    "elr": EarlyLearningRegularization,
    "elr+": EarlyLearningRegularizationPlus,
    "selc": lambda: SelfEnsembleLabelCorrection(0),
    "sop+": lambda: SparseOverParameterization(consistency=0.9, balance=0.1, strong=nn.Hardshrink(0.3)),
    "weighting": lambda: ConfidentWeighting(1),
    "quality": LabelQuality,
    "cdr": lambda: CDR(0.4, gradual_epochs=0),
}
"""From the innermost to the outermost, where the order matters."""

LOSSES: dict[str, Any] = {
    "class-balanced": ClassBalancedLoss,
    "ldam": LDAMLoss,
    "logit-adjusted": LogitAdjustedLoss,
    "seesaw": SeesawLoss,
}


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    """LabelQuality writes its table where the run is."""
    monkeypatch.chdir(tmp_path)


class Images(ToyImages):
    """Toy images with labels of one's own."""

    def __init__(self, targets: Tensor, batch_size: int = 4, **options: Any) -> None:
        super().__init__({"train": len(targets)}, batch_size, **options)
        self.targets = targets

    def load(self, split):
        dataset = super().load(split)
        return ImageDataset(dataset.images, self.targets, dataset.ids) if split == "train" else dataset


class Innermost(ObjectiveCallback):
    """Keeps what the criterion gave for which logits and targets."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def objective(self, step):
        losses = step.loss()
        self.calls.append((losses.detach(), step.logits.detach(), step.target))
        return losses


class Outermost(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


class Kept(Callback):
    """Counts what a method selects of each batch."""

    def __init__(self, method: Any) -> None:
        self.method, self.counts = method, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if getattr(self.method, "selection", None) is not None:
            self.counts.append(int(self.method.selection.kept.sum()))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))


def fitted(
    data: ToyImages, *callbacks: Callback, network: nn.Module | None = None, epochs: int = 3, **task: Any
) -> None:
    """Fit; check that all losses and weights are finite."""
    module, seen = ClassificationTask(network or linear(), CLASSES, **task), Outermost()
    trainer(*callbacks, seen, epochs=epochs, limit_val_batches=0).fit(module, datamodule=data)
    assert all(map(math.isfinite, seen.losses))
    assert weights(module).isfinite().all()


TAIL = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)


def descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.01)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_over_a_long_tail_loss(name, loss):
    torch.manual_seed(0)
    network, innermost = TimmClassifier("resnet10t", CLASSES), Innermost()
    options = {"network": network, "criterion": LOSSES[loss](), "epochs": 2, "optimizer": descent}
    data = Images(TAIL, batch_size=12)
    if (name, loss) == ("selc", "seesaw"):
        with pytest.raises(UserError, match="SeesawLoss is defined for class indices"):
            fitted(data, METHODS[name](), **options)
        return
    fitted(data, innermost, METHODS[name](), **options)
    if name != "volminnet":  # whose loss takes the criterion's place
        losses, logits, target = innermost.calls[0]
        torch.testing.assert_close(losses.mean(), LOSSES[loss](class_counts=[6, 4, 2])(logits, target))


ATTACHED = {"peer_network": {"elr+", "co-teaching", "co-teaching+", "jocor", "codis"}}
ATTACHED["noise_transition"] = {"volminnet", "t-revision"}
PAIRS = list(combinations(METHODS, 2))


@pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=map(" under ".join, PAIRS))
def test_a_method_over_another(inner, outer):
    attached = [name for name, methods in ATTACHED.items() if {inner, outer} <= methods]
    if attached:  # two methods of one kind: there is one second network, one transition matrix
        with pytest.raises(UserError, match=f"already has an attribute '{attached[0]}'"):
            fitted(Images(TAIL), METHODS[inner](), METHODS[outer]())
    else:
        fitted(Images(TAIL), METHODS[inner](), METHODS[outer]())


@pytest.mark.parametrize("inner", ["mixup", "co-teaching", "elr", "sop+", "weighting"])
def test_disc_asks_for_parts_of_a_batch_and_says_so(inner):
    with pytest.raises(UserError, match="put DISC before it"):
        fitted(Images(TAIL), METHODS[inner](), METHODS["disc"]())


class InOrder(Images):
    """Batches in the order of the labels."""

    def train_sampler(self, dataset, tail):
        return EpochSampler(dataset, False, self.seed, tail=tail)


class Fixed(nn.Linear):
    """Predicts class 0 of every image, surely or by a hair, and so does a copy that is drawn anew."""

    def __init__(self, bias: float) -> None:
        self.of_class_0 = bias
        super().__init__(192, CLASSES)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        self.bias.data.copy_(torch.tensor([self.of_class_0, 0.0, 0.0]))


def resting(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.0)  # which a gradient that is not finite disturbs all the same


SORTED = torch.tensor([1] * 4 + [2] * 4 + [0] * 4)


@pytest.mark.parametrize("name", METHODS)
class TestOddBatches:
    def test_of_one_sample(self, name):
        fitted(Images(torch.arange(CLASSES), batch_size=1), METHODS[name]())

    def test_of_one_class(self, name):
        fitted(InOrder(SORTED), METHODS[name]())

    @pytest.mark.parametrize("bias", [30.0, 0.1])
    def test_of_which_no_label_is_believed(self, name, bias):
        method = METHODS[name]()
        kept = Kept(method)
        fitted(InOrder(SORTED), method, kept, network=nn.Sequential(nn.Flatten(), Fixed(bias)), optimizer=resting)
        if (name, bias) in (("disc", 0.1), ("weighting", 30.0)):  # the others always keep somebody
            assert 0 in kept.counts

    def test_with_soft_targets(self, name):
        soft = 0.8 * one_hot(TAIL, CLASSES) + 0.2 / CLASSES
        fitted(Images(soft), METHODS[name]())
