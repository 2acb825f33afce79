"""Who else changes what a network says in an evaluation: callbacks that what is tuned must come after."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Callback, LightningModule, Trainer

from medbolt.core.errors import UserError
from medbolt.longtail.experts.aggregation import ExpertAggregation
from medbolt.longtail.experts.lookup import find_experts
from medbolt.longtail.heads.evaluation_head import EvaluationHead
from medbolt.longtail.stages.parts import is_within


def changers(trainer: Trainer, owner: Callback, network: str) -> list[EvaluationHead | ExpertAggregation]:
    """Return the callbacks that give a network another head or its experts other weights, for evaluations alone.

    Args:
        trainer: The trainer.
        owner: Who tunes on what the network then says.
        network: Attribute of the network, ``"self"`` for the module.

    Raises:
        UserError: if one of them comes after the owner, who would tune on what the network said before.

    Example:
        >>> from medbolt.longtail import NearestClassMeanHead, TemperatureScaling
        >>> head, scaling = EvaluationHead(NearestClassMeanHead), TemperatureScaling()
        >>> trainer = Trainer(callbacks=[head, scaling], accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> changers(trainer, scaling, "model") == [head]
        True
    """
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    found = [
        callback
        for callback in callbacks
        if (isinstance(callback, EvaluationHead) and _meet(callback.path, network))
        or (isinstance(callback, ExpertAggregation) and _meet(callback.network, network))
    ]
    for callback in found:
        if callbacks.index(callback) > callbacks.index(owner):
            raise UserError(
                f"{type(owner).__name__} is tuned on what {type(callback).__name__} makes of '{network}'; put "
                f"{type(callback).__name__} before {type(owner).__name__} in the callbacks."
            )
    return found


@contextmanager
def aggregated(module: LightningModule, found: list[EvaluationHead | ExpertAggregation]) -> Iterator[None]:
    """Weigh experts in a block as for the evaluation's first data loader; afterwards they weigh what they did."""
    aggregations = [callback for callback in found if isinstance(callback, ExpertAggregation)]
    networks = [find_experts(module, callback.network, callback) for callback in aggregations]
    before = [network.weights.clone() for network in networks]
    try:
        for callback, network in zip(aggregations, networks, strict=True):
            network.weights.copy_(callback.weights[0])
        yield
    finally:
        for network, weights in zip(networks, before, strict=True):
            network.weights.copy_(weights)


def _meet(part: str, other: str) -> bool:
    part, other = ("" if name == "self" else name for name in (part, other))
    return is_within(part, other) or is_within(other, part)
