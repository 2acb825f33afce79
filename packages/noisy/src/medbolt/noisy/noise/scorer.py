"""Noise as LNMBench makes it: labels flip to what a trained classifier would confuse."""

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from tqdm import tqdm

from medbolt.core.data.transforms import EvaluationTransform
from medbolt.core.errors import UserError
from medbolt.noisy.noise.base import Labelled, LabelNoise, check_rate, flip_by_score, flip_rates


class ScorerNoise(LabelNoise):
    r"""Flip each label at its own rate, to a class by the probabilities that a classifier gives the wrong ones.

    .. math:: q_i \sim \mathcal{N}_{[0, 1]}(\rho, \sigma^2), \quad
        P_i = q_i \operatorname{softmax}_{k \ne y_i}(z_i / \tau) + (1 - q_i)\, e_{y_i}

    with the classifier's logits :math:`z_i`. A good classifier confuses each picture with one class only, so that at
    rates above 1/2 its labels are wrong consistently.

    Args:
        scorer: Network from images (B, 3, H, W) to logits (B, K), trained on clean labels.
        rate: Mean :math:`\rho` of the flip rates before truncation, in [0, 1]; 0 flips nothing. Near 0 and 1 truncation
            moves the mean inwards: with ``std=0.1`` a rate of 0.05 flips 10 %, and 1 flips 92 %.
        std: Standard deviation :math:`\sigma` of the flip rates before truncation.
        temperature: :math:`\tau`: the lower, the more a picture has just one wrong label.
        transform: What the network expects to be done to a picture; by default
            :class:`~medbolt.core.EvaluationTransform`.
        batch_size: Pictures scored at a time.

    Raises:
        ValueError: if ``rate`` is outside [0, 1], or another argument is not positive.
        UserError: at the call, if there are no images, or the logits are not of K classes.

    State, cost: none; one forward pass of the network a picture, on its device.

    Source: LNMBench, arXiv 2512.09315, as its code does it; its networks are not public.

    Example:
        >>> scorer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
        >>> noise = ScorerNoise(scorer, rate=0.4, transform=EvaluationTransform(8))
        >>> images = torch.randint(0, 256, (6, 3, 10, 10), dtype=torch.uint8)
        >>> noise(torch.tensor([0, 1, 2, 0, 1, 2]), num_classes=3, images=images).shape
        torch.Size([6])
    """

    def __init__(
        self,
        scorer: nn.Module,
        rate: float,
        std: float = 0.1,
        temperature: float = 1.0,
        transform: nn.Module | None = None,
        batch_size: int = 64,
    ) -> None:
        self.rate = check_rate(rate)
        for name, value in {"std": std, "temperature": temperature, "batch_size": batch_size}.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.scorer, self.transform = scorer, transform or EvaluationTransform()
        self.std, self.temperature, self.batch_size = std, temperature, batch_size

    def probabilities(self, samples: Labelled) -> Tensor:
        """Return the probabilities of the labels that each sample may get, (N, K) float64."""
        scores = self._logits(samples) / self.temperature
        return flip_by_score(samples.targets, scores, flip_rates(samples, self.rate, self.std))

    @torch.no_grad()
    def _logits(self, samples: Labelled) -> Tensor:
        was_training, pictures = self.scorer.training, samples.pictures
        device = next((p.device for p in self.scorer.parameters()), torch.device("cpu"))
        logits = torch.empty(len(samples.targets), samples.num_classes, dtype=torch.float64)
        batches = torch.arange(len(logits)).split(self.batch_size)
        self.scorer.eval()
        try:
            for rows in tqdm(batches, desc="scorer noise", disable=len(batches) < 2, leave=False):
                inputs = [self.transform({"image": tv_tensors.Image(pictures[i])})["image"] for i in rows.tolist()]
                output = self.scorer(torch.stack(inputs).as_subclass(Tensor).to(device))
                if output.shape != (len(rows), samples.num_classes):
                    raise UserError(
                        f"the scorer returned shape {tuple(output.shape)} for {len(rows)} images of "
                        f"{samples.num_classes} classes; give one that returns a logit a class."
                    )
                logits[rows] = output.double().cpu()
        finally:
            self.scorer.train(was_training)
        return logits
