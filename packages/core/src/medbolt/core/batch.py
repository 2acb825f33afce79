"""The batch contract: what every medbolt data module yields and every medbolt method may expect."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import Tensor
from torch.utils.data import default_collate

from medbolt.core.errors import UserError


class Batch(TypedDict, total=False):
    """A collated batch of B samples. ``image`` and ``index`` are always there, the rest where the data have it.

    A single sample has the same keys without the leading B.
    """

    image: Tensor
    """(B, 3, H, W) float, normalised by the transform."""
    target: Tensor
    """(B,) int64 classes; (B, C) float soft or multi-label targets; (B, H, W) int64 or (B, C, H, W) float masks."""
    index: Tensor
    """(B,) int64, position in the *base* training set, whatever sampler, subset, worker or rank drew the sample."""
    domain: Tensor
    """(B,) int64, acquisition source (camera, scanner, hospital)."""
    mask: Tensor
    """(B, H, W) or (B, C, H, W) uint8, segmentation masks that are not the target."""
    raters: Tensor
    """(B, R, H, W) uint8, one mask a rater."""
    text: list[str]
    """B report sentences or prompts."""
    views: Tensor
    """(B, V, 3, H, W) float, V augmented views of each image."""
    id: list[str]
    """B stable names: file name, image id."""
    group: list[str]
    """B names of what must not be split: patient, lesion, eye."""


_STRINGS = frozenset({"text", "id", "group"})
_TARGETS = ("target", "label", "labels")  # of medbolt, of torchgeo and MONAI, of transformers


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples into a batch: tensors and numbers by torch's rule, strings into lists.

    Args:
        samples: Samples with equal keys.

    Returns:
        The batch, a dict with the keys of the samples (see :class:`Batch`).

    Raises:
        UserError: if the samples do not all have the same keys and shapes.

    Example:
        >>> batch = collate([{"index": 3, "id": "a"}, {"index": 7, "id": "b"}])
        >>> batch["index"], batch["id"]
        (tensor([3, 7]), ['a', 'b'])
    """
    keys = samples[0].keys()
    if any(sample.keys() != keys for sample in samples):
        raise UserError(
            f"samples of one batch must have the same keys, got {[sorted(s) for s in samples[:8]]}; let the transform "
            "give every sample the same."
        )
    return {key: [s[key] for s in samples] if key in _STRINGS else _stacked(key, samples) for key in keys}


def batch_size(batch: dict[str, Any]) -> int:
    """Return the number of samples in a batch that follows the contract.

    Example:
        >>> batch_size({"image": torch.zeros(5, 3, 8, 8)})
        5
    """
    return len(batch["index"] if "index" in batch else batch["image"])


def batch_target(batch: Any) -> Tensor | None:
    """Return the targets of a batch of any data: ``target``, ``label`` or ``labels``, or the second entry of a tuple.

    Example:
        >>> batch_target((torch.zeros(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    found = None
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in _TARGETS if key in batch), None)
    elif isinstance(batch, list | tuple) and len(batch) > 1:
        found = batch[1]
    return found if isinstance(found, Tensor) else None


def _stacked(key: str, samples: Sequence[dict[str, Any]]) -> Any:
    values = [sample[key] for sample in samples]
    shapes = [tuple(value.shape) for value in values if isinstance(value, Tensor)]
    if len(set(shapes)) > 1:
        other = next(position for position, shape in enumerate(shapes) if shape != shapes[0])
        names = [sample.get("id", position) for position, sample in enumerate(samples)]
        raise UserError(
            f"{key} has shape {shapes[0]} in sample '{names[0]}' and {shapes[other]} in '{names[other]}', but a batch "
            "needs one; set image_size or let the transform resize, or set batch_size to 1."
        )
    return default_collate(values)
