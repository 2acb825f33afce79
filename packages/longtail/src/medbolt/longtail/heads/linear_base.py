"""What the heads share that a trained linear layer lies under."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.errors import UserError


class LinearBasedHead(nn.Module):
    """Base of the heads over a linear layer that was trained before.

    Weight and bias keep the names that they have in the layer, so that a checkpoint of the first stage loads into them.
    They are buffers: no optimizer and no ``requires_grad_`` of a whole head moves them.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.
        train_weights: Make them parameters instead, to be trained on.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, num_classes: int, train_weights: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, num_classes
        linear = nn.Linear(in_features, num_classes)
        for name, values in linear.named_parameters():
            if train_weights:
                self.register_parameter(name, values)
            else:
                self.register_buffer(name, values.detach())

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Self:
        """Make the head over a trained layer, which is copied."""
        head = cls(linear.in_features, linear.out_features)
        head.take(linear)
        return head

    def take(self, linear: "nn.Linear | LinearBasedHead") -> None:
        """Copy the weight and bias of a trained layer, or of the layer beneath a head; to its device and precision."""
        self.to(linear.weight)
        for name in ("weight", "bias"):
            values = getattr(linear, name)
            copied = None if values is None else values.detach().clone()
            is_parameter = name in self._parameters
            setattr(self, name, nn.Parameter(copied) if is_parameter and copied is not None else copied)

    def reset_parameters(self) -> None:
        """Draw the layer beneath anew.

        Raises:
            UserError: if it is frozen: it would keep what was drawn, and the head never learn.
        """
        if not isinstance(self.weight, nn.Parameter):
            raise UserError(
                f"{type(self).__name__} lies over a trained layer that it does not train, so drawn anew it could not "
                "learn; leave it out of reset and load the layer by init_from."
            )
        linear = nn.Linear(self.in_features, self.out_features)
        with torch.no_grad():
            self.weight.copy_(linear.weight)
            if self.bias is not None:
                self.bias.copy_(linear.bias)

    def base(self, features: Tensor) -> Tensor:
        """Return the logits of the layer beneath, in the precision of the features."""
        return F.linear(features, self.weight.to(features), None if self.bias is None else self.bias.to(features))

    def extra_repr(self) -> str:
        """Show what the head was made with."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
