"""Post-hoc logit adjustment: take the training frequencies of the classes out of a trained network's logits."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.longtail.losses.inputs import hidden, precise
from medbolt.longtail.posthoc.base import PosthocCallback
from medbolt.longtail.posthoc.selection import accuracies

GRID = tuple(step / 10 for step in range(31))
"""0, 0.1, ..., 3; the authors try 0 to 2, extreme ratios may need more."""


class PosthocLogitAdjustment(PosthocCallback):
    r"""Predict with the logits of a network trained by cross entropy, less the log frequencies of its classes.

    .. math:: z'_c = z_c - \tau \log \pi_c + \log \pi^{\text{test}}_c

    It works in ``validate``, ``test`` and ``predict`` on any LightningModule. With ``tau=None`` tau is tuned on the
    validation split: it is the value of the grid with the highest balanced accuracy, or with a ``test_prior`` the
    highest accuracy under it (:func:`~medbolt.longtail.shifted_prior_accuracy`), of equals the smallest. Inside
    ``fit`` the module sees the network's own logits; after each validation ``val/posthoc_tau`` and
    ``val/posthoc_balanced_accuracy``, or ``val/posthoc_shifted_prior_accuracy``, are logged, to select a checkpoint by.
    A checkpoint keeps counts and tau; for weights without a tuned tau it is tuned at the start of the evaluation, where
    the network must take the batch's image as it is: put normalisation into the transform or the network. Put
    EvaluationHead and ExpertAggregation before it in the callbacks; with them each evaluation tunes tau.

    Never use it on top of :class:`~medbolt.longtail.LogitAdjustedLoss` or
    :class:`~medbolt.longtail.BalancedSoftmaxLoss`, which put the frequencies right already: with ``tau=0`` and a
    ``test_prior`` it then serves to go on from there to other frequencies.

    Args:
        tau: Strength; 1 is what theory has for calibrated networks, ``None`` is tuned.
        test_prior: Frequencies of the classes to be expected, any positive scale; by default equal ones. A class of
            frequency 0 is never predicted.
        class_counts: Training samples of each class; by default those of the data module of ``fit`` or what the
            checkpoint tells. An evaluation without either asks its own data module, each time.
        grid: What is tried if tau is ``None``.
        network: Attribute of the module (dotted) whose output are the logits, (B, C), or (B,) or (B, 1) of two classes;
            ``"self"`` for the module itself.

    Raises:
        ValueError: if the grid is empty, or the test prior negative or zero.
        UserError: if there is no such network, the class counts are not known or do not fit its logits, there is
            nothing to tune on, or tau is free and a callback that changes the network comes after this one.

    State, cost: tau and the counts, in checkpoints. Tuning keeps the logits of the validation split.

    Source: Menon et al., arXiv 2007.07314. A class without training samples is never predicted; its adjusted logit
    would be infinite, and the highest.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> adjustment = PosthocLogitAdjustment(tau=None)
        >>> trainer = Trainer(callbacks=[adjustment], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        tau: float | None = 1.0,
        test_prior: Sequence[float] | None = None,
        class_counts: Sequence[int] | None = None,
        grid: Sequence[float] = GRID,
        network: str = "model",
    ) -> None:
        super().__init__(network)
        if not len(grid):
            raise ValueError("the grid must not be empty")
        if test_prior is not None and (min(test_prior) < 0 or not any(test_prior)):
            raise ValueError(f"test_prior must not be negative nor all zero, got {list(test_prior)}")
        self.tau, self.grid = tau, sorted(grid)
        self.test_prior = None if test_prior is None else list(test_prior)
        self.class_counts = None if class_counts is None else list(class_counts)
        self._is_fixed, self._counts_are_given = tau is not None, class_counts is not None
        self._counts_are_of_training = False  # from fit or a checkpoint

    @property
    def needs_tuning(self) -> bool:
        """Whether tau is free."""
        return not self._is_fixed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch the network and take the data's class counts."""
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        if self._counts_are_given or (stage != "fit" and self._counts_are_of_training):
            return
        if stage != "fit":
            self.class_counts = None  # those of an earlier evaluation may be of other data
        # a test may lack the training data; then the checkpoint tells
        with nullcontext() if stage == "fit" else suppress(UserError):
            if (counts := getattr(data, "class_counts", None)) is not None:
                self.class_counts = list(counts)
                self._counts_are_of_training = stage == "fit"

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return adjusted logits."""
        assert self.tau is not None
        return adjust_logits(logits, self._known_counts(logits.shape[1]), self.tau, self.test_prior)

    def tune(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Choose tau, or score the one that was given."""
        counts = self._known_counts(logits.shape[1])
        grid = [self.tau] if self._is_fixed and self.tau is not None else self.grid
        predictions = (adjust_logits(logits, counts, tau, self.test_prior).argmax(1) for tau in grid)
        scores = accuracies(predictions, target, logits.shape[1], self.test_prior)
        best = int(scores.argmax())
        self.tau = grid[best]
        name = "balanced_accuracy" if self.test_prior is None else "shifted_prior_accuracy"
        return {"tau": self.tau, name: float(scores[best])}

    def state_dict(self) -> dict[str, Any]:
        """Return tau and the counts."""
        return {**super().state_dict(), "tau": self.tau, "class_counts": self.class_counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them, but for what the user gave."""
        super().load_state_dict(state_dict)
        if not self._is_fixed:
            self._is_tuned = self._is_tuned and state_dict["tau"] is not None
            self.tau = state_dict["tau"]
        if not self._counts_are_given and state_dict["class_counts"] is not None:
            self.class_counts, self._counts_are_of_training = state_dict["class_counts"], True

    def _known_counts(self, num_classes: int) -> list[int]:
        counts = self.class_counts
        if counts is None:
            raise UserError(
                "PosthocLogitAdjustment does not know how many training samples each class has; pass "
                "class_counts=[...] or a data module with class_counts."
            )
        if len(counts) != num_classes or len(self.test_prior or counts) != num_classes:
            raise UserError(
                f"PosthocLogitAdjustment has {len(counts)} class_counts and {len(self.test_prior or counts)} entries "
                f"of test_prior, but '{self.network}' gives {num_classes} logits; give one a class."
            )
        return counts


def adjust_logits(
    logits: Tensor, class_counts: Sequence[int], tau: float = 1.0, test_prior: Sequence[float] | None = None
) -> Tensor:
    r"""Return :math:`z_c - \tau \log \pi_c + \log \pi^{\text{test}}_c`.

    Args:
        logits: (B, C) float.
        class_counts: Training samples of each class, of which :math:`\pi` are the shares; the logit of a class without
            any becomes the lowest.
        tau: Strength.
        test_prior: Frequencies of the classes to be expected, any scale; by default equal ones.

    Returns:
        (B, C) float32, or float64 where the logits are.

    Raises:
        UserError: if there is not one entry of ``class_counts`` and of ``test_prior`` a class.

    Example:
        >>> adjust_logits(torch.zeros(1, 3), [60, 30, 10]).softmax(1)
        tensor([[0.1111, 0.2222, 0.6667]])
    """
    for name, values in (("class_counts", class_counts), ("test_prior", test_prior)):
        if values is not None and len(values) != logits.shape[-1]:
            raise UserError(
                f"adjust_logits has {len(values)} {name}, but {logits.shape[-1]} logits a sample; give one a class."
            )
    logits = precise(logits)
    counts = torch.as_tensor(class_counts, dtype=logits.dtype, device=logits.device)
    shift, never = -tau * (counts / counts.sum()).log(), counts == 0
    if test_prior is not None:
        prior = torch.as_tensor(test_prior, dtype=logits.dtype, device=logits.device)
        shift, never = shift + (prior / prior.sum()).log(), never | (prior == 0)
    return hidden(logits + shift.masked_fill(never, 0.0), never)
