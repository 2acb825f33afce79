import pytest
import torch

from medbolt.core import UserError
from medbolt.longtail import FlexRebalancingSampler


def test_classes_go_by_size_until_recalls_are_known(targets, sizes, assert_frequencies):
    assert_frequencies(torch.bincount(targets[FlexRebalancingSampler(targets).order()]).double(), sizes)


def test_classes_go_by_size_over_recall(targets, sizes, assert_frequencies):
    sampler = FlexRebalancingSampler(targets, floor=0.02)
    sampler.set_class_recall([0.9, 0.5, 0.0, float("nan")])
    expected = sizes / torch.tensor([0.9, 0.5, 0.02, 1.0])
    assert_frequencies(torch.bincount(targets[sampler.order()]).double(), expected)


def test_recalls_for_other_classes_are_named(targets):
    with pytest.raises(UserError, match="got 3 recalls for 4 classes"):
        FlexRebalancingSampler(targets).set_class_recall([1.0, 1.0, 1.0])


def test_multi_label_targets_and_a_floor_out_of_range_are_refused(targets, labels):
    with pytest.raises(UserError, match="multi-label"):
        FlexRebalancingSampler(labels)
    with pytest.raises(ValueError, match="floor must be in"):
        FlexRebalancingSampler(targets, floor=0.0)
