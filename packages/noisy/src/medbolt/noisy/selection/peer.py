"""The second network of methods that train two: a copy of the first with weights of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from operator import attrgetter
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed
from medbolt.core.objective.step import TrainingStep
from medbolt.core.randomness import derive_seed, seeded
from medbolt.noisy.network_inputs import network_inputs

_HOOKS = [
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks"),
    *("_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
]


class PeerNetwork:
    """Make the peer of a module's network, and let it see what the network sees.

    By default it is a copy whose layers draw their weights anew by their own ``reset_parameters``; so it starts as
    PyTorch draws weights, also where the first network was started otherwise. Layers that are frozen keep their
    weights, which nothing would train; layers in evaluation mode stay so. Hooks that others put on the first network
    are not copied.

    Args:
        given: A network to use instead.
        reinitialize: Dotted part of the network that is drawn anew; ``""`` is all of it. Of a pre-trained network draw
            only the head.
        seed: Seed of the weights.

    Raises:
        UserError: if there is no such network or part, or it cannot be copied or drawn anew.
    """

    def __init__(self, given: nn.Module | None, reinitialize: str, seed: int) -> None:
        self.given, self.reinitialize, self.seed = given, reinitialize, seed
        self.network: nn.Module | None = given
        self.is_new = False
        """Whether the weights are drawn anew in this fit: not given, kept or restored."""
        self._first: nn.Module | None = None  # which the peer is a copy of

    def make(self, module: LightningModule, path: str, keep: bool = False) -> nn.Module:
        """Make the peer of the network at a dotted attribute of the module.

        Args:
            module: The module.
            path: Attribute of the network.
            keep: Return the peer of an earlier fit, if it was made of this very network.
        """
        network = None if path == "self" else _submodule(module, path)
        if self.given is not None:
            if self.given is network:
                raise UserError(f"peer is the network '{path}' itself; pass another one, or none to have it made.")
            self.network = self.given
            return self.given
        self.is_new = not (keep and network is not None and network is self._first)
        if not self.is_new:
            assert self.network is not None
            return self.network
        if network is None:
            why = "network='self' cannot be copied" if path == "self" else f"there is no network '{path}'"
            raise UserError(
                f"{why} in {type(module).__name__}, so it gets no peer network; name the attribute that training_step "
                "calls, e.g. network='net', or pass a network as peer."
            )
        peer = copied(network)
        part = peer if not self.reinitialize else _submodule(peer, self.reinitialize)
        if part is None:
            names = listed(name for name, _ in peer.named_children())
            raise UserError(f"the network '{path}' has no part reinitialize='{self.reinitialize}'; it has {names}.")
        device = next((p.device for p in peer.parameters()), torch.device("cpu"))
        peer.cpu()  # whose random numbers are the same on any machine
        with seeded(derive_seed(self.seed, 1)):
            _draw_anew(part, self.reinitialize)
        self.network, self._first = peer.to(device), network
        return self.network

    def warn_if_late(self, method: str, epoch: int) -> None:
        """Warn when weights drawn anew meet a network that has trained for some epochs."""
        if self.is_new and epoch > 0:
            rank_zero_warn(
                f"{method} begins at epoch {epoch} with a peer network drawn anew, which has learned nothing beside a "
                "network that has; resume from a checkpoint of this method, pass a trained network as peer, or train "
                "with a new trainer."
            )

    def logits(self, step: TrainingStep) -> Tensor:
        """Return the peer's logits of what the network saw last, in the shape of the network's."""
        assert self.network is not None
        logits = self.network(*network_inputs(step, "the peer network"))
        if not isinstance(logits, Tensor) or logits.numel() != step.logits.numel():
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"the peer network returned {what} where the criterion got logits of shape {tuple(step.logits.shape)}; "
                "name as network the part of the module that returns logits, or pass a peer that does."
            )
        return logits.reshape(step.logits.shape)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        found = attrgetter(path)(module)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Module) else None


def copied(network: nn.Module) -> nn.Module:
    """Return a deep copy without the hooks that others put on the network.

    Raises:
        UserError: if it cannot be copied.
    """
    with _without_foreign_hooks(network):
        try:
            return deepcopy(network)
        except (RuntimeError, TypeError) as error:
            raise UserError(
                f"the network {type(network).__name__} cannot be copied ({error}); pass a network as peer."
            ) from error


@contextmanager
def _without_foreign_hooks(network: nn.Module) -> Iterator[None]:
    """Take off hooks while the network is copied: a hook's owner would be copied too, up to the trainer."""
    own = {id(layer) for layer in network.modules()}
    saved: list[tuple[dict[int, Any], dict[int, Any]]] = []
    for layer in network.modules():
        for name in _HOOKS:
            hooks: dict[int, Any] = getattr(layer, name, {})
            saved.append((hooks, dict(hooks)))
            for key in [key for key, hook in hooks.items() if not _is_part(hook, own)]:
                del hooks[key]
    try:
        yield
    finally:
        for hooks, before in saved:
            hooks.clear()
            hooks.update(before)


def _is_part(hook: Any, own: set[int]) -> bool:
    """Tell whether a hook is how the network works: a method of one of its layers, or torch's spectral norm and kin."""
    hook = getattr(hook, "hook", hook)
    hook = getattr(hook, "func", hook)
    return id(getattr(hook, "__self__", None)) in own or type(hook).__module__.startswith("torch.nn.utils")


def _draw_anew(part: nn.Module, path: str) -> None:
    layers = part.named_modules()
    owners = [(name, layer) for name, layer in layers if any(p.requires_grad for p in layer.parameters(False))]
    if not owners:
        raise UserError(
            f"reinitialize='{path}' has no trainable weights to draw anew; name a part that has, such as the head."
        )
    for name, layer in owners:
        reset: Callable[[], None] | None = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
        if reset is None:
            dotted = ".".join(filter(None, (path, name)))
            where = f"layer '{dotted}'" if dotted else "the network itself"
            raise UserError(
                f"{where} ({type(layer).__name__}) has weights of its own but "
                "no reset_parameters(), so the peer network cannot be drawn anew; pass a network as peer, or name with "
                "reinitialize a part to draw anew, such as the head."
            )
        reset()
