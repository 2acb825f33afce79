r"""Diverse experts (RIDE): each learns the task by itself, and is rewarded for saying it differently."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import ObjectiveCallback, TrainingStep, UserError
from medbolt.longtail.experts.lookup import expert_logits, find_experts
from medbolt.longtail.losses.inputs import require_several_outputs
from medbolt.longtail.stages.counts import known_counts
from medbolt.longtail.stages.schedule import check_start, start_epoch


class DiverseExperts(ObjectiveCallback):
    r"""Train every expert with the module's criterion, and reward their distributions for being diverse (RIDE).

    .. math::
        \ell_i = \sum_{k=1}^{E} \ell(z_{k,i}, y_i) - \lambda \bar T^2 \sum_{k=1}^{E}
        \mathrm{KL}\big(\bar p_i \,\|\, p_{k,i}\big), \qquad
        p_{k,i} = \mathrm{softmax}(z_{k,i} / T), \quad \bar p_i = \mathrm{softmax}(\bar z_i / T) \\
        T_c = T_0\, \beta_c / \max_j \beta_j, \qquad \beta_c = 1 - \eta + \eta\, C \pi_c, \qquad
        \bar T = \tfrac1C \textstyle\sum_c T_c

    with the mean logits :math:`\bar z`. Logits of rare classes are divided by less, so experts differ more in them.
    The sum of divergences is :math:`-E \log \sum_c \prod_k p_{kc}^{1/E}`, and computed as that. At one temperature,
    :math:`T_c = 1`, it is at most the experts' cross entropy, so the whole is bounded for :math:`\lambda \le 1`.

    The paper's criterion is :class:`~medbolt.longtail.LDAMLoss`, each expert having a
    :class:`~medbolt.longtail.CosineHead` of its scale, with :class:`~medbolt.longtail.DeferredReweighting` before this
    callback. The network is an :class:`~medbolt.longtail.ExpertsClassifier`.

    **Routing is left out**: the second stage, in which a gate learns after which expert a sample may stop, saves
    computation at prediction, and here all experts run in one pass. Predictions are means over all experts, which
    public code reports too. Self-distillation from a larger ensemble is left out as well.

    Args:
        weight: Weight :math:`\lambda` of the diversity, not negative; the authors' is 0.2.
        temperature: :math:`T_0`, positive.
        eta: How much temperatures depend on class frequencies, in [0, 1); the authors' is 0.05.
        start: First epoch of temperatures by class, before which all are :math:`T_0`: an integer counts epochs from 0,
            a float in [0, 1] is a share of ``max_epochs``. It is the start of the re-weighting: 160 of 200.
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network of experts.

    Shapes:
        experts' logits (E, B, C); target of any kind that the criterion takes.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the network has no experts or nobody knows the class counts; in training, if they do
            not number the classes or the network has one output only.

    State, cost: none: temperatures are a function of the epoch. The criterion is evaluated E times.
    Callbacks that put other logits in the step's place, such as those with a second network, come before this one.

    Source: Wang et al., arXiv 2010.01809. The paper compares every two experts (as we remember it), the authors' code
    each with the mean, which is what is done here: it is linear in E, and bounded as said, while a divergence of two
    experts is not. The form of the temperatures is that of the authors' code as well. There the mean is detached; the
    gradient is the same either way. An empty class has :math:`\beta_c = 1 - \eta`.

    Example:
        >>> callback = DiverseExperts(weight=0.2, start=0.8)
    """

    def __init__(
        self,
        weight: float = 0.2,
        temperature: float = 1.0,
        eta: float = 0.05,
        start: int | float = 0.8,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network, f"{network}.experts")
        check_start(start)
        if weight < 0 or temperature <= 0 or not 0 <= eta < 1:
            raise ValueError(
                "weight must not be negative, temperature positive and eta in [0, 1), got "
                f"{weight}, {temperature} and {eta}"
            )
        self.weight, self.temperature, self.eta = weight, temperature, eta
        self.start, self.class_counts = start, class_counts
        self.first_epoch = 0
        self.temperatures = torch.ones(0)  # by class

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the temperatures."""
        if stage == "fit":
            find_experts(pl_module, self.network, self)
            self.first_epoch = start_epoch(self, self.start, trainer)
            frequency = known_counts(self, self.class_counts, trainer).double()
            beta = 1 - self.eta + self.eta * len(frequency) * frequency / frequency.sum()
            self.temperatures = (self.temperature * beta / beta.max()).float()
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the temperatures to the module's device."""
        super().on_train_start(trainer, pl_module)
        self.temperatures = self.temperatures.to(pl_module.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the sum of the experts' losses, less their diversity."""
        logits = expert_logits(step)
        require_several_outputs(logits.shape[2], self)
        losses = torch.stack([step.loss(logits=own) for own in logits]).sum(0)
        temperatures = self._temperatures(step, logits.shape[2])
        scale = self.weight * temperatures.mean().square()
        return losses - scale * diversity(logits / temperatures)

    def _temperatures(self, step: TrainingStep, classes: int) -> Tensor:
        if len(self.temperatures) != classes:
            raise UserError(
                f"DiverseExperts has {len(self.temperatures)} class_counts but the network gives {classes} logits; "
                "give one count a class."
            )
        if step.module.current_epoch < self.first_epoch:
            return torch.full_like(self.temperatures, self.temperature)
        return self.temperatures


def diversity(logits: Tensor) -> Tensor:
    """Return for each sample the sum of the divergences from the distribution of the mean logits to each expert's.

    Args:
        logits: (E, B, C) float.

    Returns:
        (B,) float, not negative.

    Example:
        >>> diversity(torch.tensor([[[0.0, 0.0]], [[1.0, -1.0]]]))  # from softmax(0.5, -0.5)
        tensor([0.1936])
    """
    return -len(logits) * logits.log_softmax(2).mean(0).logsumexp(1)
