import math

import pytest
import torch

from medbolt.noisy.dividemix.thresholds import log_frequency_thresholds


def test_equals_the_formula_class_by_class():
    counts = [900, 33, 210, 5]
    found = log_frequency_thresholds(torch.tensor(counts), head=0.8, tail=0.4)
    for count, threshold in zip(counts, found.tolist(), strict=True):
        share = (math.log(count) - math.log(5)) / (math.log(900) - math.log(5))
        assert threshold == pytest.approx(0.4 + 0.4 * share)


def test_stays_between_two_and_ninety_five_hundredths():
    assert log_frequency_thresholds(torch.tensor([100, 1]), head=0.99, tail=0.1).tolist() == [0.95, 0.2]


@pytest.mark.parametrize("counts", [[7, 7, 7], [7], [0, 7, 0]])
def test_is_the_tail_s_where_all_counts_are_equal_or_zero(counts):
    assert log_frequency_thresholds(torch.tensor(counts), head=0.8, tail=0.4).tolist() == [0.4] * len(counts)


def test_an_empty_class_does_not_count_as_the_rarest():
    assert log_frequency_thresholds(torch.tensor([100, 0, 10]), head=0.8, tail=0.4).tolist() == [0.8, 0.4, 0.4]
