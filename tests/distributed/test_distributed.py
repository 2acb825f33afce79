"""Two processes with batch B do what one does with batch 2 B."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import attempt, run
from torch import nn
from torch.utils.data import DataLoader, Sampler, WeightedRandomSampler
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ClassificationTask, DataModuleWrapper, Indexed, ObjectiveCallback, RandomState

pytestmark = pytest.mark.ddp
FIELDS = {
    "probability": torch.zeros(3),
    "brightness": torch.tensor(0.0),  # of the augmented picture
    "visits": torch.tensor(0),
    "step": torch.tensor(-1),
}


class Averages(ObjectiveCallback):
    """Remembers a moving average of the probabilities, as early-learning regularization does."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, **FIELDS)

    def objective(self, step):
        old = self.memory.read(step.index, "probability")
        self.memory.write(
            step.index,
            probability=0.7 * old + 0.3 * step.logits.softmax(1),
            brightness=step.inputs[0].sum((1, 2, 3)),
            visits=self.memory.read(step.index, "visits") + 1,
            step=torch.full_like(step.index, step.module.global_step),
        )
        return step.loss()


class WithPeer(ObjectiveCallback):
    """Trains a second network on the same batches."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            torch.manual_seed(trainer.global_rank)  # processes start apart; DDP brings them together
            self.peer = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
            self.attach(pl_module, "peer", self.peer)

    def objective(self, step):
        return step.loss() + step.loss(logits=self.peer(*step.inputs))


class Odd(DataModuleWrapper):
    def load(self, split):
        dataset = super().load(split)
        return dataset.select(range(1, len(dataset), 2)) if split == "train" else dataset


def batch_size(whole: int) -> int:
    return whole // trainer().world_size


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def remembered(wrap=lambda data: data, **options: Any) -> dict[str, Any]:
    module, callback = Plain(), Averages()
    data = wrap(ToyImages(batch_size=batch_size(8), **options))
    trainer(callback, epochs=3).fit(module, datamodule=data)
    return {"memory": callback.memory.fields | {"seen": callback.memory.seen}, "seen": module.seen} | state(module)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {"weights": weights(module)}


def peer() -> dict[str, Any]:
    callback, module = WithPeer(), Plain()
    trainer(callback, epochs=2).fit(module, datamodule=ToyImages(batch_size=batch_size(8)))
    return state(module) | {"peer": weights(callback.peer)}


def evaluated(stage: str, size: int) -> dict[str, Any]:
    module, data = ToyClassifier(), ToyImages({"test": size, "val": size}, batch_size=batch_size(4))
    evaluation = trainer()
    getattr(evaluation, stage)(module, datamodule=data, verbose=False)
    return {"metrics": {k: float(v) for k, v in evaluation.callback_metrics.items()}, "evaluated": module.evaluated}


def predicted() -> list[int]:
    return torch.cat(trainer().predict(ToyClassifier(), datamodule=ToyImages(batch_size=batch_size(4)))).tolist()


def validated_in_fit(size: int) -> dict[str, Any]:
    """Fit with batch norm, whose buffers DDP sends round; then evaluate the weights by hand."""
    module, data = ToyClassifier(), ToyImages({"val": size}, batch_size=batch_size(8))
    fit = trainer(epochs=2)
    fit.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    module.eval()
    whole = torch.utils.data.default_collate([data.val_dataloader().dataset[i] for i in range(size)])
    with torch.no_grad():
        logits = module.model(whole["image"])
    loss = float(module.criterion(logits, whole["target"]))
    recalls = [float((logits.argmax(1) == c)[whole["target"] == c].float().mean()) for c in range(3)]
    return {"metrics": logged, "by hand": {"loss": loss, "recall": sum(recalls) / 3}, "evaluated": module.evaluated}


def everything() -> dict[str, Any]:
    return {
        "full batches": remembered(),
        "uneven": remembered(sizes={"train": 21}),
        "tail": remembered(sizes={"train": 21}, drop_last=False),
        "subset": remembered(Odd, drop_last=False),
        "workers": remembered(num_workers=2),
        "peer": peer(),
        "predicted": predicted(),
        **{f"{stage} {size}": evaluated(stage, size) for stage in ("test", "validate") for size in (8, 9, 11)},
        **{f"fit {size}": validated_in_fit(size) for size in (8, 9, 3, 11)},
    }


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


MEMORIES = ["full batches", "uneven", "subset", "workers"]


@pytest.mark.parametrize("name", MEMORIES)
def test_processes_see_together_the_batches_of_one(results, name):
    one, two = results
    shares = [process[name]["seen"] for process in two]
    assert len({len(share) for share in [one[name]["seen"], *shares]}) == 1
    for (epoch, batch, whole), *parts in zip(one[name]["seen"], *shares, strict=True):
        assert [part[:2] for part in parts] == [(epoch, batch)] * 2
        assert [index for pair in zip(*(part[2] for part in parts), strict=True) for index in pair] == whole


@pytest.mark.parametrize("name", MEMORIES)
def test_memory_and_weights_are_those_of_one_process(results, name):
    one, two = results
    for process in two:
        for field in ("visits", "step", "brightness"):  # the same pictures, augmented the same
            assert torch.equal(process[name]["memory"][field], one[name]["memory"][field])
        assert torch.equal(process[name]["memory"]["seen"], one[name]["memory"]["seen"])
        torch.testing.assert_close(process[name]["memory"]["probability"], one[name]["memory"]["probability"])
        torch.testing.assert_close(process[name]["weights"], one[name]["weights"])
    assert one[name]["memory"]["probability"].ne(0).any()


def test_a_memory_of_a_subset_has_a_row_for_every_sample_of_the_base_set(results):
    one, two = results
    for found in (one, *two):
        assert found["subset"]["memory"]["visits"].tolist() == [0, 3] * 12


def test_a_sample_that_fills_the_last_share_does_no_harm(results):
    one, two = results
    for process in two:
        assert process["tail"]["memory"]["visits"].min() == one["tail"]["memory"]["visits"].min() == 3
    torch.testing.assert_close(two[0]["tail"]["memory"], two[1]["tail"]["memory"], rtol=0, atol=0)


def test_what_is_attached_stays_in_step(results):
    one, two = results
    for name in ("weights", "peer"):
        assert torch.equal(two[0]["peer"][name], two[1]["peer"][name])
        torch.testing.assert_close(two[0]["peer"][name], one["peer"][name])


@pytest.mark.parametrize("size", [8, 9, 11])
@pytest.mark.parametrize("stage", ["test", "validate"])
def test_metrics_count_every_sample_once(results, stage, size):
    one, two = results
    name = f"{stage} {size}"
    visits = [index for process in two for index in process[name]["evaluated"]]
    assert sorted(visits) == one[name]["evaluated"] == list(range(size))
    for process in two:
        assert process[name]["metrics"] == pytest.approx(one[name]["metrics"])


def test_predictions_are_of_every_sample_once(results):
    one, two = results
    assert sorted(two[0]["predicted"] + two[1]["predicted"]) == one["predicted"] == list(range(9))


@pytest.mark.parametrize("size", [8, 9, 3, 11])
def test_validation_inside_a_fit_with_uneven_shares_ends_and_is_exact(results, size):
    for found in (results[0], *results[1]):
        fit = found[f"fit {size}"]
        assert fit["metrics"] == pytest.approx(fit["by hand"], abs=1e-5)
    shares = [process[f"fit {size}"]["evaluated"] for process in results[1]]
    assert sorted(shares[0] + shares[1]) == sorted([*range(size), *range(size)])


def saved_inside_an_epoch(folder: str) -> dict[str, Any]:
    """Save a checkpoint after two batches; return the memory in it and that of the processes then."""
    callback = Averages()
    saves = ModelCheckpoint(folder, "saved", every_n_train_steps=2)
    trainer(callback, saves, max_steps=2, enable_checkpointing=True).fit(Plain(), datamodule=ToyImages())
    saved = torch.load(f"{folder}/saved.ckpt", weights_only=True)["callbacks"][callback.state_key]["memory"]
    return {"saved": saved["fields"] | {"seen": saved["seen"]}, "visits": callback.memory["visits"]}


def test_a_checkpoint_inside_an_epoch_holds_what_all_processes_wrote(tmp_path):
    for found in run(saved_inside_an_epoch, str(tmp_path)):
        assert found["saved"]["visits"].sum() == 2 * 2 * 4
        assert torch.equal(found["saved"]["visits"] > 0, found["saved"]["seen"])
        assert torch.equal(found["saved"]["visits"], found["visits"])


class Fails(ObjectiveCallback):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def objective(self, step):
        if step.module.global_step == 2 and step.module.global_rank == self.rank:
            raise RuntimeError(f"process {self.rank} fails")
        return step.loss()


def failing(rank: int) -> None:
    trainer(Fails(rank), Averages()).fit(ToyClassifier(), datamodule=ToyImages())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_on_one_process_ends_all(rank):
    outcomes = attempt(failing, rank, timeout=60)
    assert f"process {rank} fails" in outcomes[rank].error
    assert "closed by peer" in outcomes[1 - rank].error.lower()


def more_processes_than_samples(split: str) -> None:
    data = ToyImages({split: 1}, drop_last=False)
    if split == "train":
        data.setup = lambda stage: None  # its two other classes are missing
    trainer().fit(ToyClassifier(), datamodule=data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_more_processes_than_samples_are_refused(split):
    for outcome in attempt(more_processes_than_samples, split, timeout=60):
        assert f"UserError: the {split} split has 1 samples for 2 processes; use fewer devices." in outcome.error


class Permutation(Sampler[int]):
    """Somebody else's sampler: it draws from torch's generator, and every process must draw the same."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        yield from torch.randperm(self.size).tolist()


