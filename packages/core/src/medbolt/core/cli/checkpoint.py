"""A look at a checkpoint before a run, and a sentence for one that does not fit."""

from pathlib import Path
from pickle import UnpicklingError

import torch

from medbolt.core.errors import UserError, listed

_REQUIRED = ("state_dict", "pytorch-lightning_version")


def check_checkpoint(path: Path | str) -> None:
    """Refuse a file that is no checkpoint of a training run.

    Only tensors and plain values are loaded. What is no file here is left to Lightning: folders, addresses and its own
    words (``last``, ``best``, ``hpc``, ``registry``); so are pickled objects.

    Args:
        path: The checkpoint as the user named it.

    Raises:
        UserError: if it is damaged or lacks what Lightning needs.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as empty:
        ...     check_checkpoint(empty.name)
        Traceback (most recent call last):
        medbolt.core.errors.UserError: checkpoint '...' is damaged or no checkpoint; ...
    """
    if str(path) in ("last", "best", "hpc", "registry") or not Path(path).is_file():
        return
    try:
        with Path(path).open("rb") as file:
            can_be_mapped = file.read(4) == b"PK\x03\x04"  # an archive, unlike what old versions of torch wrote
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=can_be_mapped)
    except (UnpicklingError, OSError):
        return
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"checkpoint '{path}' is damaged or no checkpoint; copy it anew or name one that medbolt fit has written."
        ) from error
    absent = [key for key in _REQUIRED if not isinstance(content, dict) or key not in content]
    if absent:
        raise UserError(
            f"checkpoint '{path}' has no {listed(absent)}, so it is not of a training run; name one that medbolt fit "
            "has written."
        )


def of_another_network(path: Path | str, error: RuntimeError) -> UserError:
    """Return the sentence for weights that do not fit the configured network, with the first that does not."""
    details = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    first = f" ({_shortened(details[0])})" if details else ""
    return UserError(
        f"checkpoint '{path}' does not fit the configured network{first}; use the configuration that it was trained "
        "with, or another checkpoint."
    )


def _shortened(detail: str, length: int = 160) -> str:
    detail = detail.rstrip(". ")
    return detail if len(detail) <= length else f"{detail[:length]}..."
