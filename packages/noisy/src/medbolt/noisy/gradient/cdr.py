"""CDR: let only the weights that matter learn, and let the others decay."""

from itertools import accumulate

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from medbolt.core.errors import UserError
from medbolt.core.randomness import derive_seed

_STRIDE = 101  # about 1 %, and a prime, so that samples fall on every place of a kernel


class CDR(Callback):
    r"""Keep the gradient of the critical weights only, those of largest gradient times weight.

    .. math::
        g_j \leftarrow c_t\, g_j \,\mathbb{1}\bigl[\,|g_j w_j| \ge \tau_t\,\bigr], \qquad
        c_t = 1 - \rho \min\Bigl(\frac{t}{T_g - 1}, 1\Bigr)

    where :math:`\tau_t` is such that a share :math:`c_t` of all weights passes. A network of more weights than it needs
    uses some to generalise and the rest to memorise wrong labels; the rest get no gradient, and weight decay shrinks
    them. So **weight decay is part of the method** (the authors use 1e-3 with SGD 0.01, momentum 0.9), and so is early
    stopping on noisy validation data: keep the best checkpoint by a validation metric. Momentum still moves a weight
    that has just lost its gradient.

    Weights are those of two and four dimensions, of linear layers and convolutions; biases and normalisation learn as
    ever. The criterion stays what it is. Of a method with two networks only the module's own is masked.

    Args:
        noise_rate: Share :math:`\rho` of weights that end without gradient, in [0, 1): the rate of the noise.
        gradual_epochs: Epochs :math:`T_g` until that share is reached.
        network: Attribute of the network, dotted if nested; ``"self"`` for the whole module.
        per_tensor: Choose the share within each weight tensor, not among all together.
        approximate: Find the threshold from a sample of about 1 % of the weights, another one each step, the same on
            all processes. Networks of fewer than 100,000 weights (tensors, with ``per_tensor``) are ranked exactly.
        seed: Seed of the sample.

    Raises:
        ValueError: if an argument is out of range.
        UserError: at ``fit``, if the network attribute does not exist or has no such weights, or the strategy splits
            the network over processes.

    State, cost: none beyond the epoch; a selection among all weights a step, on their device and without waiting for
    it. With several optimizers each ranks its own weights. All processes of DistributedDataParallel find the same.

    Source: Xia et al., *Robust early-learning: hindering the memorization of noisy labels*, ICLR 2021, with the
    schedule of its code, which scales the gradients it keeps by the share. The sample and the choice by tensor are
    ours.

    Example:
        >>> callback = CDR(noise_rate=0.4)
        >>> [callback.share(epoch) for epoch in (0, 9, 30)]
        [1.0, 0.6, 0.6]
    """

    def __init__(
        self,
        noise_rate: float,
        gradual_epochs: int = 10,
        network: str = "model",
        per_tensor: bool = False,
        approximate: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 <= noise_rate < 1:
            raise ValueError(f"noise_rate must be in [0, 1), got {noise_rate}")
        if gradual_epochs < 0:
            raise ValueError(f"gradual_epochs must not be negative, got {gradual_epochs}")
        self.noise_rate, self.gradual_epochs, self.network = noise_rate, gradual_epochs, network
        self.per_tensor, self.approximate, self.seed = per_tensor, approximate, seed
        self._weights: dict[int, nn.Parameter] = {}

    def share(self, epoch: int) -> float:
        """Return the share of weights that learn in an epoch, and the factor on their gradients."""
        if epoch >= self.gradual_epochs:
            return 1 - self.noise_rate
        return 1 - self.noise_rate * epoch / max(self.gradual_epochs - 1, 1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights."""
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            raise UserError(
                f"CDR ranks the weights of the whole network, of which {type(trainer.strategy).__name__} gives each "
                "process a part; use strategy='ddp'."
            )
        try:
            network = pl_module if self.network == "self" else pl_module.get_submodule(self.network)
        except AttributeError:
            raise UserError(
                f"{type(pl_module).__name__} has no network '{self.network}' for CDR; name its attribute, "
                "network='net' for instance, or 'self' for the whole module."
            ) from None
        # frozen ones too, which may learn later
        self._weights = {id(p): p for p in network.parameters() if p.ndim in (2, 4)}
        if not self._weights:
            raise UserError(
                f"network '{self.network}' of {type(pl_module).__name__} has no weights of linear layers or "
                "two-dimensional convolutions for CDR to choose from; name another network, or leave CDR out."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Mask the gradients, which are whole (not scaled, and averaged over processes) by now."""
        share = self.share(trainer.current_epoch)
        held = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._weights]
        weights = [p for p in held if p.grad is not None]
        if not weights or share == 1:
            return
        for together in [[p] for p in weights] if self.per_tensor else [weights]:
            scores = [_score(p) for p in together]
            threshold = self._threshold(scores, share, trainer.global_step)
            for p, score in zip(together, scores, strict=True):
                assert p.grad is not None
                p.grad.mul_(share).masked_fill_(score < threshold, 0)

    def _threshold(self, scores: list[Tensor], share: float, step: int) -> Tensor:
        """Return the score that the share of all scores reaches."""
        ends = list(accumulate((score.numel() for score in scores), initial=0))
        flat = [score.flatten() for score in scores]
        if self.approximate and ends[-1] >= 1000 * _STRIDE:
            offset = derive_seed(self.seed, step) % _STRIDE
            # every 101st of all weights in a row
            flat = [score[(offset - begin) % _STRIDE :: _STRIDE] for score, begin in zip(flat, ends[:-1], strict=True)]
        ranked = torch.cat(flat)
        kept = max(int(share * len(ranked)), 1)
        if ranked.device.type == "cpu":  # NumPy selects many times faster than torch, but not among equal values
            ranked = ranked[ranked != 0]
            place = len(ranked) - kept
            found = np.partition(ranked.numpy(), place)[place] if place >= 0 else 0.0
            return torch.tensor(found, dtype=ranked.dtype)
        return ranked.topk(kept, sorted=False).values.amin()  # kthvalue is not deterministic on CUDA


def _score(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return (parameter.grad.detach().float() * parameter.detach().float()).abs()