class Sampled(LightningDataModule):
    def __init__(self, sampler: Sampler[int], workers: int) -> None:
        super().__init__()
        self.sampler, self.workers = sampler, workers

    def train_dataloader(self):
        samples = [{"image": torch.full((3, 8, 8), float(i)), "target": i % 3, "index": i} for i in range(16)]
        return DataLoader(samples, batch_size=4, sampler=self.sampler, num_workers=self.workers)


def foreign_samplers(workers: int) -> list[torch.Tensor]:
    found = []
    for sampler in (Permutation(16), WeightedRandomSampler([1.0] * 16, 16, replacement=False)):
        callback = Averages()
        fit = trainer(RandomState(3), callback, epochs=2)
        fit.fit(ToyClassifier(), datamodule=Indexed(Sampled(sampler, workers)))
        found.append(callback.memory["visits"])
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_of_others_still_share_out_every_sample(workers):
    for process in run(foreign_samplers, workers):
        for visits in process:
            assert visits.tolist() == [2] * 16


def task_losses() -> dict[str, float]:
    """Validate a ClassificationTask on nine samples, which two processes share five to four."""
    torch.manual_seed(0)
    data = ToyImages({"val": 9})
    size = data.dataset("val")[0]["image"].numel()
    task = ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(size, data.num_classes)), data.num_classes)
    evaluation = trainer()
    evaluation.validate(task, datamodule=data, verbose=False)
    return {name: float(value) for name, value in evaluation.callback_metrics.items()}


@pytest.mark.ddp
def test_the_loss_of_a_task_is_the_mean_over_all_samples():
    (one,) = run(task_losses, processes=1)
    for process in run(task_losses):
        assert process == pytest.approx(one, rel=1e-5)
