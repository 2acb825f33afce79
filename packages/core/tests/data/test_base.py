from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from torch import nn
from toys import ToyClassifier, ToyImages, trainer

from medbolt.core import DataModuleWrapper, EpochSampler, ImageDataModule, ImageDataset, UserError
from medbolt.core.data.subset import Subset


class Unreadable:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        raise AssertionError("a picture was read")


class Labels(ImageDataModule):
    """Labels without readable pictures."""

    def __init__(self, targets, names=("a", "b"), prefix="", **options):
        super().__init__(**options)
        self.targets, self.names, self.prefix, self.loaded = targets, list(names), prefix, []

    @property
    def class_names(self):
        return self.names

    def load(self, split):
        self.loaded.append(split)
        size = 3 if self.targets is None else len(self.targets)
        return ImageDataset(Unreadable(size), self.targets, [f"{self.prefix}{i}" for i in range(size)])


class Odd(DataModuleWrapper):
    """Keeps the odd samples of the training split."""

    def load(self, split):
        dataset = super().load(split)
        return dataset.select(range(1, len(dataset), 2)) if split == "train" else dataset


class Moved(DataModuleWrapper):
    """Keeps ids and labels, but says they are of other rows."""

    def load(self, split):
        dataset = super().load(split)
        return replace(dataset, index=dataset.rows.flip(0))


def drawn(loader):
    return [batch["index"].tolist() for batch in loader]


def visited(loader):
    return [index for batch in drawn(loader) for index in batch]


def test_labels_tell_classes_and_counts_without_a_picture_and_without_setup():
    data = Labels(torch.tensor([0, 1, 1, 0, 1]), names=("a", "b", "never"))
    assert data.num_classes == 3
    assert data.class_counts == [2, 3, 0]
    assert data.train_targets.tolist() == [0, 1, 1, 0, 1]
    assert data.train_size == 5
    assert len(data.fingerprint) == 64
    assert data.domain_names is None
    assert data.loaded == ["train"]


@pytest.mark.parametrize(
    ("targets", "counts"),
    [
        (torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), [2, 1]),  # findings
        (torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.5, 0.5]]), [2, 1]),  # soft labels
    ],
)
def test_counts_of_labels_that_are_rows(targets, counts):
    assert Labels(targets).class_counts == counts


def test_data_without_labels_say_so():
    with pytest.raises(UserError, match="Labels has no labels to count or to train on; name its label column"):
        Labels(None).class_counts  # noqa: B018


def test_the_fingerprint_is_of_ids_labels_classes_and_index():
    targets = torch.tensor([0, 1, 1, 0, 1])
    same, other = Labels(targets).fingerprint, Labels(targets.flip(0)).fingerprint
    assert Labels(targets.clone(), batch_size=7, seed=4).fingerprint == same
    changed = [
        other,
        Labels(targets, prefix="x").fingerprint,
        Labels(targets, names=("a", "c")).fingerprint,
        Labels(targets.float()[:, None]).fingerprint,
        Odd(Labels(targets)).fingerprint,
        Subset(Labels(targets), fraction=0.5).fingerprint,
        Moved(Labels(targets)).fingerprint,
    ]
    assert same not in changed
    assert len(set(changed)) == len(changed)


def test_augmentation_does_not_depend_on_workers():
    def images(workers):
        data = ToyImages(num_workers=workers, seed=4)
        loader = data.train_dataloader()
        epochs = []
        for epoch in range(2):  # the second with workers that live on
            loader.sampler.set_epoch(epoch)
            epochs.append(torch.cat([batch["image"] for batch in loader]))
        return epochs

    alone, helped = images(0), images(2)
    assert torch.equal(alone[0], helped[0])
    assert torch.equal(alone[1], helped[1])
    assert not torch.equal(alone[0], alone[1])


def test_augmentation_leaves_the_training_process_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loader = ToyImages().train_dataloader()
    for index in loader.sampler:
        loader.dataset[index]
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_loaders_visit_every_sample_once_in_order_without_augmentation():
    data = ToyImages(batch_size=5)
    for loader, size in (
        (data.val_dataloader(), 9),
        (data.test_dataloader(), 9),
        (data.predict_dataloader(), 9),
        (data.train_eval_dataloader(), 24),
    ):
        assert visited(loader) == list(range(size))
    first, second = (torch.cat([b["image"] for b in data.train_eval_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("drop_last", "batch_size", "batches"),
    [("auto", 5, 4), ("auto", 30, 1), (True, 5, 4), (False, 5, 5), (True, 24, 1)],
)
def test_drop_last(drop_last, batch_size, batches):
    loader = ToyImages(drop_last=drop_last, batch_size=batch_size).train_dataloader()
    assert len(loader) == len(drawn(loader)) == batches


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size of ToyImages must be a whole number from 1 on, got 0."),
        ({"num_workers": -1}, "num_workers of ToyImages must be a whole number from 0 on, got -1."),
        ({"batch_size": (8, 8)}, "batch_size of ToyImages must be a whole number from 1 on, got (8, 8)."),
    ],
)
def test_numbers_out_of_range_are_refused(options, sentence):
    with pytest.raises(UserError) as raised:
        ToyImages(**options)
    assert str(raised.value) == sentence


