"""Weights of a first stage: read without running code, matched by name, refused if they do not fit."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from medbolt.core.data.locate import locate
from medbolt.core.errors import UserError, listed
from medbolt.longtail.heads.linear_base import LinearBasedHead
from medbolt.longtail.stages.parts import is_within

_WEIGHTS = ("state_dict", "model", "teacher")
_REMEDY = "take the network of the first stage, or name as reset what is another"


def load_first_stage(
    network: nn.Module, path: Path, prefix: str, reset: Sequence[str], optional: Sequence[str]
) -> None:
    """Load a network's weights from a checkpoint.

    Args:
        network: The network to load into.
        path: A checkpoint of Lightning, or a file with a ``state_dict``.
        prefix: What the names of the network's weights begin with in the checkpoint, e.g. ``"model."``. If none does,
            the names are taken to be the network's own.
        reset: Parts that keep the weights they have, whatever the checkpoint says of them.
        optional: Parts that keep weights which the checkpoint lacks, but for the frozen ones of a head over a trained
            layer.

    Raises:
        UserError: if the file cannot be read or the weights are not those of this network.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "first.ckpt"
        >>> torch.save({"state_dict": {"model.weight": torch.ones(1, 2), "model.bias": torch.zeros(1)}}, file)
        >>> network = nn.Linear(2, 1)
        >>> load_first_stage(network, file, "model.", reset=[], optional=[])
        >>> network.weight.tolist()
        [[1.0, 1.0]]
    """
    weights = read_weights(path)
    saved = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    load_matching(network, saved or weights, path, reset, optional, _REMEDY)


def load_matching(
    network: nn.Module,
    saved: Mapping[str, Tensor],
    path: Path,
    reset: Sequence[str] = (),
    optional: Sequence[str] = (),
    remedy: str = "take weights of the same network",
) -> None:
    """Load weights into a network, all of them and no others.

    Args:
        network: The network to load into.
        saved: The weights, by their names in the network.
        path: Where they come from, for messages.
        reset: Parts that keep the weights they have.
        optional: Parts that keep weights which are not saved, but for the frozen ones of a head over a trained layer,
            which would stay as they were drawn.
        remedy: What the user can do if they do not fit, for messages.

    Raises:
        UserError: if weights are missing, in excess, or of another shape.

    Example:
        >>> load_matching(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}, Path("w.pt"))
    """
    own: dict[str, Tensor] = network.state_dict()
    fixed = {name for name in own.keys() | saved.keys() if not any(is_within(name, part) for part in reset)}
    lacking, unexpected = sorted(fixed & own.keys() - saved.keys()), sorted(fixed & saved.keys() - own.keys())
    frozen = _frozen_weights(network)
    missing = [name for name in lacking if name in frozen or not any(is_within(name, part) for part in optional)]
    if missing or unexpected:
        faults = [f"lacks {listed(missing)}"] * bool(missing)
        faults += [f"has {listed(unexpected)} in excess"] * bool(unexpected)
        raise UserError(
            f"the checkpoint {path} is not of this {type(network).__name__}: it {' and '.join(faults)}; {remedy}."
        )
    fixed -= set(lacking)
    for name in sorted(fixed):
        if saved[name].shape != own[name].shape:
            raise UserError(
                f"the checkpoint {path} has '{name}' of shape {tuple(saved[name].shape)}, this "
                f"{type(network).__name__} of {tuple(own[name].shape)}; {remedy}."
            )
    with torch.no_grad():
        for name in fixed:
            own[name].copy_(saved[name])


def _frozen_weights(network: nn.Module) -> set[str]:
    """Return the names of what heads over a trained layer have of it and do not train."""
    heads = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, LinearBasedHead)]
    return {".".join(filter(None, (name, own))) for name, head in heads for own, _ in head.named_buffers(recurse=False)}


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the weights in a file without running code.

    They are plain, or what a checkpoint has as ``state_dict``, as ``model`` (masked autoencoders) or as ``teacher``
    (DINO).

    Args:
        path: The file, which :func:`~medbolt.core.data.locate.locate` finds.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):  # of a command line, which many keep beside the weights
            checkpoint = torch.load(locate(path), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} is damaged or holds pickled Python objects, which could run code when loaded; save "
            "the weights anew, as tensors."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise UserError(f"{path} is no checkpoint that torch can read; name another file.") from error
    found = checkpoint if isinstance(checkpoint, Mapping) else {}
    weights = next((found[key] for key in _WEIGHTS if isinstance(found.get(key), Mapping)), checkpoint)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no state_dict; name a checkpoint of Lightning or a file of plain weights.")
    return weights
