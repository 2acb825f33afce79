"""Aggregation of experts at test time (SADE): weights under which predictions are stable, learned without labels."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from medbolt.core import network_input
from medbolt.core.objective.training_pass import device_batches, evaluation
from medbolt.core.randomness import derive_seed, seeded
from medbolt.longtail.experts.classifier import ExpertsClassifier
from medbolt.longtail.experts.lookup import find_experts
from medbolt.longtail.experts.random_view import random_view
from medbolt.longtail.experts.stability import stable_weights


class ExpertAggregation(Callback):
    r"""Weigh experts for ``validate``, ``test`` and ``predict`` by how stable their predictions are (SADE).

    .. math::
        \max_a \frac1N \sum_{i=1}^{N} \cos\big(\hat y(x_i^{(1)}), \hat y(x_i^{(2)})\big), \qquad
        \hat y(x) = \mathrm{softmax}\Big(\sum_k w_k z_k(x)\Big), \qquad w = \mathrm{softmax}(a)

    with two random views of each image that is to be evaluated, and no labels. An expert is surer of the classes it was
    trained for, so where these prevail its predictions are the more stable ones: the weights follow the class
    distribution of the test data. It begins with equal weights and stops when one of them falls below ``min_weight``.
    A data loader has weights of its own. The network has its former weights again afterwards; ``fit`` is left alone.

    It looks at all images before it predicts any: report results as those of a method that knows its test images. The
    most stable expert need not be the best: where views differ much, it may be one that always says the same. On toy
    images of three overlapping classes, with strong noise for views, accuracy rose from 0.71 to 0.90 for classes as in
    training and from 0.82 to 0.89 for inverse ones, and fell from 0.64 to 0.38 for classes of equal size.

    Args:
        steps: Most steps of gradient ascent.
        lr: Step size, positive. The defaults go about as far as the authors' on CIFAR-100, 395 steps of 0.1 with
            momentum 0.9: with little to gain, weights hardly move.
        min_weight: Weight to stop at, in [0, 1); the authors' is 0.05.
        views: Makes a random view, with torch's random numbers, of an image (C, H, W) float as the network is given it;
            by default it is shifted, scaled, rotated by up to 15 degrees and in half of the cases mirrored.
        network: Attribute of the network of experts, which is called with the batch's images.
        seed: Seed of the views.

    Attributes:
        weights: (E,) float64, the weights of the last evaluation, one tensor a data loader.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: if the network has no experts.

    State, cost: none in checkpoints. Two passes over the images, and 2 N E C logits. Processes gather these, and a
    batch that tells the ``index`` of its samples makes their views a function of it; so weights do not depend on the
    number of processes.

    Source: Zhang et al., arXiv 2107.09249. The authors draw views anew in each of some epochs of stochastic gradient
    steps, with weight decay, and look at the weights after each epoch; here views are drawn once, every step sees all
    of them and is followed by a look, so that the order of the data plays no part. Their views are those of contrastive
    learning, colours included; the gentler ones here are for medical images and were not compared with them.

    Example:
        >>> callback = ExpertAggregation(steps=50)
    """

    def __init__(
        self,
        steps: int = 200,
        lr: float = 2.0,
        min_weight: float = 0.05,
        views: nn.Module | None = None,
        network: str = "model",
        seed: int = 0,
    ) -> None:
        if steps < 0 or lr <= 0 or not 0 <= min_weight < 1:
            raise ValueError(
                f"steps must not be negative, lr positive and min_weight in [0, 1), got {steps}, {lr} and {min_weight}"
            )
        self.steps, self.lr, self.min_weight = steps, lr, min_weight
        self.views, self.network, self.seed = views, network, seed
        self.weights: list[Tensor] = []
        self._changed: tuple[ExpertsClassifier, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there are experts."""
        find_experts(pl_module, self.network, self)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights, unless inside ``fit``."""
        if trainer.state.fn != "fit":
            self._find(trainer, pl_module, trainer.val_dataloaders, trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights."""
        self._find(trainer, pl_module, trainer.test_dataloaders, trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights."""
        self._find(trainer, pl_module, trainer.predict_dataloaders, trainer.num_predict_batches)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Use those of the data loader."""
        self._use(dataloader_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Use those of the data loader."""
        self._use(dataloader_idx)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Use those of the data loader."""
        self._use(dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the network its weights back."""
        self._restore()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the network its weights back."""
        self._restore()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the network its weights back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the network its weights back."""
        self._restore()

    def _find(self, trainer: Trainer, module: LightningModule, loaders: Any, numbers: Sequence[float]) -> None:
        network = find_experts(module, self.network, self)
        self._restore()
        self._changed = network, network.weights.clone()
        self.weights = []
        for loader, number in zip(loaders if isinstance(loaders, list) else [loaders], numbers, strict=True):
            batches = islice(loader, None if number == float("inf") else int(number))
            rows: list[Tensor] = []
            with evaluation(trainer, module):
                for batch in device_batches(trainer, module, batches, type(self).__name__):
                    rows.append(self._of_both_views(network, batch, sum(map(len, rows)), trainer))
            views = torch.cat(rows).contiguous()
            if dist.is_available() and dist.is_initialized():
                views = torch.cat(gather_all_tensors(views))
            with torch.inference_mode(False), torch.enable_grad():
                first, second = views.cpu().double().clone().unbind(1)
                self.weights.append(stable_weights(first, second, self.steps, self.lr, self.min_weight))

    def _of_both_views(self, network: ExpertsClassifier, batch: Any, start: int, trainer: Trainer) -> Tensor:
        """Return the experts' logits of two views, (B, 2, E, C)."""
        images = network_input(batch)
        index = batch.get("index") if isinstance(batch, Mapping) else None
        places = range(start, start + len(images))  # of this process; without an index, processes alternate
        index = [i * trainer.world_size + trainer.global_rank for i in places] if index is None else index.tolist()
        make = random_view if self.views is None else self.views
        logits = []
        for view in range(2):
            made = []
            for image, i in zip(images.cpu(), index, strict=True):
                with seeded(derive_seed(self.seed, i, view)):
                    made.append(make(image))
            logits.append(network.each(torch.stack(made).to(images)).transpose(0, 1))
        return torch.stack(logits, 1)

    def _use(self, dataloader_idx: int) -> None:
        if self._changed is not None:
            network, _ = self._changed
            network.weights.copy_(self.weights[dataloader_idx])

    def _restore(self) -> None:
        if self._changed is not None:
            network, weights = self._changed
            network.weights.copy_(weights)
            self._changed = None
