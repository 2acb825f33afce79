import pytest
import torch

from medbolt.longtail import ClassGroups


def test_thresholds_are_more_than_a_hundred_and_fewer_than_twenty():
    assert ClassGroups.by_count([101, 100, 20, 19, 0]) == ClassGroups((0,), (1, 2), (3, 4))
    assert ClassGroups.by_count([7, 3, 1], many=5, few=2) == ClassGroups((0,), (1,), (2,))


def test_bounds_are_ends_of_ranges():
    assert ClassGroups.by_index(8, 2, 5) == ClassGroups((0, 1), (2, 3, 4), (5, 6, 7))
    assert ClassGroups.by_index(3, 0, 3) == ClassGroups((), (0, 1, 2), ())
    assert ClassGroups.by_rank([3, 9, 9, 1], 1, 3) == ClassGroups((1,), (0, 2), (3,))
    assert ClassGroups.by_rank([9, 5, 1], 1, 2) == ClassGroups.by_index(3, 1, 2)


def test_means_of_classes_and_of_groups():
    values = torch.tensor([0.9, 0.7, torch.nan, 0.2, 0.1, torch.nan])
    groups = ClassGroups((0,), (1, 2), (3, 4))
    found = {name: float(value) for name, value in groups.means(values).items()}
    assert found == pytest.approx({"head": 0.9, "medium": 0.7, "tail": 0.15, "average": 1.9 / 4})
    assert float(groups.means(values, "group")["average"]) == pytest.approx((0.9 + 0.7 + 0.15) / 3)


def test_empty_groups_are_left_out_of_the_average():
    means = ClassGroups((0,), (), (1,)).means(torch.tensor([0.5, torch.nan]), "group")
    assert means["medium"].isnan()
    assert means["tail"].isnan()
    assert means["average"] == 0.5


@pytest.mark.parametrize("groups", [((0, 1), (1,), ()), ((0, 0), (), ()), ((-1,), (), ())])
def test_a_class_belongs_to_one_group(groups):
    with pytest.raises(ValueError, match="every class belongs to one group"):
        ClassGroups(*groups)


def test_bounds_and_thresholds_out_of_order_are_refused():
    with pytest.raises(ValueError, match="head <= medium"):
        ClassGroups.by_index(8, 5, 2)
    with pytest.raises(ValueError, match="few must not be above"):
        ClassGroups.by_count([1], many=10, few=20)
    with pytest.raises(ValueError, match="average must be"):
        ClassGroups((0,), (), ()).means(torch.zeros(1), "micro")