def test_a_batch_larger_than_the_data_with_drop_last_is_refused():
    with pytest.raises(UserError, match="batch_size 30 with drop_last leaves no batch of the 24 training samples"):
        ToyImages(drop_last=True, batch_size=30).train_dataloader()


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "train"), ("fit", "val"), ("validate", "val"), ("test", "test"), ("predict", "test")]
)
def test_an_empty_split_is_refused_where_it_is_needed(stage, split):
    with pytest.raises(UserError, match=f"the {split} split of ToyImages is empty"):
        ToyImages({split: 0}).setup(stage)


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "test"), ("validate", "train"), ("test", "val"), ("predict", "val")]
)
def test_an_empty_split_is_nobody_s_concern_elsewhere(stage, split):
    data = ToyImages({split: 0})
    data.setup(stage)  # does not raise
    assert len(data.dataset(split)) == 0


def test_classes_without_training_samples_are_refused():
    class Missing(ToyImages):
        def load(self, split):
            dataset = super().load(split)
            return dataset.select((dataset.targets == 1).nonzero().flatten())

    with pytest.raises(UserError, match="classes 'none', 'severe' of Missing are without training samples; add some"):
        Missing().setup("fit")
    Missing().setup("test")


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_is_refused_by_name(label):
    class Wrong(ToyImages):
        def load(self, split):
            dataset = super().load(split)
            dataset.targets[4] = label
            return dataset

    with pytest.raises(
        UserError, match=f"sample 'test-4' of the test split has label {label}, but Wrong has 3 classes"
    ):
        Wrong().setup("test")


def test_a_wrapper_keeps_everything_but_the_split():
    inner = ToyImages(batch_size=5, seed=9, num_workers=0)
    wrapped = Odd(inner)
    assert wrapped.class_names == inner.class_names
    assert wrapped.train_size == inner.train_size == 24
    assert wrapped.class_counts == [4, 4, 4]
    assert set(visited(wrapped.train_dataloader())) <= set(range(1, 24, 2))
    indices = visited(wrapped.train_eval_dataloader())
    assert indices == list(range(1, 24, 2))  # positions in the base set
    assert [f"train-{i}" for i in indices] == list(wrapped.dataset("train").ids)
    assert visited(wrapped.val_dataloader()) == list(range(9))
    assert wrapped.train_transform is inner.train_transform
    assert len(inner.dataset("train")) == 24


def test_wrappers_nest_and_share_what_is_loaded():
    inner = Labels(torch.arange(20) % 2)
    outer = Odd(Odd(inner))
    assert outer.dataset("train").rows.tolist() == [3, 7, 11, 15, 19]
    assert outer.train_size == 20
    assert inner.loaded == ["train"]


def test_a_wrapper_draws_as_the_wrapped_data_module_does():
    class Backwards(EpochSampler):
        def order(self):
            return torch.arange(len(self.dataset)).flip(0)

    class BackwardsImages(ToyImages):
        def train_sampler(self, dataset, tail):
            return Backwards(dataset, True, self.seed, self._world_size, self._rank, tail)

    assert drawn(Odd(BackwardsImages()).train_dataloader()) == [[23, 21, 19, 17], [15, 13, 11, 9], [7, 5, 3, 1]]


def test_a_wrapper_transfers_batches_as_the_wrapped_data_module_does():
    class Doubled(ToyImages):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch | {"index": batch["index"] * (2 if self.trainer.training else 3)}

    class Transfers(ToyClassifier):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return batch | {"index": batch["index"] + 1}

    module = Transfers()
    trainer().fit(module, datamodule=Odd(Odd(Doubled({"val": 4}))))
    assert {index for _, _, batch in module.seen for index in batch} <= {8, 16, 24, 32, 40, 48}
    assert module.evaluated == [3, 6, 9, 12]


