import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import UserError
from medbolt.core.data.loader import ResumableDataLoader
from medbolt.core.data.sampler import EpochSampler


def loader(size=14, batch_size=4, **options):
    return ResumableDataLoader(range(size), batch_size, sampler=EpochSampler(range(size), seed=3), **options)


def lists(batches):
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_an_interrupted_epoch_goes_on_where_it_stopped(done, options):
    whole = loader()
    whole.sampler.set_epoch(5)
    expected = lists(whole)
    interrupted = loader(**options)
    interrupted.sampler.set_epoch(5)
    batches = iter(interrupted)
    head = lists(next(batches) for _ in range(done))
    state = interrupted.state_dict()
    assert state == {"epoch": 5, "batches": done, "batch_size": 4}

    resumed = loader(**options)
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(5)
    assert head + lists(resumed) == expected
    assert resumed.state_dict() == {"epoch": 5, "batches": len(expected), "batch_size": 4}
    assert lists(resumed) == expected  # a restored position counts once
    resumed.sampler.set_epoch(6)
    assert lists(resumed) != expected


def test_a_position_of_another_epoch_does_not_count():
    restored = loader()
    restored.load_state_dict({"epoch": 2, "batches": 3, "batch_size": 9})
    restored.sampler.set_epoch(3)
    assert len(lists(restored)) == 4


def test_an_epoch_may_go_on_with_other_processes_but_not_with_other_batches():
    alone = loader(16, 4)
    whole = lists(alone)
    for rank in range(2):
        sampler = EpochSampler(range(16), seed=3, num_replicas=2, rank=rank)
        shared = ResumableDataLoader(range(16), 2, sampler=sampler)
        shared.load_state_dict({"epoch": 0, "batches": 2, "batch_size": 4})
        assert lists(shared) == [batch[rank::2] for batch in whole[2:]]
    alone.load_state_dict({"epoch": 0, "batches": 2, "batch_size": 8})
    with pytest.raises(UserError, match="with 8 samples a batch over all processes, here it is 4; resume with"):
        next(iter(alone))


def test_an_epoch_that_is_left_early_is_followed_by_a_whole_one():
    for options in ({}, {"num_workers": 2, "persistent_workers": True}):
        left = loader(**options)
        next(iter(left))
        assert len(lists(left)) == 4


def test_drop_last_and_length():
    assert len(loader()) == 4
    assert len(loader(drop_last=True)) == 3
    resumed = loader(drop_last=True)
    resumed.load_state_dict({"epoch": 0, "batches": 2, "batch_size": 4})
    assert len(lists(resumed)) == 1


def test_samples_without_batches():
    samples = ResumableDataLoader(range(5), batch_size=None, sampler=EpochSampler(range(5), shuffle=False))
    samples.load_state_dict({"epoch": 0, "batches": 3, "batch_size": 1})
    assert list(samples) == [3, 4]


def fit(*callbacks, path=None, workers=0, **options):
    module = ToyClassifier(dropout=0.0)
    trainer(*callbacks, **options).fit(module, datamodule=ToyImages(num_workers=workers), ckpt_path=path)
    return module


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_with_limited_batches_resumes_inside_and_between_epochs(workers, tmp_path):
    saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    whole = fit(saves, epochs=3, limit_train_batches=3, enable_checkpointing=True, workers=workers)
    assert [len({b for e, b, _ in whole.seen if e == epoch}) for epoch in range(3)] == [3, 3, 3]
    for step in (2, 4, 6):  # inside the first and the second epoch, and after the last batch of the second
        resumed = fit(path=tmp_path / f"step={step}.ckpt", epochs=3, limit_train_batches=3, workers=workers)
        assert resumed.seen == whole.seen[step:]
        assert torch.equal(weights(resumed), weights(whole))


def test_overfitting_on_a_few_batches_can_be_checkpointed(tmp_path):
    module = fit(epochs=2, overfit_batches=2, enable_checkpointing=True, default_root_dir=tmp_path)
    assert module.seen[0][2] == module.seen[2][2] == [0, 1, 2, 3]
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_prediction_visits_every_sample_once_in_order():
    predicted = trainer().predict(ToyClassifier(), datamodule=ToyImages(batch_size=4))
    assert torch.cat(predicted).tolist() == list(range(9))
