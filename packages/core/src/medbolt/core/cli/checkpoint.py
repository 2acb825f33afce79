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


def refusal(path: Path | str | None, error: Exception, module: str) -> UserError | None:
    """Return the sentence for a checkpoint that a run could not load, or nothing for another error.

    Args:
        path: The checkpoint as the user named it, if so.
        error: What ended the run.
        module: Class of the LightningModule.

    Example:
        >>> print(refusal("a.ckpt", ValueError("loaded state dict has a different number of parameter groups"), "Net"))
        checkpoint 'a.ckpt' was made by an optimizer of other parameters (loaded state dict has a different ...
    """
    name = f"checkpoint '{path}'" if path else "a checkpoint"
    if isinstance(error, UnpicklingError):
        return UserError(
            f"{name} is damaged or holds pickled Python objects, which could run code when loaded; use one of tensors "
            "and plain values."
        )
    if not path:
        return None
    text = str(error)
    if isinstance(error, KeyError) and "checkpoint contains only the model" in text:
        return UserError(
            f"{name} holds the weights only (save_weights_only), so training cannot go on from it; resume from a whole "
            "one, or load these weights before a new training."
        )
    if isinstance(error, RuntimeError) and text.startswith(f"Error(s) in loading state_dict for {module}:"):
        details = [line.strip() for line in text.splitlines()[1:] if line.strip()]
        first = f" ({_shortened(details[0])})" if details else ""
        return UserError(
            f"{name} does not fit the configured network{first}; use the configuration that it was trained with, or "
            "another checkpoint."
        )
    if isinstance(error, ValueError) and text.startswith("loaded state dict"):
        return UserError(
            f"{name} was made by an optimizer of other parameters ({_shortened(text)}); use the configuration that it "
            "was trained with, callbacks included."
        )
    return None


def _shortened(detail: str, length: int = 160) -> str:
    detail = detail.rstrip(". ")
    return detail if len(detail) <= length else f"{detail[:length]}..."
