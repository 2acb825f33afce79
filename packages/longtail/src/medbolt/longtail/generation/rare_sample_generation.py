"""Rare-class sample generation (RSG): feature maps of rare classes that vary as those of frequent ones do."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from medbolt.core import ObjectiveCallback, TrainingStep, UserError
from medbolt.core.randomness import derive_seed, seeded
from medbolt.longtail.generation.enlargement import Enlargement
from medbolt.longtail.generation.generator import Generated, RareSampleGenerator
from medbolt.longtail.generation.pairing import frequent_classes
from medbolt.longtail.posthoc.split import class_target, find_network
from medbolt.longtail.stages.counts import known_counts
from medbolt.longtail.stages.schedule import check_start, start_epoch

_TAG = 0x7273  # apart from other draws by the same seed


class RareSampleGeneration(ObjectiveCallback):
    r"""Enlarge each batch, between two layers, by maps of rare classes that vary as frequent classes do (RSG).

    .. math::
        \tilde f_j = f_{r_j} + v_j, \quad v_j = T(d_{h_j}), \quad d_i = f_i - c_{y_i, k_i}, \quad
        k_i = \arg\max_k \gamma_{ik}, \quad \gamma_i = \mathrm{softmax}(W_{y_i}^\top \bar f_i + b_{y_i})

    where f is a layer's map, :math:`\bar f` its mean over positions, r a rare sample of the batch, h a frequent one, c
    one of K centers of a class and T a convolution. The layers above and the criterion take the generated maps as
    samples of the rare class. To the criterion's mean over all, real and generated, is added

    .. math::
        0.1 \Big[ \tfrac{1}{B} \sum_{i,k} \gamma_{ik} \sum_p \| f_{ip} - c_{y_i, k} \|^2
        + [t < t_0]\, \mathrm{CE}\big(g(f_i, f_{i + B/2}),\, [y_i = y_{i + B/2}]\big) \Big] \\
        + 0.01\, [t \ge t_0]\, \tfrac{1}{G} \sum_j \Big[ \mathrm{CE}\big(g(f_{h_j}, v_j),\, 0\big)
        + \sum_p \big|\, \|v_{jp}\| - \|d_{h_j p}\| \,\big| + \sum_p 1 - \cos(v_{jp}, d_{r_j p}) \Big]

    over positions p. Until epoch :math:`t_0` centers and the filter g are learned; from then on samples are generated,
    g stays, and T learns to keep lengths, to point away from the rare center, and to lose what tells the class of h.

    Args:
        channels: Channels of the layer's maps.
        features: Dotted attribute of the layer, one in the middle of the network, inside of ``network``.
        start: First epoch :math:`t_0` of generation: an integer counts epochs from 0, a float in [0, 1] is a share of
            ``max_epochs``. Authors' and default: 160 of 200. With 0 the filter learns nothing.
        frequent: Share of the classes that count as frequent, by their samples, rounded down and at least one; or
            their indices. All others are rare.
        strength: Transfer strength, positive: how many maps are generated, in parts of the batch's frequent or rare
            samples, whatever there are more of, in whole rounds of the others. So up to B - 1 at the default.
        centers: Centers K of each class.
        hidden: Channels within the filter.
        center_weight: Weight of the centers' and the filter's loss, not negative.
        vector_weight: Weight of the loss of vectors v ("maximized vector loss"), not negative.
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network that gives the logits.
        seed: Seed of the generator's weights.

    Shapes:
        maps (B, C, H, W) float; logits (B, ...); the batch's target (B,) int64, of soft ones the likeliest class.
        Losses are in float32 at least.

    Raises:
        ValueError: if an option is out of range.
        UserError: at ``fit``, if there is no such layer or network or nobody knows the class counts; in training, if
            the layer's maps are of another shape, or the layer or the network is not called once for each call of
            the criterion. That it will never generate is a warning.

    State, cost: the generator, with its centers, in checkpoints of this callback and not of the module, gone after
    training. Nothing is drawn at random, and ``start`` is a function of the epoch. Layers above, batch norm too, see up
    to twice the batch. Parts that have nothing to do in a step have a gradient of 0 then, on which weight decay acts.
    Processes pair samples of their own batches, so two do not do what one does with the double batch.

    What remembers samples or looks at features comes after this callback, and features are of a layer below. It is not
    for networks of experts; with mixed images it takes each for one of the batch's class.

    Source: Wang et al., arXiv 2106.09859. The loss of vectors, how samples are paired and counted, that all of it works
    on maps without their gradient, and the weights are as the authors' code has them, not checked against the paper: a
    reconstruction. That code takes C successive numbers of a flattened map for a vector, here it is the C channels of a
    position; sums :math:`|\hat v \hat d - 1|` over channels, which differs by a constant; fails for odd batches and
    strengths above 1; takes the first classes for the frequent ones; begins with W of scale 1, here
    :math:`1/\sqrt C`. The loss of centers is shown less the spread of maps about their means, a constant as well. In
    MONICA generation starts after epoch 160 of 50, which is never.

    Example:
        >>> callback = RareSampleGeneration(channels=256, features="model.features.layer3")
    """

    def __init__(
        self,
        channels: int,
        features: str = "model.features.layer3",
        start: int | float = 0.8,
        frequent: float | Sequence[int] = 0.2,
        strength: float = 1.0,
        centers: int = 15,
        hidden: int = 256,
        center_weight: float = 0.1,
        vector_weight: float = 0.01,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
        seed: int = 0,
    ) -> None:
        super().__init__(criterion, network, features)
        check_start(start)
        if min(channels, centers, hidden) < 1 or strength <= 0 or min(center_weight, vector_weight) < 0:
            raise ValueError(
                "channels, centers, hidden and strength must be positive and weights not negative, got "
                f"{channels}, {centers}, {hidden}, {strength}, {center_weight} and {vector_weight}"
            )
        if not isinstance(frequent, Sequence) and not 0 <= frequent <= 1:
            raise ValueError(f"frequent must be a share in [0, 1] or a list of classes, got {frequent}")
        self.layer, self.channels, self.start, self.frequent = features, channels, start, frequent
        self.strength, self.class_counts = strength, class_counts
        self.centers, self.hidden, self.seed = centers, hidden, seed
        self.center_weight, self.vector_weight = center_weight, vector_weight
        self.first_epoch = 0
        self.generator: RareSampleGenerator | None = None
        self._enlargement: Enlargement | None = None
        self._made: Generated | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach the generator and hook the layer and the network."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        counts, network = known_counts(self, self.class_counts, trainer), find_network(pl_module, self.network, self)
        is_frequent = frequent_classes(counts, self.frequent)
        self.first_epoch = start_epoch(self, self.start, trainer)
        if is_frequent.all() or not is_frequent.any():
            rank_zero_warn(f"RareSampleGeneration never generates: frequent={self.frequent} leaves one kind of class.")
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= self.first_epoch:
            rank_zero_warn(f"RareSampleGeneration never generates: start={self.start} of {trainer.max_epochs} epochs.")
        with seeded(derive_seed(self.seed, _TAG)):
            self.generator = RareSampleGenerator(
                self.channels,
                is_frequent,
                self.centers,
                self.hidden,
                self.strength,
                self.center_weight,
                self.vector_weight,
            )
        self.attach(pl_module, "rare_sample_generator", self.generator)
        layer = pl_module.get_submodule(self.layer)
        self._enlargement = Enlargement(type(self).__name__, layer, network, self._generated)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses, such that their mean is that over all samples, with the generator's added."""
        made, added, generator = self._made, self._enlargement, self.generator
        assert added is not None
        assert generator is not None
        if made is None or len(step.target) != made.size or (added.number and added.logits is None):
            raise UserError(
                f"RareSampleGeneration needs one call of network '{self.network}', and in it of layer '{self.layer}', "
                f"for each call of the criterion with the batch's targets, but {type(step.module).__name__} does "
                "otherwise; name others, e.g. features='net.layer3', network='net'."
            )
        # DistributedDataParallel waits for a gradient of every parameter in every step
        penalty = made.loss + generator.zero()
        if added.logits is None:
            return step.loss() + penalty
        logits = torch.cat([step.logits, added.logits_like(step.logits)])
        losses = step.loss(logits=logits, target=torch.cat([step.target, step.target[made.rare]]))
        own, generated = losses.tensor_split([made.size])
        return (made.size * own + generated.sum()) / len(losses) + penalty

    def _generated(self, maps: Tensor) -> Tensor | None:
        # an objective's own calls are made while the stack does not run; a pass between epochs is without gradients
        if self._stack is None or not self._stack.running or not torch.is_grad_enabled():
            return None
        assert self.generator is not None
        target = class_target(self._stack.batch, type(self).__name__)
        made: Generated = self.generator(maps, target, self._stack.module.current_epoch >= self.first_epoch)
        self._made = made
        return made.maps

    def _stop(self) -> None:
        super()._stop()
        self._made = None
        if self._enlargement is not None:
            self._enlargement.reset()

    def _release(self) -> None:
        super()._release()
        self._made = None
        if self._enlargement is not None:
            self._enlargement.remove()
            self._enlargement = None
