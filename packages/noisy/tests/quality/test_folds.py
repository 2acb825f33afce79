import pytest
import torch

from medbolt.core import Subset, SyntheticFundusDataModule, UserError
from medbolt.noisy import CrossValidationFold, NoisyLabels, SymmetricNoise


@pytest.fixture
def fundus():
    return SyntheticFundusDataModule(200, 40, 40, image_size=32, masks=False)


def test_every_sample_is_held_out_once_and_never_trained_on_then(fundus):
    held_out = []
    for fold in range(4):
        data = CrossValidationFold(fundus, 4, fold)
        train, test = data.dataset("train"), data.dataset("test")
        assert not set(train.ids) & set(test.ids)
        assert not set(train.groups) & set(test.groups)
        assert len(train) + len(test) == 200
        assert test.ids == [fundus.dataset("train").ids[row] for row in test.rows]
        held_out += test.ids
    assert sorted(held_out) == sorted(fundus.dataset("train").ids)


def test_classes_are_spread_evenly(fundus):
    counts = torch.tensor(fundus.class_counts)
    for fold in range(4):
        part = torch.bincount(CrossValidationFold(fundus, 4, fold).dataset("test").targets, minlength=5)
        assert ((part - counts / 4).abs() <= 2.5).all()


def test_validation_and_everything_else_stay(fundus):
    data = CrossValidationFold(fundus, 4, 1)
    assert data.dataset("val").ids == fundus.dataset("val").ids
    assert (data.train_size, data.num_classes, data.domain_names) == (200, 5, fundus.domain_names)
    batch = next(iter(data.predict_dataloader()))
    assert batch["index"].tolist() == data.dataset("test").rows[:32].tolist()
    assert data.fingerprint != CrossValidationFold(fundus, 4, 2).fingerprint


def test_folds_depend_on_seed_and_names_only(fundus):
    rows = CrossValidationFold(fundus, 4, 1, seed=3).dataset("test").rows
    again = SyntheticFundusDataModule(200, 10, 10, image_size=64, batch_size=3)
    assert CrossValidationFold(again, 4, 1, seed=3).dataset("test").rows.tolist() == rows.tolist()
    assert CrossValidationFold(fundus, 4, 1, seed=4).dataset("test").rows.tolist() != rows.tolist()


def test_of_a_subset_with_noisy_labels(fundus):
    noisy = NoisyLabels(fundus, SymmetricNoise(0.3))
    data = CrossValidationFold(Subset(noisy, fraction=0.5), 3, 2)
    test = data.dataset("test")
    assert (test.targets == noisy.train_targets[test.rows]).all()
    assert data.train_size == 200


def test_without_groups_samples_are_divided(colours):
    class Loose(colours.Colours):
        def load(self, split):
            import dataclasses

            return dataclasses.replace(super().load(split), groups=None)

    tests = [CrossValidationFold(Loose(30), 5, fold).dataset("test") for fold in range(5)]
    assert [torch.bincount(test.targets).tolist() for test in tests] == [[2, 2, 2]] * 5


def test_a_class_in_one_fold_only_is_named(colours):
    data = colours.Colours(8)  # four patients, the third of whom alone is blue
    messages = []
    for fold in range(2):
        try:
            CrossValidationFold(data, 2, fold).dataset("train")
        except UserError as error:
            messages.append(str(error))
    assert any("every training sample of class 'blue'" in message for message in messages)


def test_too_few_groups_are_told(colours):
    with pytest.raises(UserError, match="the 3 groups of Colours cannot be divided into 5 folds; use fewer"):
        CrossValidationFold(colours.Colours(6), 5, 0).dataset("train")


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (3, 3), (3, -1)])
def test_folds_that_do_not_exist(fundus, folds, fold):
    with pytest.raises(ValueError, match="folds must be at least 2"):
        CrossValidationFold(fundus, folds, fold)
