"""Start training from weights that were learned elsewhere, without labels for instance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from medbolt.core.errors import UserError, listed
from medbolt.longtail.stages.beginning import Beginning
from medbolt.longtail.stages.first_stage import load_matching, read_weights
from medbolt.longtail.stages.parts import find_part


class InitializeFrom(Callback):
    """Load the weights of a part of the network before training, all of them or with an error.

    It joins self-supervised pre-training to a classifier. What pre-trains is somebody else's business, such as
    ``lightly``'s (MoCo v2, BYOL, SimCLR, DINO and others); what the two share is a network. Pre-train the very layer
    that is to be initialised, here the features of a :class:`~medbolt.core.TimmClassifier`, which are
    ``timm.create_model("resnet18", num_classes=0)``, as an attribute of the module that pre-trains, say ``backbone``;
    then the weights are in its checkpoint under that name, ``prefix="backbone."``.

    So it is with published weights whose names are timm's. The encoder of a masked autoencoder of a vision transformer,
    such as RETFound's (retina; gated, for non-commercial use), has those of ``vit_large_patch16_224``; ``skip`` then
    names the decoder that comes with it.

    All of it trains on. For a linear probe, MONICA's ``ERM_from_SSL``, add
    ``TwoStageTraining(trainable=["head"])`` and class-balanced sampling.

    Args:
        checkpoint: Checkpoint of Lightning, or a file of weights, plain or under ``state_dict``, ``model`` or
            ``teacher``; read as tensors only, so that it cannot run code.
        prefix: What the names of the wanted weights begin with in the file; all others are left. ``""`` takes every
            weight of it.
        part: Dotted attribute of the module, what is initialised.
        skip: Names within it, or parts, that are left as they are, whatever the file says of them.

    Raises:
        UserError: at ``fit``, if the file cannot be read, has no weights of this prefix (the message lists those it
            has), or has not exactly the weights of the part: one is missing, in excess, or of another shape.

    State, cost: none; a resumed run takes the weights of its own checkpoint and needs no file, and a second ``fit`` of
    the same trainer and module goes on with those it has.

    Source: rows 34 and 36 of MONICA, arXiv 2410.02010, whose code loads a whole pickled model. Where the network was
    cut out by ``nn.Sequential(*list(network.children())[:-1])``, as many examples do, its weights are numbered instead
    of named; such a checkpoint is refused, not half loaded.

    Example:
        >>> callback = InitializeFrom("moco.ckpt", prefix="backbone.", part="model.features")
    """

    def __init__(
        self, checkpoint: Path | str, prefix: str = "", part: str = "model.features", skip: Sequence[str] = ()
    ) -> None:
        self.checkpoint, self.prefix, self.part, self.skip = Path(checkpoint), prefix, part, list(skip)
        self._beginning = Beginning()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights, on every process."""
        if stage == "fit":
            network = find_part(pl_module, self.part, "part")
            if not isinstance(network, nn.Module):
                raise UserError(f"part='{self.part}' is a single parameter; name the layer that it belongs to.")
            self._beginning.load(trainer, pl_module, lambda: self._load(network))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember that the weights come from a run that goes on."""
        self._beginning.see(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complain if they could not be loaded."""
        self._beginning.is_one()

    def _load(self, network: nn.Module) -> None:
        weights = read_weights(self.checkpoint)
        wanted = {n.removeprefix(self.prefix): value for n, value in weights.items() if n.startswith(self.prefix)}
        if not wanted:
            there = dict.fromkeys(f"{name.partition('.')[0]}." for name in weights)
            raise UserError(
                f"no weight in {self.checkpoint} has a name that begins with '{self.prefix}'; give prefix one of "
                f"{listed(there)}, or a longer one."
            )
        remedy = "pre-train the same network, and give its name there as prefix and in skip what is another"
        load_matching(network, wanted, self.checkpoint, self.skip, remedy=remedy)
