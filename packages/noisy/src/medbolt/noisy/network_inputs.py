"""What a module gave its network, for methods that call a network again."""

from typing import Any

from medbolt.core.errors import UserError
from medbolt.core.objective.step import TrainingStep


def network_inputs(step: TrainingStep, asker: str) -> tuple[Any, ...]:
    """Return the positional arguments of the network's last call, one at least: the images.

    Args:
        step: The training step.
        asker: Who needs them, for the message.

    Raises:
        UserError: if the network was not called, or with keywords only.
    """
    if not step.inputs:
        raise UserError(
            f"training_step of {type(step.module).__name__} gives its network no positional argument, so {asker} "
            "cannot be given the same images; call the network with the images first and without a keyword, "
            "self.model(images) for instance."
        )
    return step.inputs
