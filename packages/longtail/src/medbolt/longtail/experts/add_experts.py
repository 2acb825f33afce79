"""Give the network of any LightningModule several experts."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from medbolt.core.errors import UserError
from medbolt.core.objective.averaging import refuse_earlier_averaging
from medbolt.longtail.experts.classifier import ExpertsClassifier
from medbolt.longtail.heads.replace_head import HeadCallable
from medbolt.longtail.posthoc.split import find_network


class AddExperts(Callback):
    """Put an :class:`~medbolt.longtail.ExpertsClassifier` in the place of a module's network.

    It is done in ``setup``, before the optimizers are made and before a checkpoint is loaded. So the same callback is
    needed for ``fit``, ``validate``, ``test`` and ``predict``, and it comes before those that look into the network,
    whose layers are then found at ``model.network``. The experts stay on the module afterwards, and where there are as
    many in place already, they are kept.

    Args:
        number: Number of experts: 3 for RIDE and SADE, 2 for BBN.
        parts: Dotted layers of the network of which each expert has its own, besides the head.
        head: Dotted name of the network's last layer.
        make_head: Makes each expert's head from the length of the features and the number of classes; copies of the
            network's head by default. In YAML a ``class_path`` with ``init_args``.
        redraw: Draw ``"all"`` parts of further experts anew, or only the ``"head"``, for pre-trained networks.
        network: Attribute of the network, dotted if nested.
        seed: Seed of the weights.

    Raises:
        ValueError: at ``setup``, if an argument is out of its range.
        UserError: at ``setup``, if there is no such network, part or head, if a layer cannot be drawn anew, or if the
            network has another number of experts already.

    State, cost: none of its own; see :class:`~medbolt.longtail.ExpertsClassifier`. Checkpoints of the module hold the
    experts and load into a module without them only by this callback.

    Example:
        >>> callback = AddExperts(3, parts=["features.layer3", "features.layer4"])
    """

    def __init__(
        self,
        number: int = 3,
        parts: Sequence[str] = ("features.layer4",),
        head: str = "head",
        make_head: HeadCallable | None = None,
        redraw: Literal["all", "head"] = "all",
        network: str = "model",
        seed: int = 0,
    ) -> None:
        self.number, self.parts, self.head = number, list(parts), head
        self.make_head, self.network, self.seed = make_head, network, seed
        self.redraw: Literal["all", "head"] = redraw

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the experts in place."""
        network = find_network(pl_module, self.network, self)
        if network is pl_module:
            raise UserError(
                "AddExperts cannot replace network='self', the module itself; name the attribute of the network that "
                "its forward calls, e.g. network='net'."
            )
        if isinstance(network, ExpertsClassifier):
            if len(network.weights) != self.number:
                raise UserError(
                    f"'{self.network}' of {type(pl_module).__name__} has {len(network.weights)} experts already, "
                    f"AddExperts is to add {self.number}; begin with a new network."
                )
            return
        if stage == "fit":
            refuse_earlier_averaging(self, trainer)
        experts = ExpertsClassifier(network, self.number, self.parts, self.head, self.make_head, self.redraw, self.seed)
        pl_module.set_submodule(self.network, experts)
