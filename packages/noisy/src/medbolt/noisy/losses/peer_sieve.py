"""CORES2: cross entropy that rewards confidence, and drops the samples it is not confident of."""

from collections.abc import Sequence

import torch
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
    those that count.

    Under symmetric noise of rate :math:`\rho` and equal frequencies, :math:`\beta = \rho K / (K - 1)` makes the
    expected loss proportional to cross entropy with clean labels. Above it the loss has no lower bound: divide the
    learning rate by :math:`1 + \beta_t`, as the authors do, and with few classes choose ``beta`` much below their 2 for
    ten classes.

    Args:
        beta: Final weight of the regularizer.
        warmup_epochs: Epochs of plain cross entropy.
        ramp_epochs: Epochs in which the weight rises.
        sieve_epoch: First epoch (from 0) that sieves; ``None`` never sieves.
        class_counts: Training samples labelled as each class, for the label frequencies :math:`\pi`. Without them (from
            the user or from :class:`~medbolt.core.ClassificationTask`) all classes count alike.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. Sieved samples have the value 0 and the others are scaled up, so
            that the mean over the batch is the mean over those that count; it is 0 where none does.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if an argument is negative.
        UserError: at the call, if :meth:`set_epoch` was never called, or there are counts of other than C classes.

    State, cost: the epoch and the label frequencies; one softmax.

    Source: Cheng et al., arXiv 2010.02347, eq. 4 and 5, with the schedule of the authors' code for 100 epochs. The code
    re-estimates the label frequencies each epoch over the samples that pass; the loss alone cannot, so here they are
    those of all training labels unless :meth:`set_class_counts` is called again.

    Example:
        >>> loss = PeerSieveLoss(beta=2, warmup_epochs=0, ramp_epochs=1, sieve_epoch=1, reduction="none")
        >>> loss.set_epoch(1)
        >>> loss(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))  # 2 * (0.1269 - 2 * 1.1269), and sieved
        tensor([-4.2539, -0.0000])
    """

    def __init__(
        self,
        beta: float = 2.0,
        warmup_epochs: int = 10,
        ramp_epochs: int = 30,
        sieve_epoch: int | None = 31,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if min(beta, warmup_epochs, ramp_epochs, sieve_epoch or 0) < 0:
            raise ValueError("beta, warmup_epochs, ramp_epochs and sieve_epoch must not be negative")
        self.beta, self.warmup_epochs, self.ramp_epochs = beta, warmup_epochs, ramp_epochs
        self.sieve_epoch, self.reduction = sieve_epoch, reduction
        self.epoch: int | None = None
        self._counts_are_given = class_counts is not None
        self._class_counts = None if class_counts is None else torch.tensor(class_counts, dtype=torch.float64)

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch begins, from 0."""
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
            losses = losses * kept * (kept.numel() / kept.sum().clamp(min=1))
        return reduce(losses, self.reduction)

    def _mean_over_labels(self, log_p: Tensor) -> Tensor:
        counts = self._class_counts
        if counts is None:
            return log_p.mean(1)
        if len(counts) != log_p.shape[1]:
            raise UserError(
                f"PeerSieveLoss has counts of {len(counts)} classes and logits of {log_p.shape[1]}; give "
                "class_counts one entry a class."
            )
        frequencies = (counts / counts.sum()).to(log_p)
        return (log_p.movedim(1, -1) * frequencies).sum(-1)
