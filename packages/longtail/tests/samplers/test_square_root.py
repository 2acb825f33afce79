import torch

from medbolt.longtail import SquareRootSampler


def test_classes_go_by_the_root_of_their_size(targets, sizes, assert_frequencies):
    assert_frequencies(torch.bincount(targets[SquareRootSampler(targets).order()]).double(), sizes.sqrt())
