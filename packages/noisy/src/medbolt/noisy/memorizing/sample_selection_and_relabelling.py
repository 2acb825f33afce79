"""SSR: believe the labels that a sample's neighbours confirm, and replace those the network is sure are others."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import one_hot

from medbolt.core.objective.mixing import Mix, MixedInputs
from medbolt.core.objective.mixup import drawn_weights
from medbolt.core.objective.second_view import ask_for_second_view, network_logits, second_view
from medbolt.core.objective.step import TrainingStep
from medbolt.core.objective.training_pass import network_input, training_pass
from medbolt.noisy.class_count import class_count
from medbolt.noisy.features import classifier_head, inputs_of
from medbolt.noisy.memorizing.classes import as_distribution, as_target, log_probability_of
from medbolt.noisy.memorizing.feature_consistency import FeatureConsistency
from medbolt.noisy.memorizing.neighbours import class_weights, relabel_and_select
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.selection.labels import training_labels
from medbolt.noisy.selection.selection import Selection


class SampleSelectionAndRelabelling(MixedInputs):
    r"""Relabel by confidence, select by the nearest neighbours, and learn from what is selected with MixUp (SSR).

    .. math::
        \hat y_i = \begin{cases} \arg\max_c p_{ic} & \max_c p_{ic} > \theta_r \\ y_i & \text{otherwise} \end{cases},
        \qquad i \in S \iff v_{i \hat y_i} \ge \theta_s \max_c v_{ic}

    .. math::
        l\, w_i\, \ell(f(\tilde x_i), \hat y_i) + (1 - l)\, w_j\, \ell(f(\tilde x_i), \hat y_j), \qquad
        \tilde x_i = l x_i + (1 - l) x_j, \qquad w_i = \frac{N}{C_S\, n_{\hat y_i}} [i \in S]

    Before each epoch the training set is passed once without augmentation: p are the predictions, v the votes of the
    ``neighbours`` nearest samples for their :math:`\hat y`, by the cosine of what the classifier is given, and divided
    by how frequent each class is. :math:`l \ge 1/2` is from Beta(alpha, alpha); i and j are samples of the batch that
    are both selected. :math:`n_c` samples of class c are selected, of :math:`C_S` classes any: the weights give each
    class an equal part in the loss. No rate of noise is asked for.

    With ``consistency=1``, SSR+, two views of every image, selected or not, shall have alike features: the loss gets
    minus the mean cosine of what a small network h foretells of one view's projection z and the other's,
    :math:`-\frac12 \cos(h(z^1), \mathrm{sg}(z^2)) - \frac12 \cos(h(z^2), \mathrm{sg}(z^1))`; both train along.

    Args:
        relabel_threshold: :math:`\theta_r`; above 1 no label is replaced.
        select_threshold: :math:`\theta_s` in [0, 1].
        neighbours: How many samples vote, at least 1.
        start_epoch: First epoch (from 0) of selection. Before it every sample counts with its own label. 0 trusts the
            features of the untrained network, which a pre-trained one deserves.
        alpha: Parameter of MixUp's Beta distribution, positive.
        balanced: Whether classes are weighted alike; else all selected samples are. Turn it off where the data module
            draws classes alike.
        consistency: Weight of the agreement of two views, not negative; 0 needs no second view.
        strong: Makes the second view of a batch of the network's inputs; by default medbolt's data modules make one.
        head: Dotted name, in the network, of the linear layer that makes the logits; by default its last linear layer.
        num_classes: Number of classes, where the data module does not tell.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample; features (B, D).

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data module does not know its training set, nobody the number of classes, or there
            is no such head; in training, if ``consistency`` finds no second view, or samples have several findings.

    State, cost: 20 bytes a sample, kept in checkpoints. Between epochs a pass over the training set, N x D features on
    every process, and N x N similarities, a thousand rows at a time, on process 0. In training nothing beyond MixUp;
    with ``consistency`` two more passes of the batch. What is selected is the same on any number of processes, which
    mix within their own batches. Where nothing at all is selected, everything is. ``selection`` tells of each batch
    what is kept and its labels.

    Source: Feng et al., arXiv 2111.11288, a reconstruction from notes on paper and code. The authors draw the selected
    samples class by class; the weights have the same expectation, but a rare class comes by seldom and weighs much.
    That a sample has no vote on itself, that dissimilar ones have none, and the sizes of the small networks are ours.
    Data that do not tell labels beforehand are selected from once their labels have been seen.

    Example:
        >>> callback = SampleSelectionAndRelabelling(relabel_threshold=0.9, neighbours=200)
    """

    def __init__(
        self,
        relabel_threshold: float = 0.9,
        select_threshold: float = 1.0,
        neighbours: int = 200,
        start_epoch: int = 0,
        alpha: float = 4.0,
        balanced: bool = True,
        consistency: float = 0.0,
        strong: nn.Module | None = None,
        head: str | None = None,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if min(relabel_threshold, start_epoch, consistency) < 0 or not 0 <= select_threshold <= 1:
            raise ValueError(
                "relabel_threshold, start_epoch and consistency must not be negative and select_threshold in [0, 1], "
                f"got {relabel_threshold}, {start_epoch}, {consistency} and {select_threshold}"
            )
        if neighbours < 1 or alpha <= 0:
            raise ValueError(f"neighbours must be at least 1 and alpha positive, got {neighbours} and {alpha}")
        self.relabel_threshold, self.select_threshold, self.neighbours = relabel_threshold, select_threshold, neighbours
        self.start_epoch, self.alpha, self.balanced, self.consistency = start_epoch, alpha, balanced, consistency
        self.strong, self.head, self.num_classes = strong, head, num_classes
        self.selection: Selection | None = None
        self._one_class = OneClassTargets(type(self).__name__)
        self._index: Tensor | None = None
        self._unmixed: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept criterion and network; begin with every sample selected."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._classes = class_count(self, self.num_classes, trainer, pl_module)
        none = torch.tensor(-1)
        memory = self.remember(trainer, given=none, label=none, weight=torch.tensor(1.0))
        labels = training_labels(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
        if labels is not None:
            memory["given"].copy_(labels.given)
        self._network = pl_module if self.network == "self" else pl_module.get_submodule(self.network)
        self._head = classifier_head(self._network, self.head, type(self).__name__)
        if self.consistency:
            ask_for_second_view(self, trainer, self.strong)
            self.attach(pl_module, "feature_consistency", FeatureConsistency(self._head.in_features))

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Relabel and select; process 0 decides, for another machine may find other neighbours."""
        if trainer.current_epoch < self.start_epoch:
            return
        memory = self.memory
        assert memory is not None

        def evaluate(batch: Any) -> dict[str, Tensor]:
            with inputs_of(self._head) as found:
                logits = self._network(network_input(batch))
            p = log_probability_of(self, logits, self._classes).exp()
            return {"p": p, "features": found[-1]}

        empty = {"p": torch.zeros(self._classes), "features": torch.zeros(self._head.in_features)}
        said = training_pass(trainer, pl_module, evaluate, "neighbours in the training set", **empty)
        decided = None
        if trainer.is_global_zero:
            given = torch.where(said.seen, memory["given"].to(said.seen.device), -1)
            thresholds = self.relabel_threshold, self.select_threshold
            decided = relabel_and_select(said["p"], said["features"], given, *thresholds, self.neighbours)
        label, kept = trainer.strategy.broadcast(decided)  # pyright: ignore[reportGeneralTypeIssues]
        weight = class_weights(label, kept, memory["given"].cpu(), self._classes, self.balanced)
        memory.fields |= {"label": label.to(memory["label"]), "weight": weight.to(memory["weight"])}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept; see which samples are mixed."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        index = batch.get("index") if isinstance(batch, dict) else None
        self._index = getattr(trainer.datamodule, "batch_index", None) if index is None else index  # pyright: ignore[reportAttributeAccessIssue]

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return one weight and a permutation of the samples selected; the others stay as they are."""
        assert self.memory is not None
        partner = torch.arange(size, device=device)
        weight = drawn_weights(self.alpha, self.alpha, 1)
        order = torch.randperm(size).to(device)
        kept = torch.ones(size, dtype=torch.bool, device=device)
        if self._index is not None and len(self._index) == size:
            kept = self.memory.read(self._index, "weight").to(device) > 0
        partner[kept] = order[kept[order]]
        weight = weight.maximum(1 - weight).to(device).expand(size)
        return Mix(partner, weight, weight)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the mixtures; keep the images for the agreement of views."""
        self._unmixed = images
        return super().combine(images, mix)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses of the mixtures of selected samples; remember the labels given."""
        assert self.memory is not None
        self._one_class.require(step)
        memory, index, mix = self.memory, step.index, self.mix_of(step)
        given = as_distribution(step.target, self._classes)
        memory.write(index, given=given.argmax(1))
        weight, label = memory.read(index, "weight"), memory.read(index, "label")
        changed, corrected = label >= 0, torch.where(label >= 0, label, given.argmax(1))
        self.selection = Selection(index, weight > 0, corrected)
        if step.target.is_floating_point():
            soft = torch.where(changed[:, None], one_hot(corrected, self._classes).to(given), given)
            target = as_target(soft, step.logits)
        else:
            target = corrected.view_as(step.target)
        share, partner = mix.target_weight, mix.partner
        losses = share * weight * step.loss(target=target)
        losses = losses + (1 - share) * weight[partner] * step.loss(target=target[partner])
        if self.consistency:
            losses = losses + self.consistency * self._disagreement(step)
        return losses

    def _disagreement(self, step: TrainingStep) -> Tensor:
        """Return how unlike the features of two views of each unmixed image are, (B,)."""
        with torch.no_grad():
            second = second_view(self, step, None) if self.strong is None else self.strong(self._unmixed)
        features = []
        for view in (self._unmixed, second):
            with inputs_of(self._head) as found:
                network_logits(self, step, view, *step.inputs[1:])
            features.append(found[-1])
        return step.module.get_submodule("feature_consistency")(*features)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop intercepting; forget the images."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._unmixed = self._index = None
