"""Several experts in one network: early layers are shared, late ones and the head exist once for each."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.randomness import derive_seed, seeded
from medbolt.longtail.experts.folding import Copies, Fold, Unfolded
from medbolt.longtail.heads.replace_head import HeadCallable, find_layer, make_head
from medbolt.longtail.stages.parts import draw_anew, find_part, is_within

_TAG = 0x6578  # apart from other draws by the same seed


class ExpertsClassifier(nn.Module):
    r"""Give a network E copies of its last parts and of its head, and predict with the mean of their logits.

    .. math:: z(x) = \sum_{k=1}^{E} w_k z_k(x), \qquad z_k = g_k(f(x)), \qquad w_k = 1/E

    The network runs once. Where its own parts begin, the batch is taken E times, one after the other; each copy works
    on its share, and layers without copies, such as pooling between the last stage and the head, on all. So any network
    will do that treats the images of a batch one by one, and nothing about its ``forward`` need be known.

    The first expert is the network as it is. The parts of the others are drawn anew by ``reset_parameters`` of their
    layers, as PyTorch draws weights. What is frozen or in evaluation mode stays so.

    Args:
        network: Images (B, ...) to logits (B, C); its parts are replaced in place.
        number: Number E of experts.
        parts: Dotted layers below the head of which each expert has its own, each a function of one tensor. All layers
            with weights above the first of them belong in here; one left out is shared.
        head: Dotted name of the last layer.
        make_head: Makes each expert's head from the length of the features and the number of classes, for instance
            :class:`~medbolt.longtail.CosineHead`; copies of the network's head by default.
        redraw: Draw ``"all"`` parts of further experts anew, or only the ``"head"``: for pre-trained networks, whose
            experts then begin alike below the head.
        seed: Seed of the weights; they are the same on every machine.

    Attributes:
        weights: (E,) float, what the experts' logits are weighted with. Not in the ``state_dict``.
        experts: Layer whose output are the logits of each expert, (E, B, C) float32, or float64 where the network's
            are: what objectives look at.

    Shapes:
        image (B, ...) float to logits (B, C) float32 or float64.

    Raises:
        ValueError: if ``number`` is not positive, or parts lie within one another.
        UserError: if there is no such part or head, or it cannot be drawn anew; in forward, if a part is not given
            one row an image.

    State, cost: weights and computation of the parts times E; of the rest, once. Batch norm below the parts sees the
    batch once; own batch norm that of its expert.

    Source: the networks of RIDE (arXiv 2010.01809), SADE (2107.09249) and BBN (1912.02413). RIDE makes the experts'
    layers narrower to keep the cost; here they have the network's width.

    Example:
        >>> from medbolt.core import TimmClassifier
        >>> network = ExpertsClassifier(TimmClassifier("resnet10t", num_classes=5), 3, ["features.layer4"]).eval()
        >>> image = torch.zeros(2, 3, 32, 32)
        >>> network(image).shape, network.each(image).shape
        (torch.Size([2, 5]), torch.Size([3, 2, 5]))
    """

    weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        number: int = 3,
        parts: Sequence[str] = ("features.layer4",),
        head: str = "head",
        make_head: HeadCallable | None = None,
        redraw: Literal["all", "head"] = "all",
        seed: int = 0,
    ) -> None:
        super().__init__()
        names = [*parts, head]
        if number < 1 or redraw not in ("all", "head"):
            raise ValueError(f"number must be positive and redraw 'all' or 'head', got {number} and {redraw!r}")
        if any(is_within(one, other) for i, one in enumerate(names) for j, other in enumerate(names) if i != j):
            raise ValueError(f"parts and head must lie beside one another, got {names}")
        self.network, self.training = network, network.training
        self._fold = Fold(number)
        find_layer(network, head)
        made: dict[str, Copies] = {}  # all of them before any is put in place
        for name in names:
            part, make = find_part(network, name, "parts"), make_head if name == head else None
            if not isinstance(part, nn.Module):
                raise UserError(f"parts='{name}' is a single parameter; name the layer that it belongs to.")
            copies = [_copy(part, name, k, make, redraw == "all" or name == head, seed) for k in range(number)]
            made[name] = Copies(copies, self._fold, name, part.training)
        for name, part in made.items():
            network.set_submodule(name, part)
        self.experts = Unfolded(number)
        self.register_buffer("weights", torch.full((number,), 1 / number), persistent=False)

    def forward(self, image: Tensor, shares: Tensor | None = None) -> Tensor:
        """Return the weighted mean of the experts' logits.

        Args:
            image: (B, ...) images; with ``shares`` the E * B of all experts, those of the first expert first.
            shares: (E,) weights to use. Each expert then sees images of its own, and row i is the mean over the i-th
                image of each.
        """
        experts = self._run(image, shares is not None)
        weights = (self.weights if shares is None else shares).to(experts)
        return (weights.view(-1, *[1] * (experts.ndim - 1)) * experts).sum(0)

    def each(self, image: Tensor) -> Tensor:
        """Return the logits of each expert, (E, B, C)."""
        return self._run(image, False)

    def _run(self, image: Tensor, is_folded: bool) -> Tensor:
        self._fold.rows = len(image) * (1 if is_folded else self._fold.number)
        return self.experts(self._fold.checked(self.network(image)))

    def extra_repr(self) -> str:
        """Show the number of experts."""
        return f"number={self._fold.number}"


def _copy(part: nn.Module, name: str, k: int, make: HeadCallable | None, redraw: bool, seed: int) -> nn.Module:
    if make is not None:
        with seeded(derive_seed(seed, _TAG, k)):
            return make_head(part, make).train(part.training)
    if k == 0:
        return part
    copy = deepcopy(part)
    if redraw and any(True for _ in copy.parameters()):
        for child, layer in copy.named_modules():
            if any(True for _ in layer.parameters(False)) and not hasattr(layer, "reset_parameters"):
                raise UserError(
                    f"layer '{'.'.join(filter(None, (name, child)))}' ({type(layer).__name__}) has weights of its own "
                    "but no reset_parameters() to draw an expert's copy anew with; give it one, or set redraw to "
                    "'head'."
                )
        draw_anew(copy, f"{name}.{k}", seed)
    return copy
