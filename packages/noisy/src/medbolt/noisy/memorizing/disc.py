"""DISC: sort the samples by how two views of each are predicted, and learn from each sort in its own way."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import one_hot

from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.second_view import ask_for_second_view, network_logits, second_view
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss
from medbolt.noisy.memorizing.classes import as_distribution, as_target, log_probability_of
from medbolt.noisy.memorizing.partial import drawn_rows, losses_of_rows, mixed_losses, rows_of, spread
from medbolt.noisy.network_inputs import network_inputs
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.selection.selection import Selection
from medbolt.noisy.selection.smallest import weighted

_VIEWS = ("weak", "strong")


class DISC(ObjectiveCallback):
    r"""Sort samples by thresholds of their own into clean, hard and purified ones (DISC).

    Dynamic Instance-specific Selection and Correction:

    .. math::
        \frac{1}{B} \sum_{C} (\ell^w_i + \ell^s_i) + \frac{\lambda_h}{B} \sum_{H} (g^w_i + g^s_i)
        + \frac{1}{n} \sum_{C \cup H \cup P} (m^w_i + m^s_i)

    w and s are the weak and the strong view of an image, :math:`\ell` is the criterion, g generalized cross entropy,
    m the criterion of MixUp among the n samples of C, H and P, where P has corrected labels and each sample is the
    larger part of its mixture. Between epochs every sample, by the probabilities it had last and its
    thresholds :math:`\tau^w, \tau^s`, is sorted anew:

    - clean, C: its label's probability is above the threshold in both views, or one of them was not seen yet;
    - hard, H: in one of them;
    - purified, P: in neither, but :math:`\max_k (p^w_k + p^s_k) / 2 > \min((\tau^w + \tau^s) / 2 + \sigma, 0.99)`; its
      label becomes that class;

    and then :math:`\tau \leftarrow m \tau + (1 - m) \max_k p_k` in each view. Until ``start_epoch`` the loss is
    :math:`\ell^w + \ell^s` of all samples.

    The weak view is what the network was given. The strong one is made of it by ``strong``, or else is
    ``batch["views"][:, 1]``, which medbolt's data modules make: by their training transform with strong changes of
    colour and an erased square, or as their :class:`~medbolt.core.MultiView` says. It goes straight to the network, so
    what the module does to images before that is not done to ``views``.

    With a ``share`` s below 1 the strong view and each mixture see :math:`\lceil sB \rceil` samples of a batch, two at
    least, drawn anew each step, of the mixtures' candidates likewise, and their losses are divided by their share: the
    expected loss is the one above (nearly so where class weights divide the criterion's mean), its gradient is noisier,
    and what the strong view of a sample says is on average 1 / s epochs old.

    Args:
        start_epoch: First epoch (from 0) of selection. The authors use 15 to 20 for CIFAR, 10 or 15 for larger images;
            LNMBench 5.
        sigma: :math:`\sigma`, not negative, 0.5 in the authors' code; they advise 0.3 for low noise.
        momentum: m of the thresholds, in [0, 1]: 0.99; 0.95 for asymmetric noise and rates from 0.6 on.
        hard_weight: :math:`\lambda_h`, not negative: 1; 0.2 for rates from 0.6 on.
        q: Exponent of generalized cross entropy, in (0, 1].
        alpha: Parameter of MixUp's Beta distribution, positive.
        strong: Makes the strong view of a batch of the network's inputs; by default the data module does.
        num_classes: Number of classes, where the data module does not tell.
        share: s, in (0, 1]. 1 is the published method, of four passes; a third takes two and is ours.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, which is called three more times.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data module does not know its training set, or nobody the number of classes; in
            training, if there is no second view, samples have several findings, or the network gets its images by
            keyword.

    State, cost: 2 N x C float32 and 27 bytes a sample, merged across processes each epoch and kept in checkpoints; one
    more pass of the batch through the network, and two of its selected samples, or a share of them. Sums are divided by
    the processes' mean n, so that no sample counts more than another. Processes mix within their own batches. Stands
    innermost, before other objectives in the list of callbacks. ``selection`` tells of each batch what is kept and its
    labels.

    Source: Li et al., CVPR 2023. LNMBench's learning rate of 0.1 is too hot for pre-trained networks: two of its three
    KaggleDR+ runs collapsed to one class. Both fill a table of labels from shuffled batches and leave the last ones at
    class 1; here labels are those that the module gave its criterion.

    Example:
        >>> callback = DISC(start_epoch=5)
    """

    def __init__(
        self,
        start_epoch: int = 5,
        sigma: float = 0.5,
        momentum: float = 0.99,
        hard_weight: float = 1.0,
        q: float = 0.7,
        alpha: float = 5.0,
        strong: nn.Module | None = None,
        num_classes: int | None = None,
        share: float = 1.0,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if min(start_epoch, sigma, hard_weight) < 0 or not 0 <= momentum <= 1 or alpha <= 0:
            raise ValueError(
                "start_epoch, sigma and hard_weight must not be negative, momentum in [0, 1] and alpha positive, got "
                f"{start_epoch}, {sigma}, {hard_weight}, {momentum} and {alpha}"
            )
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.start_epoch, self.sigma, self.momentum = start_epoch, sigma, momentum
        self.hard_weight, self.alpha, self.strong, self.num_classes = hard_weight, alpha, strong, num_classes
        self.share = share
        self.hard_loss = GeneralizedCrossEntropyLoss(q, reduction="none")
        self._one_class = OneClassTargets(type(self).__name__)
        self.selection: Selection | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; begin with no sample sorted."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        ask_for_second_view(self, trainer, self.strong)
        nothing = torch.zeros(class_count(self, self.num_classes, trainer, pl_module))
        no, none = torch.tensor(False), -1
        memory = self.remember(
            trainer,
            **dict.fromkeys(_VIEWS, nothing),
            **dict.fromkeys([f"{view}_threshold" for view in _VIEWS], torch.zeros(())),
            **dict.fromkeys(["clean", "hard", "purified"], no),
            **dict.fromkeys(["label", "corrected"], torch.tensor(none)),
        )
        for view in _VIEWS:
            memory[f"{view}_threshold"].fill_(1 / len(memory))
        self.selection = None

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sort the samples by what the last epoch said of them; move their thresholds."""
        assert self.memory is not None
        memory = self.memory
        seen = memory.seen & memory["strong"].any(1)  # in both views: of what was not, probabilities are 0
        label = memory["label"].clamp(min=0)[:, None]  # of samples never seen it is not known, and not used
        likes = [memory[view].gather(1, label)[:, 0] > memory[f"{view}_threshold"] for view in _VIEWS]
        clean, hard = (likes[0] & likes[1]) | ~seen, (likes[0] ^ likes[1]) & seen
        highest, corrected = ((memory["weak"] + memory["strong"]) / 2).max(1)
        threshold = (memory["weak_threshold"] + memory["strong_threshold"]) / 2 + self.sigma
        purified = (highest > threshold.clamp(max=0.99)) & ~(clean | hard) & seen
        for name, values in {"clean": clean, "hard": hard, "purified": purified, "corrected": corrected}.items():
            memory[name].copy_(values)
        for view in _VIEWS:
            moved = memory[f"{view}_threshold"].lerp(memory[view].amax(1), 1 - self.momentum)
            memory[f"{view}_threshold"].copy_(torch.where(seen, moved, memory[f"{view}_threshold"]))

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses of the samples by their sort; remember what both views say."""
        assert self.memory is not None
        self._one_class.require(step)
        memory, index, num_classes = self.memory, step.index, self.memory["weak"].shape[1]
        images, *others = network_inputs(step, "DISC")
        view = second_view(self, step, self.strong)
        every = torch.ones_like(index, dtype=torch.bool)
        rows, _ = drawn_rows(every, len(index), self.share)
        logits = network_logits(self, step, view[rows], *rows_of(others, rows, len(index)))
        log_weak, log_strong = (log_probability_of(self, z, num_classes) for z in (step.logits, logits))
        given = as_distribution(step.target, num_classes)
        label = given.argmax(1)
        memory.write(index, weak=log_weak.exp(), label=label)
        memory.write(index[rows], strong=log_strong.exp())
        of_weak, of_strong = step.loss(), losses_of_rows(step, logits, rows)
        if step.module.current_epoch < self.start_epoch:
            self.selection = Selection(index, every)
            return of_weak + spread(of_strong, rows, len(index))
        clean, hard, purified = (memory.read(index, name) for name in ("clean", "hard", "purified"))
        kept, corrected = clean | hard | purified, torch.where(purified, memory.read(index, "corrected"), label)
        self.selection = Selection(index, kept, corrected)
        losses = weighted(of_weak, clean.float())
        losses = losses + self.hard_weight * weighted(self.hard_loss(log_weak, label), hard.float())
        of_sort = weighted(of_strong, clean[rows].float())
        of_sort = of_sort + self.hard_weight * weighted(self.hard_loss(log_strong, label[rows]), hard[rows].float())
        losses = losses + spread(of_sort, rows, len(index))
        target = corrected.view_as(step.target) if not step.target.is_floating_point() else None
        if target is None:
            soft = torch.where(purified[:, None], one_hot(corrected, num_classes).to(given), given)
            target = as_target(soft, step.logits)
        mixed = mixed_losses(self, step, (images, view), others, target, kept, self.alpha, self.share)
        return losses + mixed
