"""The batch taken once for each expert, so that one pass through a network is a pass through all experts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.longtail.losses.inputs import precise


@dataclass
class Fold:
    """The batch taken once for each expert, one after the other.

    Args:
        number: Of experts.
        rows: Of the folded batch.
    """

    number: int
    rows: int = 0

    def shares(self, rows: Tensor, part: str) -> Sequence[Tensor]:
        """Return what each expert's copy of a part is given."""
        if len(rows) == self.rows:
            return rows.tensor_split(self.number)
        if len(rows) * self.number == self.rows:  # the first part: what comes before it is shared
            return [rows] * self.number
        raise UserError(
            f"part '{part}' of a network of experts was given {len(rows)} rows for {self.rows // self.number} images; "
            "name parts that work on one row an image."
        )

    def checked(self, output: Any) -> Tensor:
        """Return what the network gave if it is of all experts."""
        if not isinstance(output, Tensor) or len(output) != self.rows:
            what = f"{len(output)} rows" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UserError(
                f"a network of {self.number} experts gave {what} for {self.rows // self.number} images; name as head "
                "its last layer, the one that gives the logits."
            )
        return output


class Copies(nn.Module):
    """A layer that each expert has for itself."""

    def __init__(self, copies: Sequence[nn.Module], fold: Fold, name: str, training: bool = True) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copies)
        self.training = self.copies.training = training
        self._fold, self._name = fold, name

    def forward(self, rows: Tensor) -> Tensor:
        """Return what all copies give of their shares, as one batch."""
        shares = self._fold.shares(rows, self._name)
        return torch.cat([copy(share) for copy, share in zip(self.copies, shares, strict=True)])


class Unfolded(nn.Module):
    """The folded batch's logits by expert, in float32 at least."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, folded: Tensor) -> Tensor:
        """Return (E, B, ...) of (E * B, ...)."""
        return precise(torch.stack(folded.tensor_split(self.number)))
