"""The learning rate and the momentum that Co-teaching and its kin are trained with."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class CoTeachingSchedule(LRScheduler):
    r"""Lower Adam's learning rate linearly to 0 in the later epochs, and its momentum with it.

    .. math::
        \eta_t = \eta_0 \min\left(1, \frac{T - t}{T - t_0}\right), \qquad
        \beta_1 = \beta_{\text{late}} \text{ for } t \ge t_0

    It steps once an epoch.

    Args:
        optimizer: Adam or one of its kin.
        total_epochs: Epoch T at which the learning rate is 0: the length of the run.
        decay_start: Epoch :math:`t_0`, from 0, at which the decay starts, below ``total_epochs``. The authors take 80
            of 200, LNMBench 20 of 50.
        late_beta1: Adam's :math:`\beta_1` from then on, in [0, 1). ``None`` leaves it, and admits any optimizer.
        last_epoch: Epochs done; -1 for a new run.

    Raises:
        ValueError: if an argument is out of its range, or the optimizer has no ``betas`` to set.

    State, cost: the epoch and the first learning rate, in the checkpoint as of any scheduler.

    Source: the code of Han et al., arXiv 1804.06872.

    Example:
        >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.001)
        >>> schedule = CoTeachingSchedule(optimizer, total_epochs=50, decay_start=20)
        >>> for _ in range(35):
        ...     optimizer.step()
        ...     schedule.step()
        >>> schedule.get_last_lr(), optimizer.param_groups[0]["betas"]
        ([0.0005], (0.1, 0.999))
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_epochs: int,
        decay_start: int,
        late_beta1: float | None = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= decay_start < total_epochs:
            raise ValueError(f"decay_start must be in [0, total_epochs), got {decay_start} of {total_epochs}")
        if late_beta1 is not None:
            if not 0 <= late_beta1 < 1:
                raise ValueError(f"late_beta1 must be in [0, 1), got {late_beta1}")
            if any("betas" not in group for group in optimizer.param_groups):
                raise ValueError(f"{type(optimizer).__name__} has no betas; use Adam, or late_beta1=None")
        self.total_epochs, self.decay_start, self.late_beta1 = total_epochs, decay_start, late_beta1
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rates of this epoch."""
        left = (self.total_epochs - self.last_epoch) / (self.total_epochs - self.decay_start)
        return [base * min(1.0, max(0.0, left)) for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch."""
        super().step(epoch)
        if self.late_beta1 is not None and self.last_epoch >= self.decay_start:
            for group in self.optimizer.param_groups:
                group["betas"] = (self.late_beta1, *group["betas"][1:])
