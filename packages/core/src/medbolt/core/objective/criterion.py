"""Any criterion, sample by sample: modules and functions, with and without a ``reduction``."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.errors import UserError

_LOG_PROBABILITY = (nn.NLLLoss, F.nll_loss)
_PROBABILITY = (nn.BCELoss, F.binary_cross_entropy)
_CLASS_WEIGHTED = (nn.CrossEntropyLoss, F.cross_entropy, *_LOG_PROBABILITY)
_MEANS = ("torch.nn.", "medbolt.")  # modules whose "mean" is known: over all values, or as _weight_of says


def _is(source: object, kinds: tuple[Any, ...]) -> bool:
    return source in kinds or isinstance(source, tuple(kind for kind in kinds if isinstance(kind, type)))


@dataclass(frozen=True)
class Criterion:
    """A criterion as the user wrote it, callable per sample.

    Of criteria that are neither torch's nor medbolt's it is not known what their mean divides by, the samples or the
    weights of their classes: these are evaluated once more, for their own value.

    Args:
        source: The module or function; its ``reduction`` is found on it.
        call: What to call in its place (the forward that was there before it was intercepted).
        options: Keyword arguments of this call besides input and target (functional calls).
    """

    source: nn.Module | Callable[..., Tensor]
    call: Callable[..., Tensor]
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Look into a ``functools.partial``: what it binds are options like those of the call."""
        source, options = self.source, dict(self.options)
        while isinstance(source, partial) and not source.args:
            source, options = source.func, {**source.keywords, **options}
        if source is not self.source:
            vars(self).update(source=source, options=options)

    @property
    def reduction(self) -> str:
        """``"mean"``, ``"sum"`` or ``"none"``, as configured; ``"mean"`` where the criterion does not say."""
        return str(self.options.get("reduction", getattr(self.source, "reduction", "mean")))

    def to_logits(self, prediction: Tensor) -> Tensor:
        """Convert what the criterion takes to logits."""
        return torch.logit(prediction, eps=1e-7) if _is(self.source, _PROBABILITY) else prediction

    def from_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to what the criterion takes; log-probabilities are unchanged by ``log_softmax``."""
        if _is(self.source, _PROBABILITY):
            return logits.sigmoid()
        return logits.log_softmax(1) if _is(self.source, _LOG_PROBABILITY) else logits

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (B,) losses that reduce to the criterion's own value: for ``"mean"``, its mean over the batch."""
        prediction = self.from_logits(logits)
        own = None if self._is_known else self._own_value(prediction, target)
        losses = self._unreduced(prediction, target)
        if losses.shape[:1] != prediction.shape[:1]:
            losses = self._one_by_one(prediction, target)
        if self.reduction == "none":
            if losses.ndim == 1:
                return losses
            raise UserError(
                f"criterion {self._name} returns {tuple(losses.shape)} values unreduced; objectives give one value a "
                "sample, so set its reduction to 'mean' or 'sum'."
            )
        losses = losses.reshape(len(losses), -1)
        if self.reduction in ("sum", "batchmean"):
            return losses.sum(1)
        if own is not None:
            return losses.mean(1) * self._divisor(losses, own)
        weight = self._weight_of(target)
        return losses.mean(1) if weight is None else losses.sum(1) * (len(losses) / weight)

    def reduce(self, losses: Tensor) -> Tensor:
        """Reduce per-sample losses as the criterion is configured to."""
        if self.reduction == "sum":
            return losses.sum()
        return losses if self.reduction == "none" else losses.mean()

    @property
    def _name(self) -> str:
        return getattr(self.source, "__name__", type(self.source).__name__)

    @property
    def _takes_reduction(self) -> bool:
        try:
            return "reduction" in inspect.signature(self.call).parameters
        except (TypeError, ValueError):
            return False

    def _unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        if isinstance(self.source, nn.Module) and isinstance(getattr(self.source, "reduction", None), str):
            with _without_reduction(self.source):
                return self.call(prediction, target, **self.options)
        unreduced = {"reduction": "none"} if self._takes_reduction else {}
        return self.call(prediction, target, **{**self.options, **unreduced})

    def _one_by_one(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Evaluate a criterion that only knows batches on batches of one."""
        pairs = zip(prediction.split(1), target.split(1), strict=True)
        losses = torch.stack([self.call(p, t, **self.options).reshape(()) for p, t in pairs])
        whole = self.call(prediction, target, **self.options)
        if not torch.allclose(losses.detach().mean().float(), whole.detach().float(), rtol=1e-2, atol=1e-4):
            raise UserError(
                f"criterion {self._name} is not the mean of its values on single samples, so it has no per-sample "
                "losses; give it a 'reduction' attribute that supports 'none'."
            )
        return losses

    @property
    def _is_known(self) -> bool:
        kind = self.source if inspect.isroutine(self.source) else type(self.source)
        return str(kind.__module__).startswith(_MEANS)

    def _own_value(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the criterion's own value, with the random numbers that its unreduced call is about to draw."""
        devices = [prediction.device] if prediction.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            return self.call(prediction, target, **self.options).mean()

    def _divisor(self, losses: Tensor, own: Tensor) -> Tensor:
        """Return by how much a criterion's own mean exceeds that of its values: it may divide by weights, as torch."""
        mean = losses.detach().mean()
        return torch.where(mean == 0, 1.0, own / mean).nan_to_num(1.0, 1.0, 1.0)

    def _weight_of(self, target: Tensor) -> Tensor | None:
        """Return what torch divides by when classes are weighted or targets ignored; ``None`` when it is the count."""
        if target.is_floating_point() or not _is(self.source, _CLASS_WEIGHTED):
            return None
        weight = self.options.get("weight", getattr(self.source, "weight", None))
        ignored = self.options.get("ignore_index", getattr(self.source, "ignore_index", -100))
        kept = target != ignored
        if weight is None:
            return kept.sum()
        return (weight[target.where(kept, 0)] * kept).sum()


@contextmanager
def _without_reduction(criterion: nn.Module) -> Iterator[None]:
    configured = criterion.reduction
    vars(criterion)["reduction"] = "none"
    try:
        yield
    finally:
        vars(criterion)["reduction"] = configured
