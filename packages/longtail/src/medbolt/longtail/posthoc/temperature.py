"""Temperature scaling: make a trained network's probabilities mean what they say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.longtail.losses.inputs import precise
from medbolt.longtail.posthoc.base import PosthocCallback

_RANGE = (1e-2, 1e2)  # of the temperature: where every sample is right, the best one is 0
_RIDGE = 1e-6  # on the biases: where they separate all samples, any large ones would do


@dataclass(frozen=True)
class Calibration:
    """A temperature and, if one was fitted, a bias a class.

    Args:
        temperature: What the logits are divided by.
        bias: (C,) what is added then.

    Example:
        >>> Calibration(2.0)(torch.tensor([[4.0, 0.0]]))
        tensor([[2., 0.]])
    """

    temperature: float
    bias: Sequence[float] | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return calibrated logits, (B, C) in float32 at least."""
        scaled = precise(logits) / self.temperature
        return scaled if self.bias is None else scaled + torch.as_tensor(self.bias).to(scaled)


class TemperatureScaling(PosthocCallback):
    r"""Divide a trained network's logits by a temperature, found on the validation split.

    .. math:: z'_c = z_c / T + b_c, \qquad (T, b) = \arg\min \sum_i w_{y_i}\, \mathrm{CE}(z'_i, y_i)

    It works in ``validate``, ``test`` and ``predict`` on any LightningModule. Without bias no prediction changes.
    Inside ``fit`` the module sees the network's own logits; after each validation ``val/posthoc_temperature`` and
    ``val/posthoc_nll`` are logged. A checkpoint keeps what was found; for weights without, it is found at the start
    of the evaluation, where the network must take the batch's image as it is: put normalisation into the transform or
    the network. Behind :class:`~medbolt.longtail.PosthocLogitAdjustment` it calibrates the adjusted logits. Put
    EvaluationHead and ExpertAggregation before it in the callbacks; with them each evaluation finds T.

    Args:
        bias: Fit a bias a class as well. It may change predictions, and adapts to the class frequencies of the
            validation split.
        balanced: Weigh each class of the validation split equally, for tests with classes of equal size.
        network: Attribute of the module (dotted) whose output are the logits, (B, C), or (B,) or (B, 1) of two classes;
            ``"self"`` for the module itself.

    Raises:
        UserError: if there is no such network, nothing to fit on, or a callback that changes the network comes after
            this one.

    State, cost: T and b, in checkpoints. Fitting keeps the logits of the validation split.

    Source: Guo et al., arXiv 1706.04599 (temperature, and vector scaling with one slope for all classes); ``balanced``
    is ours.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> scaling = TemperatureScaling(bias=True)
        >>> trainer = Trainer(callbacks=[scaling], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(self, bias: bool = False, balanced: bool = False, network: str = "model") -> None:
        super().__init__(network)
        self.bias, self.balanced = bias, balanced
        self.calibration: Calibration | None = None

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return calibrated logits."""
        calibration = self.calibration
        if calibration is None:
            raise UserError("TemperatureScaling has no temperature yet; validate first.")
        if calibration.bias is not None and len(calibration.bias) != logits.shape[1]:
            raise UserError(
                f"TemperatureScaling was fitted to {len(calibration.bias)} classes, but '{self.network}' gives "
                f"{logits.shape[1]} logits; use a checkpoint of these classes."
            )
        return calibration(logits)

    def tune(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Find temperature and bias."""
        self.calibration = fit_temperature(logits, target, self.bias, self.balanced)
        nll = F.cross_entropy(self.calibration(logits), target)
        return {"temperature": self.calibration.temperature, "nll": float(nll)}

    def state_dict(self) -> dict[str, Any]:
        """Return temperature and bias."""
        found = self.calibration
        values = {} if found is None else {"temperature": found.temperature, "bias": found.bias}
        return {**super().state_dict(), **values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state_dict)
        if "temperature" in state_dict:
            self.calibration = Calibration(state_dict["temperature"], state_dict["bias"])


def fit_temperature(logits: Tensor, target: Tensor, bias: bool = False, balanced: bool = False) -> Calibration:
    r"""Find the temperature, and optionally the biases, with the lowest cross entropy.

    The problem is convex in :math:`(1/T, b)` and solved by L-BFGS in float64. T is kept within 0.01 and 100. Biases
    have mean 0 and a penalty of :math:`10^{-6} \lVert b \rVert^2`, so that there is one best; classes without samples
    take no part and have bias 0.

    Args:
        logits: (N, C) float of samples that were not trained on.
        target: (N,) int64 classes.
        bias: Fit biases too.
        balanced: Weigh each class equally, not each sample.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0]]).expand(4, 2)
        >>> found = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))  # right three times of four
        >>> round(found.temperature, 4), found(logits[:1]).softmax(1)
        (2.7307, tensor([[0.7500, 0.2500]]))
    """
    logits, target = logits.detach().double(), target.to(logits.device)
    count = torch.bincount(target, minlength=logits.shape[1])
    present = count > 0
    classes, own = logits[:, present], (present.cumsum(0) - 1)[target]
    weight = (1 / count[target] if balanced else torch.ones_like(classes[:, 0])).to(classes)
    weight = weight / weight.sum()
    slope = torch.ones((), dtype=torch.float64, device=logits.device, requires_grad=True)
    offset = torch.zeros(classes.shape[1], dtype=torch.float64, device=logits.device, requires_grad=bias)

    def loss() -> Tensor:
        nll = weight @ F.cross_entropy(slope * classes + offset - offset.mean(), own, reduction="none")
        return nll + _RIDGE * offset.square().sum()

    _minimize(loss, [slope, offset] if bias else [slope])
    bounded = slope.detach().clamp(1 / _RANGE[1], 1 / _RANGE[0])
    if bias and bounded != slope:  # the best biases at the end of the range
        slope = bounded
        offset = torch.zeros_like(offset, requires_grad=True)
        _minimize(loss, [offset])
    temperature = 1 / float(bounded)
    if not bias:
        return Calibration(temperature)
    found = torch.zeros_like(logits[0]).masked_scatter(present, (offset - offset.mean()).detach())
    return Calibration(temperature, found.tolist())


def _minimize(loss: Callable[[], Tensor], free: list[Tensor]) -> None:
    """Bring a convex function to its minimum, in place."""
    solver = torch.optim.LBFGS(
        free, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)  # pyright: ignore[reportArgumentType]
