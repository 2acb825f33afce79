"""Another head for a test: on a network that is trained already, fitted to its features, and taken off again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from medbolt.longtail.heads.replace_head import HeadCallable, find_layer, make_head
from medbolt.longtail.posthoc.split import Collected, collect, find_network


class EvaluationHead(Callback):
    """Evaluate any LightningModule with another head than it was trained with, in ``validate``, ``test``, ``predict``.

    The head takes the layer's place after the checkpoint was loaded and gives it back afterwards. If it has a method
    ``fit``, that gets the features and classes of the split that its attribute ``fit_split`` names: the training
    samples, without augmentation, for :class:`~medbolt.longtail.NearestClassMeanHead`, the validation samples for
    :class:`~medbolt.longtail.TauNormalizedHead` with ``tau=None``. ``fit`` trains and validates with the old head.

    Args:
        head: Makes the head from the length of the features and the number of classes: a head class of this package,
            with its options left to give. In YAML a ``class_path`` with ``init_args``.
        path: Dotted attribute of the layer to replace.
        network: Attribute of the network that gives the layer its features; ``"self"`` for the module itself. To fit a
            head it is called by itself and must take the batch's image as it is: put normalisation into the transform
            or the network.

    Raises:
        UserError: if there is no such layer or network, the data module has not the split to fit on, or the head lies
            over a trained linear layer and the replaced one is none.

    State, cost: none in checkpoints; a pass over the split at the start of each evaluation, and its features.

    Source: Kang et al., arXiv 1910.09217, who evaluate one network with several classifiers.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from medbolt.longtail import NearestClassMeanHead
        >>> head = EvaluationHead(NearestClassMeanHead)
        >>> trainer = Trainer(callbacks=[head], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(self, head: HeadCallable, path: str = "model.head", network: str = "model") -> None:
        self.head, self.path, self.network = head, path, network
        self._replaced: tuple[LightningModule, nn.Module] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the layer and the network are there."""
        find_layer(pl_module, self.path)
        find_network(pl_module, self.network, self)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the head on, unless inside ``fit``."""
        if trainer.state.fn != "fit":
            self._put_on(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the head on."""
        self._put_on(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the head on."""
        self._put_on(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the old one back."""
        self._take_off()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the old one back."""
        self._take_off()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the old one back."""
        self._take_off()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the old one back."""
        self._take_off()

    def _put_on(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layer = find_layer(pl_module, self.path)
        head = make_head(layer, self.head).eval()
        split: Any = getattr(head, "fit_split", None)
        if split is not None:
            collected, network = Collected(self), find_network(pl_module, self.network, self)

            @contextmanager
            def watching() -> Iterator[None]:
                handle = layer.register_forward_pre_hook(lambda layer, inputs: collected.add(inputs[0]))
                try:
                    yield
                finally:
                    handle.remove()

            features, target = collect(trainer, pl_module, network, split, collected, watching)
            head.fit(features.to(pl_module.device), target.to(pl_module.device))  # pyright: ignore[reportCallIssue]
        pl_module.set_submodule(self.path, head)
        self._replaced = (pl_module, layer)

    def _take_off(self) -> None:
        if self._replaced is not None:
            module, layer = self._replaced
            module.set_submodule(self.path, layer)
            self._replaced = None
