"""Watch a training run, and rank its training samples by how suspicious their labels are."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.data.base import ImageDataModule
from medbolt.core.files import check_writable
from medbolt.core.memory import SampleMemory
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.core.predictions.shards import on_rank_zero
from medbolt.core.stats import auroc
from medbolt.noisy.class_count import class_count
from medbolt.noisy.quality.averages import moved_average, prediction_of
from medbolt.noisy.quality.estimate import estimate_noise_rate
from medbolt.noisy.quality.table import ranks, write_csv
from medbolt.noisy.selection.labels import Labels, training_labels

Score = Literal["aum", "probability", "mean_loss"]


class LabelQuality(ObjectiveCallback):
    r"""Remember how each training sample was learnt, and write a table with the most suspicious labels first.

    .. math:: \mathrm{AUM}_i = \frac{1}{V_i} \sum_{v=1}^{V_i} \big(z_{i,\tilde y} - \max_{k \ne \tilde y} z_{ik}\big)

    The loss is passed through. Of each of the V visits of a sample are remembered:

    - ``aum``: mean margin of the given label, the area under the margin;
    - ``probability``: moving average of the probability of the given label; of all classes, for ``suggested``;
    - ``loss`` and ``mean_loss``: cross entropy of the given label, last and mean, whatever the criterion is;
    - ``forgotten``: how often the sample was predicted as labelled and at the next visit no longer;
    - ``learned``: epoch in which it was first predicted as labelled; empty if never;
    - ``visits``.

    Predictions are those of the training batches, augmentation and dropout included, before each step. They are *not*
    out of sample: a network that trains long enough learns wrong labels by heart. The table therefore ranks by what was
    collected along the way, and wants few epochs; ``medbolt issues`` gives out-of-sample predictions for K times the
    cost. Put it last among the callbacks, so that it sees every batch once. Beside MixUp and its kin a sample is judged
    by the mixture that it is the first part of, which blurs all statistics.

    At the end of ``fit`` it writes ``label_quality.csv``: a row for each sample that was seen. Each epoch it logs
    ``lnl/estimated_rate``, by confident learning from the averages: too high while the network learns, too low once it
    knows labels by heart, so no guide for a forget rate. Where the data module tells the clean labels
    (:class:`~medbolt.noisy.NoisyLabels`), it logs ``lnl/auroc/<statistic>``: how well each finds the wrong ones.

    Args:
        score: Statistic to rank by; low scores are suspicious (``mean_loss`` with its sign changed).
        momentum: Share of the old average at a visit, in [0, 1).
        folder: Where to write; by default the logger's folder, else the trainer's ``default_root_dir``.
        filename: File name of the table.
        num_classes: Number of classes, if neither the data module nor the module has ``num_classes``.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if ``momentum`` is not in [0, 1), or there is no such score.
        UserError: at ``fit``, if the number of classes is unknown, the table cannot be written, or batches carry no
            index.

    State, cost: C + 6 numbers, a flag and a label a sample; one softmax a batch, one sort an epoch.

    Source: the margin is Pleiss et al., arXiv 2001.10528; forgetting events are Toneva et al., arXiv 1812.05159; both
    from memory. AUM's threshold samples are left out: samples are ranked, not cut.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[LabelQuality()], max_epochs=10, logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        score: Score = "aum",
        momentum: float = 0.9,
        folder: Path | str | None = None,
        filename: str = "label_quality.csv",
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if score not in ("aum", "probability", "mean_loss"):
            raise ValueError(f"score must be 'aum', 'probability' or 'mean_loss', got {score!r}")
        self.score: Score = score
        self.momentum, self.folder, self.filename, self.num_classes = momentum, folder, filename, num_classes
        self.written: Path | None = None
        """The table, once it is there; on rank 0 only."""
        self._labels: Labels | None = None
        self._is_seen = False

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses as they are; remember the predictions."""
        if not self._is_seen:  # methods further out may ask again, with a peer network's logits
            self._is_seen = True
            self._observe(step)
        return step.loss()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; make the memory."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self._labels = training_labels(data)
        zero, none = torch.tensor(0.0), torch.tensor(-1)
        self.remember(
            trainer,
            given=none,
            probability=torch.zeros(class_count(self, self.num_classes, trainer, pl_module)),
            **dict.fromkeys(("aum", "loss", "mean_loss"), zero),
            is_right=torch.tensor(False),
            forgotten=torch.tensor(0),
            learned=none,
            visits=torch.tensor(0),
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before training whether the table can be written."""
        path = self._path(trainer)
        on_rank_zero(trainer, lambda: check_writable(path))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the labels to the module's device."""
        super().on_train_start(trainer, pl_module)
        if self._labels is not None:
            self._labels = self._labels.to(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._is_seen = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the estimated noise rate and, where the truth is known, how well each statistic finds wrong labels."""
        super().on_train_epoch_end(trainer, pl_module)
        assert self.memory is not None
        seen, values = self.memory.seen, {}
        if seen.any():
            values["lnl/estimated_rate"] = estimate_noise_rate(
                self.memory["given"][seen], self.memory["probability"][seen]
            )
        if self._labels is not None and self._labels.clean is not None:
            known = seen & (self._labels.clean >= 0)
            wrong = (self.memory["given"] != self._labels.clean)[known].cpu()
            if wrong.any() and not wrong.all():
                for name, trust in _trust(self.memory).items():
                    values[f"lnl/auroc/{name}"] = auroc(wrong, -trust[known].cpu())
        pl_module.log_dict(values, sync_dist=True)  # equal on all processes already; the flag spares a warning

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the memory equal on all processes, should the last epoch have been cut short."""
        assert self.memory is not None
        self.memory.merge(trainer.strategy)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        path = self._path(trainer)
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.written = on_rank_zero(trainer, lambda: self._write(path, data))

    def _observe(self, step: TrainingStep) -> None:
        assert self.memory is not None
        memory, index = self.memory, step.index
        log_p, given = prediction_of(step, self._labels)
        own = log_p.gather(1, given.unsqueeze(1)).squeeze(1)
        margin = own - log_p.scatter(1, given.unsqueeze(1), -torch.inf).amax(1)  # a softmax keeps differences
        is_right, was_right = margin > 0, memory.read(index, "is_right")
        visits, learned = memory.read(index, "visits") + 1, memory.read(index, "learned")
        aum, mean_loss = memory.read(index, "aum"), memory.read(index, "mean_loss")
        memory.write(
            index,
            given=given,
            probability=moved_average(memory, index, log_p.exp(), self.momentum),
            aum=aum + (margin - aum) / visits,
            loss=-own,
            mean_loss=mean_loss - (own + mean_loss) / visits,
            is_right=is_right,
            forgotten=memory.read(index, "forgotten") + (was_right & ~is_right),
            learned=learned.where((learned >= 0) | ~is_right, step.module.current_epoch),
            visits=visits,
        )

    def _write(self, path: Path, data: Any) -> Path:
        assert self.memory is not None
        index = self.memory.seen.nonzero().squeeze(1)
        rows = {name: values[index].cpu() for name, values in self.memory.fields.items()}
        score = _trust(self.memory)[self.score][index].tolist()
        positions = index.tolist()
        ids = {}
        if isinstance(data, ImageDataModule):
            train = data.dataset("train")
            ids = dict(zip(train.rows.tolist(), train.ids, strict=True))
        names = getattr(data, "class_names", None) or range(rows["probability"].shape[1])
        own = rows["probability"].gather(1, rows["given"].unsqueeze(1)).squeeze(1)
        columns = {
            "id": [ids.get(position, position) for position in positions],
            "index": positions,
            "given": [names[k] for k in rows["given"].tolist()],
            "suggested": [names[k] for k in rows["probability"].argmax(1).tolist()],
            "score": score,
            "rank": ranks(score),
            "probability": own.tolist(),
            **{name: rows[name].tolist() for name in ("aum", "loss", "mean_loss", "forgotten")},
            "learned": ["" if epoch < 0 else epoch for epoch in rows["learned"].tolist()],
            "visits": rows["visits"].tolist(),
        }
        order = sorted(range(len(positions)), key=columns["rank"].__getitem__)
        write_csv(path, {name: [column[place] for place in order] for name, column in columns.items()})
        return path

    def _path(self, trainer: Trainer) -> Path:
        log_dir = trainer.log_dir  # all processes ask together
        return Path(self.folder or log_dir or trainer.default_root_dir) / self.filename


def _trust(memory: SampleMemory) -> dict[str, Tensor]:
    """Return each statistic by index, low where the label is suspicious."""
    learned = memory["learned"].float()
    own = memory["probability"].gather(1, memory["given"].clamp(min=0).unsqueeze(1)).squeeze(1)
    return {
        "aum": memory["aum"],
        "probability": own,
        "mean_loss": -memory["mean_loss"],
        "loss": -memory["loss"],
        "forgotten": -memory["forgotten"].float(),
        "learned": -learned.where(learned >= 0, torch.inf),
    }