class Hooks(ToyImages):
    """Tells of its hooks; it has no test split, but Held has."""

    def __init__(self, calls):
        super().__init__({"test": 0})
        self.calls = calls

    def setup(self, stage):
        self.calls.append(("inner setup", stage, self.trainer is not None))
        super().setup(stage)

    def teardown(self, stage):
        self.calls.append(("inner teardown", stage, self.trainer is not None))
        super().teardown(stage)


class Held(DataModuleWrapper):
    """Tests on training samples."""

    def load(self, split):
        return super().load("train" if split == "test" else split)

    def setup(self, stage):
        super().setup(stage)
        self.data.calls.append(("outer setup", stage, self.trainer is not None))

    def teardown(self, stage):
        self.data.calls.append(("outer teardown", stage, self.trainer is not None))
        super().teardown(stage)


@pytest.mark.parametrize("wrap", [Held, lambda data: Odd(Held(data))], ids=["once", "twice"])
def test_a_wrapper_sets_up_and_tears_down_the_wrapped_data_module_once_from_within(wrap):
    calls = []
    trainer().test(ToyClassifier(), datamodule=wrap(Hooks(calls)), verbose=False)
    order = ("inner setup", "outer setup", "outer teardown", "inner teardown")
    assert calls == [(hook, "test", True) for hook in order]


def test_what_is_wrapped_is_checked_again_on_its_own():
    inner = Hooks([])
    Held(inner).setup("test")
    with pytest.raises(UserError, match="the test split of Hooks is empty"):
        inner.setup("test")
    with pytest.raises(UserError, match="the test split of Odd is empty"):
        Odd(Hooks([])).setup("test")


def test_an_empty_sequential_is_a_transform_that_does_nothing():
    data = ToyImages(train_transform=nn.Sequential(), eval_transform=nn.Sequential())
    assert data.train_dataloader().dataset[0]["image"].dtype == torch.uint8
    assert data.val_dataloader().dataset[0]["image"].dtype == torch.uint8


def test_a_wrapper_prepares_the_wrapped_data_module():
    class Downloads(ToyImages):
        prepared = 0

        def prepare_data(self):
            self.prepared += 1

    inner = Downloads()
    trainer().test(ToyClassifier(), datamodule=Odd(inner), verbose=False)
    assert inner.prepared == 1


class Renamed(ToyImages):
    class_names = ["x", "y", "z"]


@pytest.fixture
def checkpoint(tmp_path):
    saves = ModelCheckpoint(tmp_path, "saved")
    trainer(saves, enable_checkpointing=True).fit(ToyClassifier(), datamodule=ToyImages())
    return tmp_path / "saved.ckpt"


def test_training_goes_on_with_the_same_data_only(checkpoint):
    trainer(epochs=2).fit(ToyClassifier(), datamodule=ToyImages(batch_size=6), ckpt_path=checkpoint)
    with pytest.raises(
        UserError, match=r"the checkpoint belongs to other training data .* resume with the data it was"
    ):
        trainer(epochs=2).fit(ToyClassifier(), datamodule=ToyImages({"train": 27}), ckpt_path=checkpoint)
    with pytest.raises(
        UserError, match="the checkpoint was not trained on Odd; resume with the data it was trained on"
    ):
        trainer(epochs=2).fit(ToyClassifier(), datamodule=Odd(ToyImages()), ckpt_path=checkpoint)
    trainer().test(ToyClassifier(), datamodule=ToyImages({"train": 27}), ckpt_path=checkpoint, verbose=False)


def test_data_that_were_resumed_once_are_checked_again(checkpoint, tmp_path):
    odd = Odd(ToyImages())
    saves = ModelCheckpoint(tmp_path, "odd")
    trainer(saves, enable_checkpointing=True).fit(ToyClassifier(), datamodule=odd)
    trainer(epochs=2).fit(ToyClassifier(), datamodule=odd, ckpt_path=tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match="the checkpoint was not trained on Odd"):
        trainer(epochs=2).fit(ToyClassifier(), datamodule=odd, ckpt_path=checkpoint)


def test_a_search_for_the_learning_rate_is_no_resuming(tmp_path):
    search = LearningRateFinder(num_training_steps=5)
    module = ToyClassifier()
    trainer(search, enable_checkpointing=True, default_root_dir=tmp_path).fit(module, datamodule=ToyImages())
    assert len(module.seen) == 5 + 6


def test_a_checkpoint_of_other_classes_is_refused(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    with pytest.raises(UserError, match="trained on classes 'none', 'mild', 'severe', these data have 'x', 'y', 'z'"):
        Renamed().load_state_dict(saved["ToyImages"])
