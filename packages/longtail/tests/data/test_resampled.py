from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser

from medbolt.core import ImageDataModule, UserError
from medbolt.longtail import (
    ClassBalancedSampler,
    LongTailed,
    ProgressivelyBalancedSampler,
    RepeatFactorSampler,
    Resampled,
)


def test_only_training_is_drawn_by_the_sampler(bright, make_task, make_trainer):
    data = Resampled(bright())
    counts = torch.zeros(4)
    for epoch in range(20):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        counts += sum(torch.bincount(batch["target"], minlength=4) for batch in loader)
    assert (counts / counts.sum() - 0.25).abs().max() < 3 * (0.25 * 0.75 / counts.sum()) ** 0.5
    assert data.class_counts == bright().class_counts == [40, 20, 10, 5]
    assert torch.equal(next(iter(data.val_dataloader()))["target"], next(iter(bright().val_dataloader()))["target"])
    make_trainer().fit(make_task(), data)


def test_options_of_the_sampler_are_the_user_s_the_rest_comes_from_the_data(bright):
    sampler = Resampled(bright(), partial(ProgressivelyBalancedSampler, epochs=9)).train_dataloader().sampler
    assert (type(sampler), sampler.epochs, sampler.seed) == (ProgressivelyBalancedSampler, 9, 7)
    assert (sampler.num_replicas, sampler.rank, sampler.tail) == (1, 0, "drop")


def test_it_is_configured_like_any_class(tmp_path):
    config = tmp_path / "data.yaml"
    config.write_text("""
data:
  class_path: medbolt.longtail.Resampled
  init_args:
    data: {class_path: medbolt.core.MedMNISTDataModule, init_args: {name: breastmnist}}
    sampler: {class_path: medbolt.longtail.RepeatFactorSampler, init_args: {threshold: 0.4}}
""")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    data = parser.instantiate_classes(parser.parse_path(str(config))).data
    sampler = data.sampler(torch.tensor([0] * 9 + [1]), 3, 2, 1, "repeat")
    assert isinstance(sampler, RepeatFactorSampler)
    assert (sampler.seed, sampler.num_replicas, sampler.rank, sampler.tail) == (3, 2, 1, "repeat")
    assert sampler.factors[-1] == 2


@pytest.mark.parametrize("wrap", [lambda d: Resampled(LongTailed(d, 8)), lambda d: LongTailed(Resampled(d), 8)])
def test_wrappers_may_be_nested_either_way(wrap, bright, make_task, make_trainer):
    data = wrap(bright())
    make_trainer().fit(make_task(), data)
    sampler = data.train_dataloader().sampler
    assert isinstance(sampler, ClassBalancedSampler)
    assert sampler.epoch_size == sum(data.class_counts) == 75


def test_data_without_labels_are_named(bright):
    with pytest.raises(UserError, match="Bright has no labels to sample by"):
        Resampled(bright("none")).train_dataloader()
