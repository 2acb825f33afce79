"""UNICON's selection: of each class equally many samples, those on whose labels both networks agree most."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.memory import SampleMemory
from medbolt.core.objective.training_pass import training_pass
from medbolt.noisy.dividemix.split import hard_label, memory_of


class UniformSplit:
    r"""Rank samples by the divergence of the networks' mean prediction from the label, and take as many of each class.

    .. math::
        d_i = \mathrm{JSD}(\bar p_i \,\|\, y_i), \qquad t = \bar d - \frac{\bar d - \min d}{\tau} [\bar d > d_u],
        \qquad R = \frac{1}{N} \sum_i [d_i < t]

    Of each class the :math:`\lfloor R N / C \rfloor` samples of smallest d are labelled, at least one, or all there
    are; a label is right with probability :math:`1 - d_i`. Both networks are told the same.

    Args:
        high_divergence: :math:`d_u` in [0, 1].
        strictness: :math:`\tau`, at least 1: the smaller, the fewer samples where the mean is high.

    State, cost: 10 bytes a sample in ``memory``, the same on every process and kept in checkpoints.
    """

    def __init__(self, high_divergence: float, strictness: float) -> None:
        if not 0 <= high_divergence <= 1 or strictness < 1:
            raise ValueError(
                f"high_divergence must be in [0, 1] and strictness at least 1, got {high_divergence} and {strictness}"
            )
        self.high_divergence, self.strictness = high_divergence, strictness
        self.memory = SampleMemory(1)

    def prepare(self, data: Any) -> None:
        """Make room for a data module's training samples."""
        self.memory = memory_of(data, "UNICON", clean=torch.zeros(2), labelled=torch.zeros(2, dtype=torch.bool))

    def update(self, trainer: Trainer, module: LightningModule, networks: Sequence[nn.Module], classes: int) -> None:
        """Evaluate the training set and select anew; all processes call together."""

        def evaluate(batch: dict[str, Any]) -> dict[str, Tensor]:
            target = hard_label(batch["target"])
            p = torch.stack([network(batch["image"]).float().softmax(1) for network in networks]).mean(0)
            return {"divergence": divergence(p.gather(1, target[:, None]).squeeze(1)), "label": target}

        fields = {"divergence": torch.tensor(torch.nan), "label": torch.tensor(0)}
        found = training_pass(trainer, module, evaluate, "divergence in the training set", **fields)
        d = found["divergence"]
        # one process selects: on another machine the mean may differ in the last digits
        selected = None
        if trainer.is_global_zero:
            selected = uniform_selection(d, found["label"], classes, self.high_divergence, self.strictness)
        labelled = trainer.strategy.broadcast(selected)
        assert isinstance(labelled, Tensor)
        clean = (1 - d).nan_to_num(0.0)
        for name, values in (("clean", clean), ("labelled", labelled)):
            self.memory.fields[name] = torch.stack([values.cpu()] * 2, 1)
        self.memory.to(module.device)


def divergence(probability: Tensor) -> Tensor:
    r"""Return the Jensen-Shannon divergence, in bits, of a distribution from the class that has this probability in it.

    .. math:: 1 + \tfrac12 p \log_2 p - \tfrac12 (1 + p) \log_2 (1 + p)

    Example:
        >>> divergence(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000, 0.3113, 0.0000])
    """
    p = probability.double().clamp(0, 1)
    bits = torch.special.xlogy(p, p) - torch.special.xlog1py(1 + p, p)
    return (1 + bits / (2 * torch.tensor(2.0, dtype=p.dtype).log().item())).clamp(0, 1).to(probability)


def uniform_selection(d: Tensor, label: Tensor, classes: int, high_divergence: float, strictness: float) -> Tensor:
    """Return which samples are labelled, (N,) bool on the CPU.

    Args:
        d: (N,) float divergences; those that are not finite are left out, and never labelled.
        label: (N,) int64.
        classes: Number of classes.
        high_divergence: See :class:`UniformSplit`.
        strictness: See :class:`UniformSplit`.

    Example:
        >>> d, label = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9, 0.9]), torch.tensor([0, 0, 0, 1, 1, 1])
        >>> uniform_selection(d, label, 2, high_divergence=0.7, strictness=5)  # four below the mean, so two a class
        tensor([ True,  True, False,  True,  True, False])
    """
    d, label = d.detach().double().cpu(), label.cpu()
    finite = d.isfinite()
    labelled = torch.zeros(len(d), dtype=torch.bool)
    if not finite.any():
        return labelled
    threshold = d[finite].mean()
    if threshold > high_divergence:
        threshold = threshold - (threshold - d[finite].min()) / strictness
    each = max(int((d[finite] < threshold).sum()) // classes, 1)
    order = torch.where(finite, d, torch.inf).argsort(stable=True)
    for c in range(classes):
        of_class = order[(label[order] == c) & finite[order]]
        labelled[of_class[:each]] = True
    return labelled
