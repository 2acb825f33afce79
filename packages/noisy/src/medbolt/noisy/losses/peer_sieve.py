"""CORES2: cross entropy that rewards confidence, and drops the samples it is not confident of."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability


class PeerSieveLoss(nn.Module):
    r"""COnfidence REgularized Sample Sieve (CORES2): subtract the mean loss over labels, later sieve by it.

    .. math:: \ell_i = -\log p_{i,y_i} + \beta_t \sum_k \pi_k \log p_{ik}

    The regularizer makes the network decide, against wrong labels if need be. :math:`\beta_t` is 0 for the first
    epochs, then rises linearly to ``beta``. From ``sieve_epoch`` on, a sample counts only while the network expects its
    label more than the average one, :math:`-\log p_{i,y_i} \le -\frac{1}{K} \sum_k \log p_{ik}`, and the mean is over
    those that count. The label frequencies :math:`\pi` of the epoch after are those of the samples that counted.

    Under symmetric noise of rate :math:`\rho` and equal frequencies, :math:`\beta = \rho K / (K - 1)` makes the
    expected loss proportional to cross entropy with clean labels. Above it the loss has no lower bound: divide the
    learning rate by :math:`1 + \beta_t`, as the authors do, and with few classes choose ``beta`` much below their 2 for
    ten classes.

    Args:
        beta: Final weight of the regularizer.
        warmup_epochs: Epochs of plain cross entropy.
        ramp_epochs: Epochs in which the weight rises.
        sieve_epoch: First epoch (from 0) that sieves; ``None`` never sieves.
        class_counts: Training samples labelled as each class, for the label frequencies until an epoch was sieved.
            Without them (from the user or from :class:`~medbolt.core.ClassificationTask`) all classes count alike.
        reestimate: Whether to estimate the label frequencies anew after each epoch that was sieved.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. Sieved samples have the value 0 and the others are scaled up, so
            that the mean over the batch is the mean over those that count; it is 0 where none does.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if an argument is negative.
        UserError: at the call, if :meth:`set_epoch` was never called, or there are counts of other than C classes.

    State, cost: the epoch, the label frequencies, and counts of the labels that pass in this epoch, which
    :class:`~medbolt.noisy.CriterionEpoch` puts into checkpoints; one softmax. In training mode with several processes
    the mean and the frequencies are over the samples of all that count, so they learn what one process with their
    batches together would; each call of the sieve then waits for all. What asks for the loss twice in a batch (a second
    network, MixUp) has every answer counted.

    Source: Cheng et al., arXiv 2010.02347, eq. 4 and 5, with the schedule of the authors' code for 100 epochs. Samples
    are counted as they come by in training, with the network as it is then. If none passes in an epoch, the frequencies
    stay.

    Example:
        >>> loss = PeerSieveLoss(beta=2, warmup_epochs=0, ramp_epochs=1, sieve_epoch=1, reduction="none")
        >>> loss.set_epoch(1)
        >>> loss(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))  # 2 * (0.1269 - 2 * 1.1269), and sieved
        tensor([-4.2539, -0.0000])
    """

    one_class_a_sample = True

    def __init__(
        self,
        beta: float = 2.0,
        warmup_epochs: int = 10,
        ramp_epochs: int = 30,
        sieve_epoch: int | None = 31,
        class_counts: Sequence[int] | None = None,
        reestimate: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if min(beta, warmup_epochs, ramp_epochs, sieve_epoch or 0) < 0:
            raise ValueError("beta, warmup_epochs, ramp_epochs and sieve_epoch must not be negative")
        self.beta, self.warmup_epochs, self.ramp_epochs = beta, warmup_epochs, ramp_epochs
        self.sieve_epoch, self.reestimate, self.reduction = sieve_epoch, reestimate, reduction
        self.epoch: int | None = None
        # no buffers: DistributedDataParallel would overwrite what a process counts with what process 0 does
        self.passed: Tensor | None = None
        """(C,) float32: labels that passed in this epoch, on this process."""
        self.estimated: Tensor | None = None
        """(C,) float32: the same of the last epoch, on all processes."""
        self._counts_are_given = class_counts is not None
        self._class_counts = None if class_counts is None else torch.tensor(class_counts, dtype=torch.float64)

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch begins, from 0; all processes call together. Going back begins anew."""
        if self.epoch is not None and epoch < self.epoch:
            self.passed = self.estimated = None
        elif epoch != self.epoch and self.passed is not None:
            passed, self.passed = _of_all_processes(self.passed), None
            self.estimated = passed if passed.any() else self.estimated
        self.epoch = epoch

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Tell how many training samples have each label; counts given by the user stay."""
        if not self._counts_are_given:
            self._class_counts = torch.tensor(class_counts, dtype=torch.float64)

    @property
    def weight(self) -> float:
        """Weight of the regularizer in this epoch."""
        if self.epoch is None:
            raise UserError("PeerSieveLoss does not know the epoch; call its set_epoch(epoch) before each epoch.")
        return self.beta * min(max(self.epoch - self.warmup_epochs, 0) / max(self.ramp_epochs, 1), 1.0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = log_probability(logits)
        label = expected(log_p, target)
        losses = self.weight * self._mean_over_labels(log_p) - label
        if self.epoch is not None and self.sieve_epoch is not None and self.epoch >= self.sieve_epoch:
            kept = label.detach() >= log_p.detach().mean(1)
            losses = losses * kept * self._scale(kept)
            if self.reestimate and self._learns:
                passed = _counts(target, kept, log_p.shape[1])
                self.passed = passed if self.passed is None else self.passed.to(passed) + passed
        return reduce(losses, self.reduction)

    @property
    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _scale(self, kept: Tensor) -> Tensor:
        """Return what makes the mean over the batch one over the samples kept, those of all processes in training."""
        number, world = kept.sum(), 1
        if self._learns and dist.is_available() and dist.is_initialized():
            number, world = _of_all_processes(number), dist.get_world_size()
        return kept.numel() * world / number.clamp(min=1)

    def _mean_over_labels(self, log_p: Tensor) -> Tensor:
        counts = self._class_counts if self.estimated is None else self.estimated
        if counts is None:
            return log_p.mean(1)
        if len(counts) != log_p.shape[1]:
            raise UserError(
                f"PeerSieveLoss has counts of {len(counts)} classes and logits of {log_p.shape[1]}; give "
                "class_counts one entry a class."
            )
        frequencies = (counts / counts.sum()).to(log_p)
        return (log_p.movedim(1, -1) * frequencies).sum(-1)


def _counts(target: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Return how often each class is the label of a sample kept, (C,) float32; soft targets count by their mass."""
    if target.is_floating_point():
        return (target.detach().float().movedim(1, -1) * kept.unsqueeze(-1)).flatten(0, -2).sum(0)
    counts = torch.zeros(num_classes, device=target.device, dtype=torch.float32)
    return counts.scatter_add_(0, target.flatten(), kept.flatten().float())


def _of_all_processes(values: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values
