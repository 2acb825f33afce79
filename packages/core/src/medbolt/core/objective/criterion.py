"""Any criterion, sample by sample: modules and functions, with and without a ``reduction``."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
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


@dataclass(frozen=True, eq=False)
class Criterion:
    """One call of a criterion as the user wrote it, made per sample.

    Of criteria that are neither torch's nor medbolt's it is not known whether they reduce, nor what their mean divides
    by, the samples or the weights of their classes: these are evaluated more often, for their own value.

    Args:
        source: The module or function; its ``reduction`` is found on it.
        call: What to call in its place (the forward that was there before it was intercepted).
        options: Keyword arguments of this call besides input and target (functional calls).
        prediction: What this call was given.
        target: What this call was given with it.
    """

    source: nn.Module | Callable[..., Tensor]
    call: Callable[..., Tensor]
    options: Mapping[str, Any]
    prediction: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        """Look into ``torch.compile`` and ``functools.partial``: what a partial binds are options as of the call."""
        source, options = _uncompiled(self.source), dict(self.options)
        while isinstance(source, partial) and not source.args:
            source, options = _uncompiled(source.func), {**source.keywords, **options}
        if source is not self.source:
            vars(self).update(source=source, options=options)

    @cached_property
    def reduction(self) -> str:
        """``"mean"``, ``"sum"`` or ``"none"``, as configured.

        A criterion that does not say, or is not torch's or medbolt's, has ``"none"`` if its own value holds one for
        each sample; ``"mean"`` is what remains.
        """
        declared = self._declared
        if declared == "none" or (declared and self._is_known):
            return declared
        own = self._own
        return "none" if own.ndim and len(own) == len(self.prediction) else declared or "mean"

    @cached_property
    def logits(self) -> Tensor:
        """The prediction as logits, of its dtype.

        Probabilities are kept as far from 0 and 1 as float32 allows, whatever their dtype: their logits are finite.
        """
        if not _is(self.source, _PROBABILITY):
            return self.prediction
        p = self.prediction.to(torch.promote_types(self.prediction.dtype, torch.float32))
        limits = torch.finfo(p.dtype)
        p = p.clamp(limits.tiny, 1 - limits.eps / 2)
        return (p.log() - (-p).log1p()).to(self.prediction.dtype)

    def from_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to what the criterion takes; log-probabilities are unchanged by ``log_softmax``."""
        if _is(self.source, _PROBABILITY):
            return logits.sigmoid()
        return logits.log_softmax(1) if _is(self.source, _LOG_PROBABILITY) else logits

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (B,) losses that reduce to the criterion's own value: for ``"mean"``, its mean over the batch.

        The :attr:`logits` themselves stand for the prediction, which reaches the criterion unconverted.
        """
        prediction = self.prediction if logits is self.logits else self.from_logits(logits)
        own = None
        if not self._is_known and self.reduction == "mean":
            is_asked_for = prediction is self.prediction and target is self.target
            own = (self._own if is_asked_for else self._own_value(prediction, target)).mean()
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
            return _with_mean(losses.mean(1), own)
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
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        # of a module the class: the forward of the instance may be shadowed or compiled, and both take anything
        try:
            call = type(self.source).forward if isinstance(self.source, nn.Module) else self.source
            return inspect.signature(call).parameters
        except (AttributeError, TypeError, ValueError):  # of scripted modules and of builtins there is none
            return {}

    @property
    def _declared(self) -> str | None:
        """The reduction of the call, else of the module, else of the signature; ``None`` where none of them says."""
        parameter = self._parameters.get("reduction")
        default = getattr(self.source, "reduction", parameter.default if parameter else None)
        declared = self.options.get("reduction", default)
        return declared if isinstance(declared, str) else None

    def _unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        if isinstance(self.source, nn.Module) and isinstance(getattr(self.source, "reduction", None), str):
            with _without_reduction(self.source):
                return self.call(prediction, target, **self.options)
        unreduced = {"reduction": "none"} if "reduction" in self._parameters else {}
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

    @cached_property
    def _own(self) -> Tensor:
        """What the criterion says of this call, evaluated once for its shape and its value."""
        return self._own_value(self.prediction, self.target)

    def _own_value(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the criterion's own value, with the random numbers that its unreduced call is about to draw."""
        devices = [prediction.device] if prediction.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            return self.call(prediction, target, **self.options)

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


def _uncompiled(source: Any) -> Any:
    if isinstance(source, nn.Module):
        return getattr(source, "_orig_mod", source)
    return inspect.unwrap(source) if hasattr(source, "_torchdynamo_orig_callable") else source


def _with_mean(losses: Tensor, own: Tensor) -> Tensor:
    """Scale losses so that their mean is ``own``, gradient included: it may divide by weights, or add a penalty."""
    exact = losses.to(torch.promote_types(losses.dtype, torch.float32))
    mean = exact.mean()
    vanishes = mean.abs() < torch.finfo(mean.dtype).tiny  # nothing to scale: then what is missing is added
    scaled = exact * (own / mean.where(~vanishes, 1.0))
    return torch.where(vanishes, exact + (own - mean), scaled).to(losses.dtype)


@contextmanager
def _without_reduction(criterion: nn.Module) -> Iterator[None]:
    configured = criterion.reduction
    vars(criterion)["reduction"] = "none"
    try:
        yield
    finally:
        vars(criterion)["reduction"] = configured
