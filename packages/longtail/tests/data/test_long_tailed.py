import numpy as np
import pytest
import torch

from medbolt.core import UserError
from medbolt.longtail import LongTailed
from medbolt.longtail.data.long_tailed import long_tailed_counts

MONICA = {  # training counts of its splits; with ratio, largest class and what is available where that is scarce
    "kvasir 20": (20, 998, None, [998, 793, 629, 500, 397, 315, 250, 199, 158, 125, 100, 79, 63, 50]),
    "nct 100": (100, 10000, None, [10000, 5623, 3162, 1778, 1000, 562, 316, 178, 100]),
    "nct 200": (200, 10000, None, [10000, 5157, 2659, 1371, 707, 365, 188, 97, 50]),
    "nct 500": (500, 10000, None, [10000, 4599, 2115, 972, 447, 206, 95, 43, 20]),
    "bloodmnist": (100, 2330, None, [2330, 1207, 625, 324, 168, 87, 45, 23]),
    "pathmnist": (100, 12885, None, [12885, 7246, 4075, 2291, 1289, 725, 407, 229, 129]),
    "organamnist": (100, 6164, None, [6164, 3889, 2454, 1548, 977, 616, 389, 245, 155, 98, 62]),
    "dermamnist": (100, 4693, [4693, 779, 769, 359, 228, 99, 80], [4693, 779, 769, 359, 218, 99, 47]),
}


@pytest.mark.parametrize("name", MONICA)
def test_the_exponential_rule_gives_monica_s_counts(name):
    ratio, largest, available, expected = MONICA[name]
    available = available or [20000] * len(expected)
    assert long_tailed_counts(np.array(available), ratio, largest=largest).tolist() == expected


@pytest.mark.parametrize("profile", ["exponential", "step", "pareto"])
def test_profiles_fall_from_the_largest_to_the_ratio(profile):
    counts = long_tailed_counts(np.full(10, 1000), 50, profile)
    assert counts[0] == 1000
    assert counts[-1] == 20
    assert (np.diff(counts) <= 0).all()


def test_step_and_pareto_equal_their_formulas():
    assert long_tailed_counts(np.full(5, 100), 20, "step").tolist() == [100, 100, 5, 5, 5]
    pareto = long_tailed_counts(np.full(5, 1000), 64, "pareto")
    assert pareto.tolist() == [round(1000 * (1 + i / 4) ** -6) for i in range(5)]


def test_classes_are_ranked_by_frequency_empty_ones_left_out_and_all_others_kept():
    assert long_tailed_counts(np.array([5, 0, 800, 300]), 1000).tolist() == [1, 0, 800, 25]


def test_only_training_is_thinned_and_samples_stay_who_they_are(bright):
    data, base = LongTailed(bright(), ratio=20), bright()
    assert data.class_counts == [40, 15, 5, 2]
    train, whole = data.dataset("train"), base.dataset("train")
    assert torch.equal(train.targets, whole.targets[train.rows])
    assert list(train.ids) == [whole.ids[i] for i in train.rows]
    assert (train.rows.diff() > 0).all()
    assert len(data.dataset("val")) == len(base.dataset("val"))
    assert data.train_size == 75


def test_the_seed_chooses_and_steeper_tails_are_nested(bright):
    def rows(ratio, seed=0):
        return set(LongTailed(bright(), ratio, seed=seed).dataset("train").rows.tolist())

    assert rows(20) == rows(20)
    assert rows(20) != rows(20, seed=1)
    assert rows(40) < rows(20) < rows(9)
    assert len(rows(1)) == 75


def test_a_task_trains_on_it(bright, make_task, make_trainer):
    make_trainer().fit(make_task(), LongTailed(bright(), 10))


@pytest.mark.parametrize(("kind", "words"), [("labels", "several labels a sample"), ("none", "no labels")])
def test_data_without_single_classes_are_named(kind, words, bright):
    with pytest.raises(UserError, match=f"Bright has {words}"):
        LongTailed(bright(kind)).dataset("train")


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"largest": 0}])
def test_values_out_of_range_are_refused(options, bright):
    with pytest.raises(ValueError, match="must be at least 1"):
        LongTailed(bright(), **options)
