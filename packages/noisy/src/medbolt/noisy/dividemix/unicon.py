"""UNICON: select as many samples of each class, and learn the others semi-supervised and by contrast."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from medbolt.noisy.dividemix.contrastive import ContrastiveHead
from medbolt.noisy.dividemix.semi_supervised_loss import SemiSupervisedLoss
from medbolt.noisy.dividemix.two_networks import TwoNetworkTask
from medbolt.noisy.dividemix.uniform_split import UniformSplit
from medbolt.noisy.features import classifier_head, inputs_of


class UNICON(TwoNetworkTask):
    r"""Divide samples class by class with two networks, MixMatch them, and contrast the views of the unlabelled ones.

    .. math:: L = \sum_{k = 1, 2} L^k_{\text{DivideMix}} + \lambda_c\, L^k_{\text{contrastive}}

    Uniform selection: after a warm-up with the criterion, before each epoch, every training sample has the
    Jensen-Shannon divergence of both networks' mean prediction from its label. As many samples as are below a threshold
    are labelled, of each class the same number, those of smallest divergence: a class that is rare or hard keeps its
    part, which selection by loss takes from it. Both networks get the same labelled samples.

    .. math::
        d_i = \mathrm{JSD}(\bar p_i \,\|\, y_i), \qquad
        t = \bar d - \frac{\bar d - \min d}{\tau} [\bar d > d_u], \qquad
        \Bigl\lfloor \frac{1}{C} \sum_i [d_i < t] \Bigr\rfloor \text{ of each class}

    What follows is :class:`~medbolt.noisy.DivideMix`: targets refined and guessed, mixtures, the same loss, and how
    batches reach the step. The labels' weight w is 1 minus the divergence. The contrastive loss is of each network's
    features (what its classifier is given) of the first two views of the batch's unlabelled images, not mixed.

    With four views or more, labels are guessed from the first half and the networks learn from the second, as the
    authors do with two weak and two strong views; with fewer all of them serve for both.

    Args:
        model: Network 1: image (B, 3, H, W) to logits (B, num_classes).
        num_classes: Number of classes. The command line takes it from the data.
        warmup_epochs: Epochs of training with the criterion; network 2 sees the second view.
        unlabelled_weight: Full :math:`\lambda_u`, not negative.
        rampup_epochs: Epochs in which it is reached; 0 for at once.
        contrastive_weight: :math:`\lambda_c`, not negative; 0 leaves the contrastive loss out.
        contrastive_temperature: Its temperature, positive.
        high_divergence: :math:`d_u` in [0, 1]: a mean divergence above it is answered with a stricter threshold.
        strictness: :math:`\tau`, at least 1: the smaller, the stricter.
        temperature: T of sharpening, positive.
        alpha: Both parameters of the Beta distribution of mixtures, positive.
        prior: What the mean prediction is pulled to: ``"uniform"``; ``"labels"``, the frequencies of the training
            labels, for long tails; or ``None``.
        confidence_penalty: Weight of the negative entropy in the warm-up.
        head: Dotted name, in the network, of the linear layer that makes the logits; by default its last linear layer.
        peer: Network 2, if it shall not be a copy of the first drawn anew.
        reinitialize: Dotted part of the copy to draw anew, ``""`` for all of it; of a pre-trained network the head.
        seed: Seed of the copy's weights and of the mixtures.
        task: ``"multiclass"`` or ``"ordinal"``; see :class:`~medbolt.core.ClassificationTask`, as for what follows.
        criterion: The loss of the warm-up, and of validation and test; by default cross entropy.
        optimizer: Makes the optimizer from the parameters of both networks.
        scheduler: Makes the learning rate scheduler from the optimizer.
        scheduler_interval: Whether the scheduler steps each epoch or each optimizer step.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: if a network has no such head; at ``fit``, if the data are no data module, its batches are no dicts
            with ``image``, ``views``, ``target`` and ``index``, or it has no ``class_counts`` for ``prior="labels"``.

    State, cost: a second network and two small ones; 10 bytes a sample in checkpoints. As DivideMix, and two more views
    of the unlabelled images, trained through each network. What is selected is the same on any number of processes;
    contrasts are within a process's batch. Resuming is exact, in mid-epoch too.

    Source: Karim et al., arXiv 2203.14542, a reconstruction from notes on paper and code. Besides the batches: w and
    the contrastive temperature are ours to say; the authors' code refers to an argument that does not exist where it
    makes the threshold stricter, here it is ``strictness``; a class has at least one labelled sample.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> task = UNICON(network, num_classes=5, warmup_epochs=10)
        >>> task(torch.zeros(2, 3, 2, 2)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        warmup_epochs: int = 10,
        unlabelled_weight: float = 30.0,
        rampup_epochs: int = 16,
        contrastive_weight: float = 0.025,
        contrastive_temperature: float = 0.5,
        high_divergence: float = 0.7,
        strictness: float = 5.0,
        temperature: float = 0.5,
        alpha: float = 4.0,
        prior: Literal["uniform", "labels"] | None = "uniform",
        confidence_penalty: float = 0.0,
        head: str | None = None,
        peer: nn.Module | None = None,
        reinitialize: str = "",
        seed: int = 0,
        task: Literal["multiclass", "ordinal"] = "multiclass",
        criterion: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        given, peer = peer, None  # Lightning puts arguments into checkpoints, where a network does not belong
        super().__init__(
            model,
            num_classes,
            warmup_epochs,
            unlabelled_weight,
            rampup_epochs,
            temperature,
            alpha,
            prior,
            confidence_penalty,
            given,
            reinitialize,
            seed,
            task,
            criterion,
            optimizer,
            scheduler,
            scheduler_interval,
        )
        if contrastive_weight < 0 or contrastive_temperature <= 0:
            raise ValueError(
                "contrastive_weight must not be negative and contrastive_temperature positive, got "
                f"{contrastive_weight} and {contrastive_temperature}"
            )
        self.split = UniformSplit(high_divergence, strictness)
        self.semi_supervised = SemiSupervisedLoss()
        self.contrastive_weight, self.head = contrastive_weight, head
        self.contrastive = nn.ModuleList()
        if contrastive_weight:
            sizes = [classifier_head(network, head, "UNICON").in_features for network in (self.model, self.peer)]
            self.contrastive.extend(ContrastiveHead(size, contrastive_temperature) for size in sizes)

    def divide_views(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the views to guess labels from and those to learn from."""
        half = views.shape[1] // 2
        return (views[:, :half], views[:, half:]) if half > 1 else (views, views)

    def further_loss(self, k: int, views: Tensor, labelled: Tensor) -> Tensor:
        """Return the contrastive loss of the unlabelled images of a network."""
        if not self.contrastive_weight:
            return super().further_loss(k, views, labelled)
        network = (self.model, self.peer)[k]
        unlabelled = int((~labelled).sum())
        # two images at least, for batch norm; those beyond the unlabelled ones have no part in the loss
        rows = labelled.to(torch.uint8).argsort(stable=True)[: max(unlabelled, 2)]
        pair = views[rows, :2]
        with inputs_of(classifier_head(network, self.head, "UNICON")) as found:
            network(pair.transpose(0, 1).flatten(0, 1))
        first, second = found[-1].unflatten(0, (2, len(rows)))[:, :unlabelled]
        return self.contrastive_weight * self.contrastive[k](first, second)

    def _warm_up(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        # DistributedDataParallel asks for a gradient of every parameter, also of those that rest
        resting = sum((p.sum() for p in self.contrastive.parameters()), torch.zeros((), device=self.device))
        return super()._warm_up(batch, batch_idx) + 0 * resting
