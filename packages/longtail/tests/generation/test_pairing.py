import pytest
import torch

from medbolt.core import UserError
from medbolt.longtail.generation.pairing import frequent_classes, pairs


def rounds(is_frequent, strength):
    """The pairs of the authors' code, round by round: one kind is gone through once, the other in each round."""
    frequent = [i for i, f in enumerate(is_frequent) if f]
    rare = [i for i, f in enumerate(is_frequent) if not f]
    found = []
    if not frequent or not rare:
        return found
    for j in range(max(int(max(len(frequent), len(rare)) * strength / min(len(frequent), len(rare))), 1)):
        if len(frequent) >= len(rare):
            found += zip(frequent[j * len(rare) : (j + 1) * len(rare)], rare, strict=True)
        else:
            found += zip(frequent, rare[j * len(frequent) : (j + 1) * len(frequent)], strict=True)
    return found


@pytest.mark.parametrize("number_frequent", range(9))
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_pairs_are_those_of_rounds(number_frequent, strength):
    generator = torch.Generator().manual_seed(number_frequent)
    is_frequent = torch.randperm(8, generator=generator) < number_frequent
    found = pairs(is_frequent, strength)
    assert list(zip(*(place.tolist() for place in found), strict=True)) == rounds(is_frequent.tolist(), strength)


def test_more_strength_than_there_are_samples_goes_through_both_again():
    frequent, rare = pairs(torch.tensor([True, False, True, True]), 2.0)
    assert frequent.tolist() == [0, 2, 3, 0, 2, 3]
    assert rare.tolist() == [1] * 6


@pytest.mark.parametrize(
    ("frequent", "expected"),
    [(0.2, [3]), (0.5, [1, 3]), (0.0, []), (1, [0, 1, 2, 3]), ([0, 2], [0, 2]), ((), []), (0.01, [3])],
)
def test_frequent_classes_are_those_with_most_samples_or_those_named(frequent, expected):
    chosen = frequent_classes(torch.tensor([2, 40, 0, 90]), frequent)
    assert chosen.nonzero()[:, 0].tolist() == expected


def test_of_equal_classes_the_first_are_frequent():
    assert frequent_classes(torch.tensor([5, 9, 9, 9]), 0.5).tolist() == [False, True, True, False]


@pytest.mark.parametrize("frequent", [[3], [-1, 0]])
def test_an_index_of_no_class_is_refused(frequent):
    with pytest.raises(UserError, match="for 3 classes; give indices from 0 to 2"):
        frequent_classes(torch.tensor([1, 2, 3]), frequent)
