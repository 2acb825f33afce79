"""From one test batch of any LightningModule to rows of the prediction table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from medbolt.core.batch import batch_target
from medbolt.core.errors import UserError, listed
from medbolt.core.objective.compiled import forget_traces

Columns = dict[str, NDArray[Any]]


class Outputs:
    """Remember what a network put out last, by a forward hook.

    Args:
        module: The module under test.
        network: Attribute of its network (dotted), or ``"self"``. A missing one is an error only when it is read.
    """

    def __init__(self, module: LightningModule, network: str) -> None:
        self._asked_for = f"{type(module).__name__}.{network}"
        self._children = [name for name, _ in module.named_children()]
        self._last: Any = None
        self._handle = None
        try:
            target = module if network == "self" else module.get_submodule(network)
        except AttributeError:
            return
        self._handle = target.register_forward_hook(self._remember)
        forget_traces(module)

    def logits(self) -> Tensor:
        """Return the last output, and forget it."""
        if self._handle is None:
            raise UserError(
                f"the step returns no 'probability' and there is no {self._asked_for} to take logits from; set network "
                f"to one of {listed([*self._children, 'self'])}."
            )
        output, self._last = self._last, None
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor):
            raise UserError(
                f"the step returns no 'probability' and {self._asked_for} gave {type(output).__name__}, no tensor of "
                "logits; return a dict with 'probability' and 'target' from the step, or set network."
            )
        return output

    def remove(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()

    def _remember(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._last = output


def batch_columns(step_output: Any, batch: Any, outputs: Outputs, labelled: bool, task: str | None = None) -> Columns:
    """Return what one batch adds to the table: ``p_k`` and, where there are any, target and the batch's names.

    Probabilities are ``step_output["probability"]``, (B, K) or (B,) for two classes, or else come from the logits of
    the network: a sigmoid for one logit and for multi-label targets (B, K), a softmax otherwise. Targets (B, K) are
    multi-label unless the module's ``task`` says otherwise: then they are soft, and their most probable class counts.

    Args:
        step_output: What ``test_step`` or ``predict_step`` returned.
        batch: A dict of the batch contract, where ``label`` or ``labels`` may stand for ``target``, or a tuple (inputs,
            target).
        outputs: The network's last output.
        labelled: Whether a target must be there.
        task: What the module says of itself: ``"multiclass"``, ``"multilabel"``, ...

    Returns:
        Columns of B entries.

    Raises:
        UserError: if there is no probability or no target, or their shapes are not those of a classification.
    """
    given = isinstance(step_output, Mapping) and "probability" in step_output
    target = _target(step_output, batch, task)
    if target is None and labelled:
        raise UserError(
            "the test batch has no target: yield (inputs, target) or a dict with 'target' or 'label', or return a dict "
            "with 'probability' and 'target' from test_step."
        )
    multilabel = target is not None and target.ndim == 2
    probability = step_output["probability"] if given else _activate(outputs.logits(), multilabel)
    columns = _per_class("p", _two_columns(_numpy(probability)))
    if target is not None:
        columns |= _per_class("target", target) if multilabel else {"target": target}
    if isinstance(batch, Mapping):
        columns |= {key: _numpy(batch[key]) for key in ("index", "domain") if key in batch}
        columns |= {key: np.array(batch[key], np.object_) for key in ("id", "group") if key in batch}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"the columns of a test batch differ in length: {sizes}; the network must keep the batch size.")
    return columns


def _target(step_output: Any, batch: Any, task: str | None) -> NDArray[Any] | None:
    given = isinstance(step_output, Mapping) and "target" in step_output
    target = step_output["target"] if given else batch_target(batch)
    if not isinstance(target, Tensor):
        return None
    values = _numpy(target)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim == 2 and task is not None:
        values = values > 0.5 if task == "multilabel" else values.argmax(axis=1)
    if values.ndim not in (1, 2) or not np.equal(np.mod(values, 1), 0).all():
        raise UserError(
            f"a prediction table needs whole-number targets (B,) or (B, K), got {target.dtype} {tuple(target.shape)}; "
            "soft labels and masks do not fit into it."
        )
    return values.astype(np.int64)


def _activate(logits: Tensor, multilabel: bool) -> Tensor:
    logits = logits.float()
    single = logits.ndim == 1 or logits.shape[-1] == 1
    return logits.sigmoid() if multilabel or single else logits.softmax(dim=-1)


def _two_columns(probability: NDArray[Any]) -> NDArray[Any]:
    if probability.ndim == 2 and probability.shape[1] == 1:
        probability = probability[:, 0]
    if probability.ndim == 1:
        return np.stack([1 - probability, probability], axis=1)
    if probability.ndim != 2:
        raise UserError(f"a prediction table needs probabilities (B, K) or (B,), got shape {probability.shape}.")
    return probability


def _per_class(name: str, values: NDArray[Any]) -> Columns:
    return {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}


def _numpy(values: Tensor | Sequence[int]) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return values.float().numpy() if values.is_floating_point() else values.numpy()
