"""DivideMix: two networks tell each other which labels to trust, and learn the other samples without their labels."""

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from medbolt.noisy.dividemix.semi_supervised_loss import SemiSupervisedLoss
from medbolt.noisy.dividemix.split import Split
from medbolt.noisy.dividemix.two_networks import TwoNetworkTask


class DivideMix(TwoNetworkTask):
    r"""Train two networks semi-supervised, each on the labels that the other one trusts.

    .. math::
        L_k = \frac{1}{|X_k|} \sum_{i \in X_k} \ell(t_i, p^k_i)
        + \frac{\lambda_u(t)}{|U_k|\, C} \sum_{i \in U_k} \lVert t_i - p^k_i \rVert^2
        + \sum_c \pi_c \log \frac{\pi_c}{\bar p^k_c}, \qquad L = L_1 + L_2

    After a warm-up with the criterion, before each epoch: a mixture of two Gaussians is fitted to a network's cross
    entropy of every training sample; :math:`w_i` is the probability of the component of smaller losses, and samples
    with :math:`w_i` above a threshold are labelled. Network 1 (``model``) trains with the w and X of network 2
    (``peer``), and the other way round. Targets are sharpened, for labelled samples :math:`w y + (1 - w) \bar p^k`, for
    the others the mean prediction of both networks, each over all views of the image. Images and targets are then mixed
    in pairs, all of the batch with each other. :math:`\lambda_u` rises linearly after the warm-up. ``forward`` is the
    mean of both networks' logits, and so are metrics and predictions.

    **How labelled and unlabelled samples reach the step.** A batch is what the data module draws, and each network
    looks up which of its samples count as labelled: means are over the labelled and the unlabelled ones of the batch of
    all processes. Both networks train in every step, with one optimizer and one backward pass. The published algorithm
    draws B of either kind for one network after the other, in ceil(labelled / B) steps. So a batch size of 2 B is its
    counterpart (it has 2 B in the warm-up too); where half the samples are labelled the number of steps is the same,
    and where few are there are more steps here, with fewer labelled samples in each. In return every sample is seen
    once an epoch and no loader is rebuilt: mixed precision, accumulation, DDP and resuming work as ever. Clipping by
    the norm sees one gradient of both networks. For the fit, a data module's training transform is applied twice to
    each image, unless it makes views already (:class:`~medbolt.core.MultiView`).

    Args:
        model: Network 1: image (B, 3, H, W) to logits (B, num_classes).
        num_classes: Number of classes. The command line takes it from the data.
        warmup_epochs: Epochs of training with the criterion; network 2 sees the second view.
        unlabelled_weight: Full :math:`\lambda_u`, not negative: 0 to 150, the more the more noise.
        rampup_epochs: Epochs in which it is reached; 0 for at once.
        threshold: Probability in [0, 1) above which a sample is labelled. If none is, the most probable 1 % are.
        class_threshold: ``"log_freq"`` replaces it by one a class, from ``t_tail`` for the rarest to ``t_head`` for the
            most frequent by the logarithm of the frequency, in [0.2, 0.95].
        t_head: See ``class_threshold``.
        t_tail: See ``class_threshold``.
        averaged_epochs: Epochs whose losses are averaged before the fit; the paper takes 5 for 90 % noise.
        temperature: T of sharpening, positive.
        alpha: Both parameters of the Beta distribution of mixtures, positive.
        prior: :math:`\pi`: ``"uniform"``; ``"labels"``, the frequencies of the training labels, for long tails; or
            ``None``, without the term.
        confidence_penalty: Weight of the negative entropy :math:`\sum_c p_c \log p_c` in the warm-up; 1 for asymmetric
            or instance-dependent noise.
        supervised_loss: :math:`\ell`: ``"ce"``, cross entropy with the mixed target; ``"sce"``, symmetric cross
            entropy with its most probable class.
        sce_alpha: Weight of cross entropy in ``"sce"``.
        sce_beta: Weight of reverse cross entropy in ``"sce"``.
        peer: Network 2, if it shall not be a copy of the first drawn anew.
        reinitialize: Dotted part of the copy to draw anew, ``""`` for all of it; of a pre-trained network the head.
        seed: Seed of the copy's weights, of the fits and of the mixtures.
        task: ``"multiclass"`` or ``"ordinal"``; see :class:`~medbolt.core.ClassificationTask`, as for what follows.
        criterion: The loss of the warm-up, and of validation and test; by default cross entropy.
        optimizer: Makes the optimizer from the parameters of both networks.
        scheduler: Makes the learning rate scheduler from the optimizer.
        scheduler_interval: Whether the scheduler steps each epoch or each optimizer step.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data are no data module, its batches are no dicts with ``image``, ``views``,
            ``target`` and ``index``, or it has no ``class_counts`` for ``prior="labels"``.

    State, cost: a second network; per sample the last ``averaged_epochs`` losses, w and the choice, of each network,
    in checkpoints. An epoch after the warm-up evaluates every sample once, and every view once, then trains on every
    view, each with both networks. Labels chosen are the same on any number of processes; mixtures, batch statistics and
    the mean prediction are of a process's batch. Resuming is exact, in mid-epoch too.

    Source: Li et al., arXiv 2002.07394. Besides the batches, predictions for targets are made in evaluation mode, where
    the authors' code updates batch statistics; losses that are not finite are left out of the fit, and their
    samples unlabelled. ``"sce"`` and ``"log_freq"`` are what LNMBench's code (arXiv 2512.09315) adds for fundus images,
    a reconstruction of the improvement announced in its paper, whose text we could not compare.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> task = DivideMix(network, num_classes=5, warmup_epochs=10, prior="labels")
        >>> task(torch.zeros(2, 3, 2, 2)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        warmup_epochs: int = 10,
        unlabelled_weight: float = 25.0,
        rampup_epochs: int = 16,
        threshold: float = 0.5,
        class_threshold: Literal["log_freq"] | None = None,
        t_head: float = 0.8,
        t_tail: float = 0.4,
        averaged_epochs: int = 1,
        temperature: float = 0.5,
        alpha: float = 4.0,
        prior: Literal["uniform", "labels"] | None = "uniform",
        confidence_penalty: float = 0.0,
        supervised_loss: Literal["ce", "sce"] = "ce",
        sce_alpha: float = 1.0,
        sce_beta: float = 1.0,
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
        self.split = Split(threshold, class_threshold, t_head, t_tail, averaged_epochs, seed)
        self.semi_supervised = SemiSupervisedLoss(supervised_loss, sce_alpha, sce_beta)
