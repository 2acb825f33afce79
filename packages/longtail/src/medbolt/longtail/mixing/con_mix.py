"""ConMix: what two views of a batch have in common once the features of its samples are mixed, class by class."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core import ObjectiveCallback, TrainingStep
from medbolt.core.objective.second_view import ask_for_second_view, network_features, second_view
from medbolt.longtail.losses.inputs import hidden, precise, target_matrix, two_columns


class ConMix(ObjectiveCallback):
    r"""Add a contrastive loss of the classes' mean features in two views (ConMix, with labels).

    .. math::
        \ell_i \leftarrow \ell_i + \lambda\, \frac{1}{2G} \sum_{a=1}^{2G}
        -\log \frac{e^{u_a^\top u_{a'} / \tau}}{\sum_{b \ne a} e^{u_a^\top u_b / \tau}}, \qquad
        u_g \propto \sum_{i \in g} \frac{h_i}{\|h_i\|}, \quad \|u_g\| = 1

    The samples of a batch, h their features, form G groups: its classes, or as many as ``groups`` says at random. Each
    group has a mixture u in both views, a and a' are the two of one group. A class that has one sample in the batch
    weighs as much as one that has a hundred.

    Args:
        weight: Weight :math:`\lambda` of the contrastive loss, not negative.
        temperature: Temperature :math:`\tau`, positive.
        groups: Number of random groups, at least 2, for which the labels do not matter; ``None`` for the classes.
        strong: Makes the second view of a batch of what the network is given; by default medbolt's data modules make
            one, with strong changes of colour, or as their :class:`~medbolt.core.MultiView` says.
        features: Dotted attribute of the layer whose output, flattened, is mixed; its input should be another layer's.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Shapes:
        features (B, ...) float; targets (B,) int64, (B,) float of a binary task, or (B, C) float, for which each sample
        takes part in the mixtures of all its labels by their share.

    Raises:
        ValueError: if ``weight`` is negative, ``temperature`` not positive or ``groups`` less than 2.
        UserError: at ``fit``, if there is no such layer; in training, without a second view.

    State, cost: none; a second pass of the batch, by which running statistics of batch norm move twice. Mixtures are of
    the samples of all processes. A callback with a second network comes before this one, else the contrastive loss
    counts twice. Beside a callback that mixes images give ``strong``: ``views`` are not mixed.

    Source: Li and Jia, ICLR 2025 (openreview 3lH8WT0fhu), which clusters without labels: random groups, a projection
    network, pruning and no classification loss. Groups by class are a **reconstruction** of what MONICA makes of it,
    which leaves out the classification loss and so never trains the classifier; here it is added to the module's own.
    The weight is ours. There is no projection network: name its output as ``features`` if yours has one.

    Example:
        >>> from torchvision.transforms.v2 import RandomHorizontalFlip
        >>> callback = ConMix(weight=0.5, strong=RandomHorizontalFlip(p=1.0))
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.5,
        groups: int | None = None,
        strong: nn.Module | None = None,
        features: str = "model.features",
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network, features)
        if weight < 0 or temperature <= 0:
            raise ValueError(f"weight must not be negative and temperature positive, got {weight} and {temperature}")
        if groups is not None and groups < 2:
            raise ValueError(f"groups must be at least 2, to have something to tell apart, got {groups}")
        self.weight, self.temperature, self.groups, self.strong = weight, temperature, groups, strong

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; have a second view made."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.weight:
            ask_for_second_view(self, trainer, self.strong)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the weighted contrastive loss added."""
        if not self.weight:
            return step.loss()
        views = step.features, network_features(self, step, second_view(self, step, self.strong), *step.inputs[1:])
        members = self._members(step)
        with torch.autocast(step.logits.device.type, enabled=False):  # which would lower the products
            directions = F.normalize(torch.stack([precise(view.flatten(1)) for view in views]), dim=2)
            mixtures = _over_processes(step, members @ directions)  # (2, G, D)
            mass = _over_processes(step, members.sum(1))
            penalty = self.weight * contrast(mixtures, mass > 0, self.temperature)
        return step.loss() + penalty

    def _members(self, step: TrainingStep) -> Tensor:
        """Return which samples make up each group, (G, B) float32."""
        if self.groups is not None:
            group = torch.randint(self.groups, (len(step.logits),), device=step.logits.device)
            return F.one_hot(group, self.groups).T.float()
        target = step.target
        if target.is_floating_point() and target.numel() == len(target):  # 0 and 1 of a binary task
            return two_columns(precise(target), probability=True).T
        return precise(target_matrix(target, step.logits.detach())).T


def contrast(mixtures: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss (NT-Xent) of the mixtures of groups in two views, averaged over views and groups.

    Args:
        mixtures: (2, G, D) float of any length.
        present: (G,) bool, which groups there are; the others are neither compared nor compared with.
        temperature: Divides the cosines.

    Example:
        >>> views = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(2, 2, 2)
        >>> contrast(views, torch.tensor([True, True]), temperature=1.0)  # log(e + 2) - 1
        tensor(0.5514)
    """
    number = mixtures.shape[1]
    directions = F.normalize(mixtures.flatten(0, 1), dim=1)
    itself = torch.eye(2 * number, dtype=torch.bool, device=mixtures.device)
    both = present.repeat(2)
    cosines = hidden(directions @ directions.T / temperature, itself | ~both)
    log_p = cosines.log_softmax(1)
    losses = -torch.cat([log_p.diagonal(number), log_p.diagonal(-number)])  # of a group's other view
    return torch.where(both, losses, 0.0).sum() / both.sum().clamp(min=1)


def _over_processes(step: TrainingStep, values: Tensor) -> Tensor:
    """Return the sum over processes, through which gradients flow back to each."""
    gathered: Any = step.module.all_gather(values, sync_grads=True)
    return gathered if gathered.shape == values.shape else gathered.sum(0)
