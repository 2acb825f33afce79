"""DMI: the mutual information of predictions and labels that noise only scales."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from medbolt.noisy.losses.targets import log_probability


class DeterminantMutualInformationLoss(nn.Module):
    r"""Maximise the determinant of the joint distribution of labels and predictions.

    .. math:: \ell = -\log\left(K^K \lvert \det U \rvert + \epsilon\right), \qquad
        U = \frac{1}{B} \sum_i e_{y_i} p_i^\top

    Noise that depends on the class only multiplies the determinant by :math:`\det T`, so it shifts the loss and changes
    no gradient. Permuting the classes of the predictions changes nothing either: train with cross entropy first, and
    fine-tune with this at a small learning rate.

    The loss belongs to a batch: there are no per-sample values and no ``reduction``, and objective callbacks, which
    need per-sample losses, refuse it. Batches must be much larger than K. A class without a label in the batch makes
    the determinant 0: the loss is then :math:`-\log \epsilon` and teaches nothing. With several processes U is, in
    training mode, that of all of them, so they learn what one process with their batches together would.

    Args:
        epsilon: Keeps the logarithm finite, in units of the determinant of a perfect prediction of balanced classes.

    Shapes:
        logits (B, K, ...) float; target (B, ...) int64 class indices or (B, K, ...) float probabilities; output ().

    Raises:
        ValueError: if ``epsilon`` is not positive.

    State, cost: none; one softmax, one (K, B) by (B, K) product, one determinant.

    Source: Xu et al., arXiv 1909.03388, eq. 9. Public code adds its 0.001 to :math:`\lvert \det U \rvert` itself, which
    for 10 classes is at most 1e-10, so that next to no gradient is left; here the determinant is scaled to 1 first.

    Example:
        >>> loss = DeterminantMutualInformationLoss(epsilon=1e-6)
        >>> loss(torch.tensor([[20.0, -20.0], [-20.0, 20.0]]), torch.tensor([0, 1])).abs() < 1e-4  # perfect
        tensor(True)
    """

    one_class_a_sample = True

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"epsilon must be positive, got {epsilon}")
        self.epsilon = epsilon

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        p = log_probability(logits).exp().movedim(1, -1)
        classes = p.shape[-1]
        p = p.reshape(-1, classes)
        if target.is_floating_point():
            labels = target.to(p).movedim(1, -1).reshape(-1, classes)
        else:
            labels = nn.functional.one_hot(target.reshape(-1), classes).to(p)
        with torch.autocast(p.device.type, enabled=False):
            joint, size = labels.T @ p, labels.sum()
            if self.training and dist.is_available() and dist.is_initialized():
                joint, size = all_reduce(joint), all_reduce(size)
            joint = joint * (classes / size)
            return -torch.log(torch.linalg.det(joint).abs() + self.epsilon)
