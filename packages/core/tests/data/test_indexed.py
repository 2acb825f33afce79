import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
    get_worker_info,
)
from toys import trainer

from medbolt.core import Indexed, ObjectiveCallback, UserError

SIZE = 12


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def as_tuple(x, y):
    return x, y


def as_dict(x, y):
    return {"x": x, "y": y}


def nested(x, y):
    return {"views": [(x, x + 1), {"again": x}], "meta": Point(x, y), "name": f"sample {int(y)}"}


def alone(x, y):
    return torch.cat([x, y[None].float()])


class Points(Dataset):
    """Sample ``i`` has target ``i``, so that an index can be checked against the batch."""

    def __init__(self, structure=as_tuple):
        self.structure = structure
        self.targets = list(range(SIZE))

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        return self.structure(torch.full((4,), float(i)), torch.tensor(i))


class Data(LightningDataModule):
    """A foreign data module: nothing of it knows medbolt."""

    def __init__(self, structure=as_tuple, **options):
        super().__init__()
        self.dataset = Points(structure)
        self.options = {"batch_size": 5, "shuffle": True} | options
        self.calls = []
        self.classes = ["a", "b"]

    def setup(self, stage):
        self.calls.append(f"setup {stage.value} of {type(self.trainer).__name__}")

    def teardown(self, stage):
        self.calls.append(f"teardown {stage.value}")

    def train_dataloader(self):
        return DataLoader(self.dataset, **self.options)


class WithEvaluation(Data):
    def val_dataloader(self):
        return DataLoader(self.dataset, batch_size=4)

    test_dataloader = val_dataloader

    def predict_dataloader(self):
        return [self.val_dataloader(), self.val_dataloader()]


