"""Which training samples are labelled right, told from how large their losses are."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.memory import SampleMemory
from medbolt.core.objective.training_pass import training_pass
from medbolt.core.randomness import derive_seed
from medbolt.noisy.dividemix.thresholds import log_frequency_thresholds

_LEAST = 0.01  # share of the samples that is taken when none passes


class Split:
    """What each of two networks makes of every training sample; the same on every process, kept in checkpoints.

    Args:
        threshold: Probability in [0, 1) above which a sample is labelled.
        class_threshold: ``"log_freq"`` replaces it by :func:`log_frequency_thresholds`.
        t_head: Of the most frequent class.
        t_tail: Of the rarest class.
        averaged_epochs: Epochs whose losses are averaged.
        seed: Of the fits.
    """

    def __init__(
        self,
        threshold: float,
        class_threshold: Literal["log_freq"] | None,
        t_head: float,
        t_tail: float,
        averaged_epochs: int,
        seed: int,
    ) -> None:
        if not all(0 <= share < 1 for share in (threshold, t_head, t_tail)):
            raise ValueError(f"threshold, t_head and t_tail must be in [0, 1), got {threshold}, {t_head} and {t_tail}")
        if class_threshold not in ("log_freq", None):
            raise ValueError(f"class_threshold must be 'log_freq' or None, got {class_threshold!r}")
        if averaged_epochs < 1:
            raise ValueError(f"averaged_epochs must be at least 1, got {averaged_epochs}")
        self.threshold, self.class_threshold, self.t_head, self.t_tail = threshold, class_threshold, t_head, t_tail
        self.averaged_epochs, self.seed = averaged_epochs, seed
        self.memory = SampleMemory(1)

    def prepare(self, data: Any) -> None:
        """Make room for a data module's training samples."""
        self.memory = memory_of(
            data,
            "DivideMix",
            loss=torch.full((2, self.averaged_epochs), torch.nan),
            clean=torch.zeros(2),
            labelled=torch.zeros(2, dtype=torch.bool),
        )

    def update(self, trainer: Trainer, module: LightningModule, networks: Sequence[nn.Module], classes: int) -> None:
        """Evaluate the training set and fit anew; all processes call together."""

        def evaluate(batch: dict[str, Any]) -> dict[str, Tensor]:
            target = hard_label(batch["target"])
            logits = [network(batch["image"]).float() for network in networks]
            losses = [F.cross_entropy(each, target, reduction="none") for each in logits]
            return {"loss": torch.stack(losses, 1), "label": target}

        fields = {"loss": torch.full((2,), torch.nan), "label": torch.tensor(0)}
        found = training_pass(trainer, module, evaluate, "losses of the training set", **fields)
        latest = torch.stack([normalized(losses) for losses in found["loss"].T], 1)
        history = torch.cat([self.memory["loss"], latest[:, :, None]], 2)[:, :, 1:]
        # one process fits: what another machine makes of the same losses may differ in the last digits
        divided = self._fit(history, found, classes, trainer.current_epoch) if trainer.is_global_zero else None
        clean, labelled = trainer.strategy.broadcast(divided)  # pyright: ignore[reportGeneralTypeIssues]
        self.memory.fields = {"loss": history, "clean": clean, "labelled": labelled}
        self.memory.to(module.device)

    def _fit(self, history: Tensor, found: SampleMemory, classes: int, epoch: int) -> tuple[Tensor, Tensor]:
        mean, label = history.nanmean(2).cpu(), found["label"].cpu()
        threshold: Tensor | float = self.threshold
        if self.class_threshold is not None:
            counts = torch.bincount(label[found.seen.cpu()], minlength=classes)
            threshold = log_frequency_thresholds(counts, self.t_head, self.t_tail)[label]
        clean = [clean_probability(mean[:, k], derive_seed(self.seed, epoch, k)) for k in range(2)]
        labelled = [confident(w, threshold, mean[:, k].isfinite()) for k, w in enumerate(clean)]
        return torch.stack(clean, 1).float(), torch.stack(labelled, 1)


def memory_of(data: Any, asker: str, **fields: Tensor) -> SampleMemory:
    """Return a memory of a data module's training samples.

    Args:
        data: The data module.
        asker: Who asks, for the message.
        fields: By name, the row that every sample starts with.

    Raises:
        UserError: if the data do not say what they are.
    """
    if not hasattr(data, "train_size"):
        raise UserError(
            f"{asker} looks at every training sample between epochs, but the data do not say which there are; pass one "
            "of medbolt's data modules, datamodule=..."
        )
    memory = SampleMemory(data.train_size, **fields)
    memory.fingerprint = data.fingerprint
    return memory


def hard_label(target: Tensor) -> Tensor:
    """Return class indices, (B,): of soft targets the most probable class."""
    return target.argmax(1) if target.ndim == 2 else target


def normalized(losses: Tensor) -> Tensor:
    """Return losses scaled to [0, 1] over the finite ones; NaN where a loss is not finite.

    Args:
        losses: (N,) float.

    Example:
        >>> normalized(torch.tensor([3.0, torch.inf, 1.0, 2.0]))
        tensor([1.0000,    nan, 0.0000, 0.5000])
    """
    finite = losses.isfinite()
    if not finite.any():
        return torch.full_like(losses, torch.nan)
    smallest, largest = losses[finite].aminmax()
    scaled = (losses - smallest) / (largest - smallest).clamp(min=torch.finfo(losses.dtype).tiny)
    return torch.where(finite, scaled, torch.nan)


def clean_probability(losses: Tensor, seed: int) -> Tensor:
    """Return the probability of each sample to belong to the smaller losses: of a mixture of two Gaussians.

    Where losses tell nothing, because they are all equal or there is only one, it is 1.

    Args:
        losses: (N,) float, normalised; those that are not finite are left out, and their probability is 0.
        seed: Of the mixture's start.

    Returns:
        (N,) float64 on the CPU.

    Example:
        >>> clean_probability(torch.tensor([0.0, 0.1, 0.1, 0.9, 1.0, torch.nan]), seed=0).round()
        tensor([1., 1., 1., 0., 0., 0.], dtype=torch.float64)
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    losses = losses.detach().double().cpu()
    finite = losses.isfinite()
    probability = finite.double()
    if not finite.any() or losses[finite].min() == losses[finite].max():
        return probability
    column = losses[finite, None].numpy()
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are the method's
        mixture.fit(column)
    means: Any = mixture.means_
    probability[finite] = torch.from_numpy(mixture.predict_proba(column)[:, means.argmin()])
    return probability


def confident(probability: Tensor, threshold: Tensor | float, among: Tensor) -> Tensor:
    """Return which samples pass, (N,) bool; the most probable hundredth of them, at least one, if none does.

    Args:
        probability: (N,) float.
        threshold: What the probability must exceed: a number, or (N,).
        among: (N,) bool, the samples there are.

    Example:
        >>> confident(torch.tensor([0.3, 0.2, 0.4]), 0.5, torch.tensor([True, True, False]))
        tensor([ True, False, False])
    """
    passing = (probability > threshold) & among
    if not passing.any():
        best = torch.where(among, probability, -torch.inf).topk(math.ceil(_LEAST * int(among.sum()))).indices
        passing[best] = True
    return passing
