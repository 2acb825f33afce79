"""The objectives on one criterion of one module, and the one place where that criterion is intercepted."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from operator import attrgetter
from typing import Any, Protocol

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medbolt.core.errors import UserError, listed
from medbolt.core.objective.criterion import Criterion
from medbolt.core.objective.step import Capture, TrainingStep

FUNCTIONAL = "functional"
_FUNCTIONS = (F.cross_entropy, F.nll_loss, F.binary_cross_entropy_with_logits, F.binary_cross_entropy)


class Objective(Protocol):
    """What the stack needs of an objective callback."""

    capture: Capture

    def objective(self, step: TrainingStep) -> Tensor:
        """Return per-sample losses."""
        ...


class ObjectiveStack:
    """Intercept a module's criterion while a training batch runs; outside of one the criterion is itself.

    A criterion that is an ``nn.Module`` keeps its place in the module (its parameters keep their names in checkpoints):
    only its ``forward`` is shadowed. Any other callable is shadowed on the object that holds it. ``"functional"``
    intercepts torch's loss functions instead.

    Args:
        module: The module in training.
        path: Attribute of the criterion, dotted if nested, or ``"functional"``.
    """

    def __init__(self, module: LightningModule, path: str) -> None:
        self.module, self.path = module, path
        self.objectives: list[Objective] = []
        self.running = False
        self._has_run = self._was_called = False
        self.batch: Any = None
        self.index: Tensor | None = None
        self._restore = ExitStack()
        self._around_batch = ExitStack()
        if path != FUNCTIONAL:
            self._shadow(*self._find(path))

    def start(self, batch: Any, index: Tensor | None) -> None:
        """Begin to intercept: a training batch runs."""
        self.stop()
        self.running, self.batch, self.index = True, batch, index
        self._has_run = True
        if self.path == FUNCTIONAL:
            self._around_batch.enter_context(_LossFunctions(self))

    def stop(self) -> None:
        """Leave the criterion alone until the next training batch."""
        self.running, self.batch, self.index = False, None, None
        self._around_batch.close()

    def require_use(self) -> None:
        """Refuse to go on when batches ran without a call of the criterion: no objective had a part in their loss."""
        if self._has_run and not self._was_called:
            what = f"its criterion '{self.path}'"
            if self.path == FUNCTIONAL:
                what = f"torch's {listed(function.__name__ for function in _FUNCTIONS)}"
            raise UserError(
                f"training_step of {type(self.module).__name__} never called {what}, so objectives had no part in the "
                "loss; name the attribute that it does call, criterion='loss_fn' for instance."
            )

    def remove(self) -> None:
        """Give the module its criterion back."""
        self.stop()
        self._restore.close()

    def evaluate(self, criterion: Criterion) -> Tensor:
        """Run the objectives, the last one outermost, and reduce once."""
        self._was_called = True
        prediction, target = criterion.prediction, criterion.target
        if not (isinstance(prediction, Tensor) and isinstance(target, Tensor)):
            raise UserError(
                f"criterion '{self.path}' of {type(self.module).__name__} was called with "
                f"{type(prediction).__name__} and {type(target).__name__}; objectives need tensors, logits and target."
            )

        def innermost(step: TrainingStep) -> Tensor:
            return criterion.per_sample(step.logits, step.target)

        inward: Callable[[TrainingStep], Tensor] = innermost
        for objective in self.objectives:
            inward = _outward(objective, inward)
        self.running = False  # an objective's own use of the criterion is not an objective
        try:
            step = TrainingStep(criterion.logits, target, self.batch, self.module, innermost, Capture(""), self.index)
            return criterion.reduce(inward(step))
        finally:
            self.running = True

    def _find(self, path: str) -> tuple[Any, str, Any]:
        parent_path, _, name = path.rpartition(".")
        try:
            parent = attrgetter(parent_path)(self.module) if parent_path else self.module
            return parent, name, getattr(parent, name)
        except AttributeError:
            raise UserError(_missing(self.module, path)) from None

    def _shadow(self, parent: Any, name: str, criterion: Any) -> None:
        source: Any = criterion
        call: Callable[..., Any]
        if isinstance(criterion, nn.Module):
            parent, name = criterion, "forward"
            call = criterion.forward
        elif callable(criterion):
            call = criterion
        else:
            raise UserError(f"'{self.path}' of {type(self.module).__name__} is no criterion: it is not callable.")

        def intercepted(*args: Any, **kwargs: Any) -> Tensor:
            if not self.running:
                return call(*args, **kwargs)
            prediction, target, options = _split(self.path, call, args, kwargs)
            return self.evaluate(Criterion(source, call, options, prediction, target))

        shadowed = vars(parent).get(name)
        try:
            setattr(parent, name, intercepted)
        except AttributeError:
            raise UserError(
                f"criterion '{self.path}' of {type(self.module).__name__} is a property that cannot be set, so "
                "objectives cannot take its place; keep the criterion in a plain attribute and name that, "
                "criterion='loss_fn' for instance."
            ) from None
        self._restore.callback(lambda: delattr(parent, name) if shadowed is None else setattr(parent, name, shadowed))


class _LossFunctions(TorchFunctionMode):
    """Intercept torch's classification losses wherever they are called."""

    def __init__(self, stack: ObjectiveStack) -> None:
        super().__init__()
        self.stack = stack

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _FUNCTIONS or not self.stack.running:
            return func(*args, **(kwargs or {}))
        prediction, target, options = _split(func.__name__, func, args, kwargs or {})
        return self.stack.evaluate(Criterion(func, func, options, prediction, target))


def _outward(objective: Objective, inward: Callable[[TrainingStep], Tensor]) -> Callable[[TrainingStep], Tensor]:
    def evaluate(step: TrainingStep) -> Tensor:
        losses = objective.objective(replace(step, _inward=inward, _capture=objective.capture))
        if losses.shape != step.logits.shape[:1]:
            raise UserError(
                f"{type(objective).__name__}.objective returned shape {tuple(losses.shape)} for a batch of "
                f"{len(step.logits)}; return one loss a sample and leave the reduction to the criterion."
            )
        return losses

    return evaluate


def _split(
    criterion: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return prediction, target and the other arguments by name."""
    if len(args) == 2 and not kwargs:
        return args[0], args[1], {}
    bound = inspect.signature(call).bind(*args, **kwargs)
    named = {name: value for name, value in bound.arguments.items() if name not in ("args", "kwargs")}
    if len(named) < 2:
        raise UserError(
            f"criterion '{criterion}' was called without a target; objectives need a criterion that is given "
            "prediction and target."
        )
    (_, prediction), (_, target), *options = named.items()
    return prediction, target, dict(options) | bound.arguments.get("kwargs", {})


def _missing(module: LightningModule, path: str) -> str:
    named = [n for n, m in module.named_modules() if "loss" in type(m).__name__.lower() and "." not in n]
    named += [n for n, v in vars(module).items() if callable(v) and ("loss" in n.lower() or "criterion" in n.lower())]
    found = f"it has {listed(dict.fromkeys(named))}" if named else "nothing in it looks like one"
    example = named[0] if named else "loss_fn"
    return (
        f"{type(module).__name__} has no criterion '{path}'; {found}: pass criterion='{example}', or "
        "criterion='functional' if its training_step calls torch.nn.functional.cross_entropy itself."
    )
