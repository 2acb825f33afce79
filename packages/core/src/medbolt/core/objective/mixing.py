"""The base of methods that train on mixtures of images: MixUp and its kin."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from medbolt.core.batch import batch_target
from medbolt.core.errors import UserError, listed
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep


@dataclass(frozen=True)
class Mix:
    """With which sample of the batch each one is mixed, and how much of it stays.

    Args:
        partner: (B,) int64 positions in the batch.
        image_weight: (B,) float in [0, 1], of the sample's own image; the rest is its partner's.
        target_weight: (B,) float in [0, 1], of the loss with the sample's own target.

    Example:
        >>> half = torch.full((2,), 0.5)
        >>> swapped = Mix(partner=torch.tensor([1, 0]), image_weight=half, target_weight=half)
    """

    partner: Tensor
    image_weight: Tensor
    target_weight: Tensor


class MixedInputs(ObjectiveCallback):
    r"""Give the network mixtures of the batch's images, and the loss the targets of both.

    .. math::
        \tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}, \qquad
        \lambda'_i\, \ell(f(\tilde x_i), y_i) + (1 - \lambda'_i)\, \ell(f(\tilde x_i), y_{\pi(i)})

    Two losses instead of one with a mixed target, so any criterion will do, and targets of any kind. Subclasses
    override :meth:`draw`, :meth:`combine` where images are not averaged, and :meth:`network_inputs` where the network
    is to get more than images. This class itself mixes nothing.

    - While a training batch runs, every call of the network by ``training_step`` is mixed: the same way for each call
      with as many images, so that a module which gives it two views of a batch, one after the other, gets both mixed
      alike. Calls under ``torch.no_grad()`` and calls by objectives are left alone.
    - It mixes before anything else sees the images: ``step.inputs``, and so a peer network, gets the mixtures,
      whatever the order of callbacks.
    - Objectives inward are asked twice, the second time for the partners' targets. One that remembers samples belongs
      further out.
    - Processes mix within their own batches, so two processes do not do what one does with the double batch.

    Args:
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.
        features: Dotted attribute of the layer of ``step.features``.

    Attributes:
        needs_target: Whether :meth:`draw` is to get the targets; a class attribute to override.

    Raises:
        UserError: at ``fit``, if there is no such network; in training, if it is given no images, or if the method
            needs to know the targets beforehand and the batch does not tell.

    State, cost: none; a copy of the images, and a second evaluation of the loss. Random numbers are torch's, which
    :class:`~medbolt.core.RandomState` seeds for each batch.

    Example:
        >>> class Halves(MixedInputs):
        ...     def draw(self, size, target, device):
        ...         half = torch.full((size,), 0.5, device=device)
        ...         return Mix(torch.randperm(size).to(device), half, half)
        >>> callback = Halves(network="net")
    """

    needs_target = False

    def __init__(self, criterion: str = "criterion", network: str = "model", features: str | None = None) -> None:
        super().__init__(criterion, network, features)
        self._hook: RemovableHandle | None = None
        self._batch: Any = None
        self._mixes: dict[int, Mix] | None = None  # of this batch, by number of images; None between batches

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return how to mix a batch.

        Args:
            size: Number of images.
            target: The batch's targets if :attr:`needs_target`, else ``None``.
            device: Where the images are.
        """
        ones = torch.ones(size, device=device)
        return Mix(torch.arange(size, device=device), ones, ones)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the mixtures of images, (B, ...)."""
        weight = mix.image_weight.to(images).view(-1, *[1] * (images.ndim - 1))
        return weight * images + (1 - weight) * images[mix.partner]

    def network_inputs(self, images: Tensor, mix: Mix, *others: Any) -> tuple[Any, ...]:
        """Return what the network is called with for images and its other positional arguments."""
        return (self.combine(images, mix), *others)

    def mix_of(self, step: TrainingStep) -> Mix:
        """Return how the images behind a step were mixed."""
        mix = (self._mixes or {}).get(len(step.target))
        if mix is None:
            raise UserError(
                f"{type(self).__name__} mixed no {len(step.target)} images for the {len(step.target)} targets of this "
                f"batch, as '{self.network}' of {type(step.module).__name__} was not given them as its first "
                "positional argument; name the network that training_step calls, e.g. network='net'."
            )
        return mix

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the targets of both images, weighted."""
        mix = self.mix_of(step)
        weight = mix.target_weight
        return weight * step.loss() + (1 - weight) * step.loss(target=step.target[mix.partner])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion and the network's input."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        try:
            network = pl_module if self.network == "self" else pl_module.get_submodule(self.network)
        except AttributeError:
            raise UserError(
                f"{type(pl_module).__name__} has no network '{self.network}' whose input {type(self).__name__} could "
                f"mix; it has {listed(name for name, _ in pl_module.named_children()) or 'none'}: name one, e.g. "
                "network='net'."
            ) from None
        # before all other hooks on the network: they see the mixtures
        self._hook = network.register_forward_pre_hook(self._mixed, prepend=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._batch, self._mixes = batch, {}

    def _mixed(self, network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # an objective's own calls are made while the stack does not run; a pass between epochs is without gradients
        is_training = self._stack is not None and self._stack.running and torch.is_grad_enabled()
        if self._mixes is None or not is_training or not inputs or not isinstance(inputs[0], Tensor):
            return None
        images, *others = inputs
        if not images.is_floating_point():
            raise UserError(
                f"{type(self).__name__} mixes images, but '{self.network}' was given {images.dtype}; convert them to "
                "float before the network."
            )
        if len(images) not in self._mixes:
            self._mixes[len(images)] = self.draw(len(images), self._target(len(images)), images.device)
        return self.network_inputs(images, self._mixes[len(images)], *others)

    def _target(self, size: int) -> Tensor | None:
        if not self.needs_target:
            return None
        target = batch_target(self._batch)
        if target is None or len(target) != size:
            raise UserError(
                f"{type(self).__name__} needs the targets of the {size} images it mixes, but the batch does not tell "
                "them; yield dict batches with a 'target' key, or tuples whose second entry is the target."
            )
        return target

    def _stop(self) -> None:
        super()._stop()
        self._batch = self._mixes = None

    def _release(self) -> None:
        super()._release()
        self._batch = self._mixes = None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
