import torch

from medbolt.longtail import ClassBalancedSampler


def test_classes_are_equal(targets, assert_frequencies):
    drawn = torch.bincount(targets[ClassBalancedSampler(targets).order()]).double()
    assert_frequencies(drawn, torch.ones(4).double())


def test_two_ranks_are_jointly_and_each_right(targets, assert_frequencies):
    shares = [torch.tensor(list(ClassBalancedSampler(targets, 0, 2, rank))) for rank in range(2)]
    for share in (*shares, torch.cat(shares)):
        assert_frequencies(torch.bincount(targets[share]).double(), torch.ones(4).double())


def test_labels_and_their_absence_are_equal(labels, assert_frequencies):
    """Class 2 always comes with class 0, so a sample with both is drawn for either."""
    drawn = ClassBalancedSampler(labels).order()
    kinds = torch.tensor([0] * 300 + [1] * 2700 + [2] * 1000 + [3] * 1000)  # both, only 0, 1, none
    assert_frequencies(torch.bincount(kinds[drawn]).double(), torch.tensor([1 + 0.1, 0.9, 1, 1]).double())