class Module(LightningModule):
    """Remembers the batches that reach its steps."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.batches, self.indices, self.evaluated = [], [], []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        self.indices.append(getattr(self.trainer.datamodule, "batch_index", None))
        return self.layer(torch.ones(4)).sum()

    def validation_step(self, batch, batch_idx):
        self.evaluated.append(batch)

    test_step = validation_step

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, module=None, **options):
    module = module or Module()
    torch.manual_seed(3)
    trainer(**options).fit(module, datamodule=data)
    return module


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return type(first) is type(second) and all(map(same, first, second))
    return first == second


def target(batch):
    """Return the targets, wherever the structure has them."""
    if isinstance(batch, torch.Tensor):
        return batch[:, -1].long()
    return batch["meta"].y if "meta" in batch else batch["y"] if isinstance(batch, dict) else batch[1]


@pytest.mark.parametrize("structure", [as_tuple, as_dict, nested, alone])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_module_sees_what_it_saw_before_and_the_index_is_right(structure, workers):
    plain = fit(Data(structure, num_workers=workers))
    indexed = fit(Indexed(Data(structure, num_workers=workers)), epochs=2)
    assert same(plain.batches, indexed.batches[:3])
    for batch, index in zip(indexed.batches, indexed.indices, strict=True):
        assert torch.equal(target(batch), index)
    assert not same(indexed.batches[:3], indexed.batches[3:])


class Unusual(BatchSampler):
    """Batches of unequal size that share samples."""

    def __init__(self):
        super().__init__(RandomSampler(range(SIZE)), 2, False)

    def __iter__(self):
        yield from ([0], [3, 0, 3], [11, 10])

    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"batch_size": 1, "shuffle": False, "batch_sampler": Unusual()}, 3),
        ({"shuffle": False, "sampler": WeightedRandomSampler([0.0] * 6 + [1.0] * 6, 10)}, 2),
        ({"drop_last": True, "num_workers": 2, "persistent_workers": True, "prefetch_factor": 1}, 2),
        ({"generator": torch.Generator().manual_seed(1)}, 3),
    ],
    ids=["batch sampler", "weighted", "workers", "generator"],
)
def test_samples_are_drawn_as_before(options, batches):
    def drawn(wrap):
        torch.manual_seed(0)
        if "generator" in options:
            options["generator"].manual_seed(1)
        return fit(wrap(Data(**options))).batches

    plain, indexed = drawn(lambda data: data), drawn(Indexed)
    assert same(plain, indexed)
    assert len(indexed) == batches


def test_a_collate_function_of_the_user_sees_the_samples_it_saw_before():
    def collate(samples):
        assert all(type(sample) is tuple for sample in samples)
        return torch.stack([y for _, y in samples])

    module = fit(Indexed(Data(collate_fn=collate)))
    assert all(torch.equal(batch, index) for batch, index in zip(module.batches, module.indices, strict=True))


HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def adding(amount):
    class Adds:
        """Adds a power of ten for each hook that was called."""

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + amount, batch[1]]

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return [batch[0] + 10 * amount, batch[1]]

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + 100 * amount, batch[1]]

    return Adds


@pytest.mark.parametrize("owner", ["data", "module", "both", "neither"])
def test_transfer_hooks_are_called_as_without_the_wrapper(owner):
    class HookedData(adding(1), WithEvaluation):
        pass

    class HookedModule(adding(5), Module):
        pass

    def run(wrap):
        data = HookedData(shuffle=False) if owner in ("data", "both") else WithEvaluation(shuffle=False)
        module = HookedModule() if owner in ("module", "both") else Module()
        fit(wrap(data), module)
        return module

    plain, indexed = run(lambda data: data), run(Indexed)
    assert same(plain.batches, indexed.batches)
    assert same(plain.evaluated, indexed.evaluated)
    added = {"data": 111, "module": 555, "both": 111, "neither": 0}[owner]
    assert indexed.batches[0][0][0, 0] == added


def test_evaluation_is_the_wrapped_data_module_s():
    module, data = Module(), Indexed(WithEvaluation())
    fit(data, module)
    trainer().test(module, datamodule=data, verbose=False)
    assert [batch[1].tolist() for batch in module.evaluated] == [list(range(i, i + 4)) for i in (0, 4, 8)] * 2
    first, second = trainer().predict(module, datamodule=data)
    assert same(first, second)


def test_a_data_module_without_validation_trains_without_it():
    data = Data()
    module = fit(Indexed(data))
    assert len(module.batches) == 3
    assert module.evaluated == []
    assert data.calls == ["setup fit of Trainer", "teardown fit"]


def test_everything_else_is_the_wrapped_data_module_s():
    class Own(Data):
        def __init__(self):
            super().__init__()
            self.prepare_data_per_node = False
            self.prepared, self.failed = 0, None

        def prepare_data(self):
            self.prepared += 1

        def on_exception(self, exception):
            self.failed = exception

        def state_dict(self):
            return {"step": 3}

        def load_state_dict(self, state_dict):
            self.loaded = state_dict

    class Fails(Module):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("boom")

    data = Own()
    indexed = Indexed(data)
    assert indexed.classes == ["a", "b"]
    assert not indexed.prepare_data_per_node
    assert indexed.state_dict() == {"step": 3}
    indexed.load_state_dict({"step": 4})
    assert data.loaded == {"step": 4}
    with pytest.raises(RuntimeError, match="boom"):
        fit(indexed, Fails())
    assert data.prepared == 1
    assert str(data.failed) == "boom"
    with pytest.raises(AttributeError, match="nothing"):
        indexed.nothing  # noqa: B018


def test_size_and_fingerprint_are_the_training_set_s():
    data = Data()
    indexed = Indexed(data)
    assert indexed.train_size == SIZE
    same_labels, other = indexed.fingerprint, Indexed(Data())
    other.data.dataset.targets = list(range(1, SIZE + 1))
    assert Indexed(Data()).fingerprint == same_labels != other.fingerprint


def test_another_random_split_has_another_fingerprint():
    first, second, third = Data(), Data(), Data()
    first.dataset, second.dataset, third.dataset = (Subset(Points(), rows) for rows in ([0, 1], [0, 1], [0, 2]))
    assert Indexed(first).fingerprint == Indexed(second).fingerprint != Indexed(third).fingerprint


@pytest.mark.parametrize(
    "targets",
    [torch.arange(SIZE), torch.arange(SIZE).numpy(), list(range(SIZE)), tuple("abcdefghijkl"), [{"box": [1]}] * SIZE],
    ids=["tensor", "array", "list", "names", "boxes"],
)
def test_targets_of_any_kind_have_a_fingerprint(targets):
    first, second, third = Data(), Data(), Data()
    first.dataset.targets, second.dataset.targets, third.dataset.targets = targets, targets, targets[:-1]
    assert Indexed(first).fingerprint == Indexed(second).fingerprint != Indexed(third).fingerprint
    del first.dataset.targets
    assert len(Indexed(first).fingerprint) == 64


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(4), torch.tensor(0)


class OwnLoader(DataLoader):
    def __init__(self, dataset, size):
        super().__init__(dataset, batch_size=size)


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        (
            lambda: DataLoader(Endless()),
            r"Indexed needs Given.train_dataloader\(\) to return one DataLoader over a map",
        ),
        (lambda: CombinedLoader({"a": DataLoader(Points())}), "it returned CombinedLoader; yield the index"),
        (lambda: [DataLoader(Points()), DataLoader(Points())], "it returned list"),
        (lambda: DataLoader(Points(), batch_size=None), "Indexed needs a DataLoader that batches"),
        (lambda: OwnLoader(Points(), 4), "a OwnLoader cannot be made over other samples"),
    ],
    ids=["iterable", "combined", "list", "unbatched", "own loader"],
)
def test_loaders_that_cannot_be_indexed_are_refused(loader, sentence):
    class Given(Data):
        def train_dataloader(self):
            return loader()

    with pytest.raises(UserError, match=sentence):
        fit(Indexed(Given()))


def test_no_index_is_left_over_from_the_fit():
    data = Indexed(WithEvaluation())
    fit(data)
    assert data.batch_index is None


def test_an_objective_gets_the_index_under_double_precision_and_accumulation():
    class Checks(ObjectiveCallback):
        checked = 0

        def objective(self, step):
            assert torch.equal(step.index, step.target)
            self.checked += len(step.index)
            return step.loss()

    class Classifier(Module):
        def __init__(self):
            super().__init__()
            self.model, self.criterion = nn.Linear(4, SIZE), nn.CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch[0]), batch[1])

    callback = Checks()
    trainer(callback, precision="64-true", accumulate_grad_batches=2, epochs=2).fit(
        Classifier(), datamodule=Indexed(Data())
    )
    assert callback.checked == 2 * SIZE


class Sized(WithEvaluation):
    def __init__(self):
        super().__init__()
        self.batch_size = 1

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.batch_size)


def test_attributes_are_set_on_the_wrapped_data_module():
    data = Sized()
    indexed = Indexed(data)
    indexed.batch_size = 4
    assert data.batch_size == 4
    assert "batch_size" not in vars(indexed)
    indexed.note, indexed.batch_index = "mine", torch.tensor(1)
    assert not hasattr(data, "note")
    assert not hasattr(data, "batch_index")
    assert copy.deepcopy(indexed).batch_size == 4


def test_the_tuner_tries_the_same_batch_sizes_as_without_the_wrapper(tmp_path):
    def tried(wrap):
        data, module = Sized(), Module()
        tuner = Tuner(trainer(default_root_dir=tmp_path))
        tuner.scale_batch_size(module, datamodule=wrap(data), init_val=2, max_trials=2, steps_per_trial=1)
        return [len(batch[1]) for batch in module.batches], data.batch_size

    sizes, chosen = tried(Indexed)
    assert (sizes, chosen) == tried(lambda data: data)
    assert sizes[-1] == 4


def test_the_wrapped_data_module_has_the_trainer_while_it_prepares():
    class Prepares(Data):
        def prepare_data(self):
            self.seen = self.trainer

    data = Prepares()
    indexed = Indexed(data)
    assert indexed.trainer is None
    fit(indexed)
    assert data.seen is not None
    assert data.seen is indexed.trainer


class Opened(Points):
    """Is opened in its worker: by its method, or by an attribute that it has not yet."""

    def open(self):
        self.factor = 2

    def __getitem__(self, i):
        return self.structure(torch.full((4,), float(i)) * self.factor, torch.tensor(i))


def by_method(worker):
    get_worker_info().dataset.open()


def by_attribute(worker):
    get_worker_info().dataset.factor = 2


@pytest.mark.parametrize("opens", [by_method, by_attribute])
def test_a_worker_opens_the_data_set_that_it_knows(opens):
    data = Data(num_workers=1, worker_init_fn=opens)
    data.dataset = Opened()
    for x, y in fit(Indexed(data)).batches:
        assert torch.equal(x[:, 0], 2 * y)


def test_the_loader_s_data_set_is_still_the_user_s():
    data = Data()
    data.dataset = Subset(Points(), [5, 3])
    dataset = Indexed(data).train_dataloader().dataset
    assert isinstance(dataset.dataset, Points)
    assert dataset.indices == [5, 3]
    for copied in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert copied.indices == [5, 3]
        assert copied[1][0] == 1
    assert not hasattr(Indexed(Data()).train_dataloader().dataset, "__getitems__")


class Batched(Points):
    """Reads samples only by the batch."""

    def __getitem__(self, i):
        raise NotImplementedError

    def __getitems__(self, positions):
        return [super(Batched, self).__getitem__(i) for i in positions]


def columns(samples):
    return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


class Collated(Batched):
    """Puts the batch together itself."""

    def __getitems__(self, positions):
        return columns(super().__getitems__(positions))


@pytest.mark.parametrize(
    ("dataset", "options"), [(Batched, {}), (Collated, {"collate_fn": tuple})], ids=["samples", "columns"]
)
def test_a_data_set_that_reads_whole_batches_does_so(dataset, options):
    data = Data(**options)
    data.dataset = dataset()
    module = fit(Indexed(data))
    assert len(module.batches) == 3
    for batch, index in zip(module.batches, module.indices, strict=True):
        assert torch.equal(batch[1], index)
