"""The second stage of decoupled training: a part of a trained network learns anew, the rest stays."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medbolt.core.errors import UserError
from medbolt.longtail.stages.beginning import Beginning
from medbolt.longtail.stages.first_stage import load_first_stage
from medbolt.longtail.stages.initialize_from import InitializeFrom
from medbolt.longtail.stages.learning_rate_factors import LearningRateFactors
from medbolt.longtail.stages.parts import draw_anew, find_part, is_within


class TwoStageTraining(Callback):
    r"""Train a part of a network that was trained before, and freeze the rest.

    .. math:: \min_{w}\ \mathbb E_{(x, y)}\, \ell\big(g_w(f_{\theta}(x)), y\big), \qquad
        \theta\ \text{from the first stage}

    Decoupled training: representations are learned best from the data as they are, the classifier on top from balanced
    data or with another loss. The second stage is a second run with this callback; what it draws, how it weighs classes
    and how long it takes is up to the data module, the criterion and the trainer:

    - cRT: ``trainable=["head"]``, ``reset=["head"]``, class-balanced sampling;
    - LWS: the same without ``reset``, after :class:`~medbolt.longtail.ReplaceHead` with
      :class:`~medbolt.longtail.LearnableScalingHead`, whose scales are all that it trains;
    - MiSLAS: that head with ``train_weights`` and ``scale_bias``, ``batch_norm="train"``, lower
      ``learning_rate_factors`` of weight and bias, class-balanced sampling and label-aware smoothing, after a first
      stage with MixUp;
    - DisAlign: :class:`~medbolt.longtail.DisAlignHead`, natural sampling, a loss that weighs classes.

    Only the network is frozen, not the criterion nor what other callbacks attach. Frozen parameters get no gradient, so
    that optimizers leave them alone, weight decay included. After ``fit`` all of it trains again as before.

    Args:
        init_from: Checkpoint of the first stage, of the same module or its plain weights; only the network's weights
            are taken. Without one the network keeps the weights it has, which is right only where it was trained in
            the same process; a warning says so.
        trainable: Dotted parts of the network, layers or parameters, that train. What the checkpoint lacks of them,
            such as the scales of a new head, keeps the values it starts with; the layer beneath a head that does not
            train it must be there.
        reset: Dotted parts of the network that are drawn anew by their own ``reset_parameters``; the checkpoint need
            not have them, nor in this shape.
        batch_norm: What frozen layers do while the rest trains. ``"eval"``: they are in evaluation mode, so statistics
            of batch norm stay and dropout is off. ``"train"``: they stay in training mode, so statistics move to the
            balanced data.
        network: Attribute of the network; ``"self"`` for the module itself, of which only children with parameters are
            frozen.
        seed: Seed of what is drawn anew.
        learning_rate_factors: By dotted part of what trains, the factor, positive, that multiplies the optimizer's
            learning rate for it; see :class:`~medbolt.longtail.stages.learning_rate_factors.LearningRateFactors`.

    Raises:
        ValueError: if ``trainable`` is empty, ``batch_norm`` is neither, or a factor is not positive.
        UserError: at ``fit``, naming a part that does not exist, cannot be drawn anew or has a factor and does not
            train, weights that the checkpoint lacks or has in excess, or a first stage's checkpoint to be resumed.

    State, cost: none; frozen parameters cost no backward pass below the lowest part that trains. A resumed run takes
    the weights of its own checkpoint: the first stage's need not be there any more. A second ``fit`` of the same
    trainer and module goes on with the weights it has.

    Source: Kang et al., arXiv 1910.09217 (cRT, LWS); Zhong et al., arXiv 2104.00466 (MiSLAS); Zhang et al.,
    arXiv 2103.16370 (DisAlign). MONICA's code put the frozen part into evaluation mode for good by an oversight and
    before 2026 trained the whole network in this stage.

    Example:
        >>> second_stage = TwoStageTraining("runs/version_0/checkpoints/best.ckpt", trainable=["head"], reset=["head"])
    """

    def __init__(
        self,
        init_from: Path | str | None = None,
        trainable: Sequence[str] = ("head",),
        reset: Sequence[str] = (),
        batch_norm: Literal["eval", "train"] = "eval",
        network: str = "model",
        seed: int = 0,
        learning_rate_factors: Mapping[str, float] | None = None,
    ) -> None:
        if not trainable or isinstance(trainable, str):
            raise ValueError(f"trainable must be a list of parts, such as ['head'], got {trainable!r}")
        if batch_norm not in ("eval", "train"):
            raise ValueError(f"batch_norm must be 'eval' or 'train', got {batch_norm!r}")
        if any(factor <= 0 for factor in (learning_rate_factors or {}).values()):
            raise ValueError(f"learning_rate_factors must be positive, got {learning_rate_factors}")
        self.init_from = None if init_from is None else Path(init_from)
        self.trainable, self.reset = list(trainable), list(reset)
        self.batch_norm: Literal["eval", "train"] = batch_norm
        self.network, self.seed = network, seed
        self.learning_rate_factors = dict(learning_rate_factors or {})
        self._factors: LearningRateFactors | None = None
        self._beginning = Beginning()
        self._frozen: list[nn.Module] = []
        self._requires_grad: list[tuple[nn.Parameter, bool]] = []  # as they were before
        self._training: list[tuple[nn.Module, bool]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load, draw anew and freeze, before the optimizers are made."""
        if stage != "fit":
            return
        self._restore()
        network = pl_module if self.network == "self" else find_part(pl_module, self.network, "network")
        assert isinstance(network, nn.Module)
        trained = [find_part(network, name, "trainable") for name in self.trainable]
        prefix = "" if network is pl_module else f"{self.network}."
        self._beginning.load(trainer, pl_module, lambda: self._begin(network, prefix))
        self._freeze(network, trained)
        self._refuse_refilling(trainer)
        if self.learning_rate_factors:
            self._factors = LearningRateFactors(network, self.learning_rate_factors)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give parts their learning rates; complain if there is no first stage, which a resumed run does not need."""
        if self._factors is not None:
            self._factors.attach(trainer.optimizers)
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        loads = self.init_from is not None or any(isinstance(callback, InitializeFrom) for callback in callbacks)
        if self._beginning.is_one() and not loads:
            rank_zero_warn(
                f"TwoStageTraining has no init_from: what it freezes of {type(pl_module).__name__} keeps its "
                "weights; right after a first stage in this process, else pass the checkpoint of the first stage."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put frozen layers into evaluation mode again, should somebody have trained the whole module."""
        if self.batch_norm == "eval":
            for layer in self._frozen:
                layer.training = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume what is no second stage."""
        if trainer.state.fn != "fit":
            return
        self._beginning.see(checkpoint)
        if self.state_key not in checkpoint.get("callbacks", {}):
            raise UserError(
                f"the checkpoint {trainer.ckpt_path} was not saved by a second stage, so there is none to resume; give "
                "it to TwoStageTraining as init_from instead of ckpt_path."
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let everything train as before."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let everything train as before."""
        if stage == "fit":
            self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Return what trained, which marks a checkpoint as one of a second stage."""
        return {"trainable": self.trainable}

    def _begin(self, network: nn.Module, prefix: str) -> None:
        if self.init_from is not None:
            load_first_stage(network, self.init_from, prefix, self.reset, self.trainable)
        for name in self.reset:
            draw_anew(find_part(network, name, "reset"), name, self.seed)

    def _freeze(self, network: nn.Module, trained: Sequence[nn.Module | Tensor]) -> None:
        kept = {id(p) for part in trained for p in (part.parameters() if isinstance(part, nn.Module) else [part])}
        if not any(p.requires_grad for p in network.parameters() if id(p) in kept):
            raise UserError(
                f"trainable={self.trainable} of {type(network).__name__} has no parameter to train; name a part with "
                "some."
            )
        beside: set[int] = set()  # the criterion and metrics of a module that is itself the network
        if isinstance(network, LightningModule):
            children = [child for child in network.children() if not any(True for _ in child.parameters())]
            beside = {id(layer) for child in children for layer in child.modules()}
        self._frozen = [layer for layer in _frozen_layers(network, self.trainable) if id(layer) not in beside]
        frozen = [p for p in network.parameters() if id(p) not in kept]
        self._requires_grad = [(p, p.requires_grad) for p in frozen]
        self._training = [(layer, layer.training) for layer in self._frozen]
        for p in frozen:
            p.requires_grad_(False)

    def _refuse_refilling(self, trainer: Trainer) -> None:
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        averaging = any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks)
        if averaging and self.batch_norm == "eval" and any(isinstance(layer, _BatchNorm) for layer in self._frozen):
            self._restore()
            raise UserError(
                "StochasticWeightAveraging empties batch norm and refills it in training mode, in which "
                "TwoStageTraining does not let the frozen layers be; take EMAWeightAveraging, or batch_norm='train'."
            )

    def _restore(self) -> None:
        if self._factors is not None:
            self._factors.remove()
            self._factors = None
        for p, requires_grad in self._requires_grad:
            p.requires_grad_(requires_grad)
        for layer, training in self._training:
            layer.training = training
        self._frozen, self._requires_grad, self._training = [], [], []


def _frozen_layers(network: nn.Module, trainable: Sequence[str]) -> Iterator[nn.Module]:
    """Yield the layers that neither belong to a part that trains nor contain one."""
    for name, layer in network.named_modules():
        if not any(is_within(name, part) or is_within(part, name) for part in trainable):
            yield layer
