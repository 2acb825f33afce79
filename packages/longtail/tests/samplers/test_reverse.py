import torch

from medbolt.longtail import ReverseSampler


def test_classes_are_drawn_by_the_inverse_of_their_size(targets, sizes, assert_frequencies):
    drawn = torch.bincount(targets[ReverseSampler(targets).order()], minlength=4).double()
    assert_frequencies(drawn, 1 / sizes)


def test_two_ranks_are_jointly_and_each_right(targets, sizes, assert_frequencies):
    shares = [torch.tensor(list(ReverseSampler(targets, 0, 2, rank))) for rank in range(2)]
    for share in (*shares, torch.cat(shares)):
        assert_frequencies(torch.bincount(targets[share], minlength=4).double(), 1 / sizes)


def test_equal_classes_are_drawn_equally(assert_frequencies):
    targets = torch.arange(3000) % 3
    assert_frequencies(torch.bincount(targets[ReverseSampler(targets).order()]).double(), torch.ones(3).double())


def test_labels_and_their_absence_are_classes(labels, assert_frequencies):
    """Of 3000, 1000, 300 and 1000 without any; class 2 always comes with class 0."""
    kinds = torch.tensor([0] * 300 + [1] * 2700 + [2] * 1000 + [3] * 1000)  # both, only 0, 1, none
    drawn = torch.bincount(kinds[ReverseSampler(labels).order()]).double()
    both = 1 / 300 + 0.1 / 3000
    assert_frequencies(drawn, torch.tensor([both, 0.9 / 3000, 1 / 1000, 1 / 1000]).double())
