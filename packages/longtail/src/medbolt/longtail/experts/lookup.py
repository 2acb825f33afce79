"""How methods reach a module's experts: its network, and what they said of a batch."""

from lightning.pytorch import LightningModule
from torch import Tensor

from medbolt.core import TrainingStep, UserError
from medbolt.longtail.experts.classifier import ExpertsClassifier
from medbolt.longtail.posthoc.split import find_network


def find_experts(module: LightningModule, path: str, owner: object, number: int | None = None) -> ExpertsClassifier:
    """Return the network of a module if it has experts, as many as asked for.

    Raises:
        UserError: if it has not.
    """
    network = find_network(module, path, owner)
    name, wanted = type(owner).__name__, number or 3
    if not isinstance(network, ExpertsClassifier):
        raise UserError(
            f"{name} needs a network of experts, but '{path}' of {type(module).__name__} is a "
            f"{type(network).__name__}; put AddExperts({wanted}) before {name} in the callbacks."
        )
    if number not in (None, len(network.weights)):
        raise UserError(
            f"{name} trains {number} experts, but '{path}' of {type(module).__name__} has {len(network.weights)}; make "
            f"it one of {number}, by AddExperts({number}) for instance."
        )
    return network


def expert_logits(step: TrainingStep) -> Tensor:
    """Return the experts' logits behind a step whose features are those of ``ExpertsClassifier.experts``, (E, B, C).

    Raises:
        UserError: if an objective further out put other logits in their place, or targets are not as many.
    """
    if not step.is_own:
        raise UserError(
            "methods with experts take the loss of each expert's own logits, but a callback further out, such as one "
            "with a second network, asks for the loss of others; put it before the method with experts in callbacks."
        )
    experts = step.features
    if experts.shape[1] != len(step.target):
        raise UserError(
            f"the experts were given {experts.shape[1]} images last, but the criterion of {type(step.module).__name__} "
            f"got {len(step.target)} targets; methods with experts need one call of the network for each of the "
            "criterion."
        )
    return experts
