import time

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch.utils.data import DataLoader

from medbolt.core.batch import collate
from medbolt.core.synthetic.fundus import SyntheticFundus
from medbolt.core.synthetic.grading import LesionCounts, grade

BALANCED = (1, 1, 1, 1, 1)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
        else:
            assert value == b[key], key


def test_a_sample_follows_the_contract():
    data = SyntheticFundus(5, image_size=48, num_raters=6)
    batch = collate([data[i] for i in range(5)])
    assert batch["image"].shape == (5, 3, 48, 48)
    assert batch["mask"].shape == (5, 4, 48, 48)
    assert batch["raters"].shape == (5, 6, 48, 48)
    assert {batch[key].dtype for key in ("image", "mask", "raters")} == {torch.uint8}
    assert {batch[key].dtype for key in ("target", "index", "domain")} == {torch.int64}
    assert all(isinstance(text, str) for key in ("id", "group", "text") for text in batch[key])
    assert set(batch["mask"].unique().tolist()) <= {0, 1}


def test_columns_equal_what_the_samples_yield():
    data = SyntheticFundus(40, image_size=32, prevalence=BALANCED)
    for i in range(40):
        sample = data[i]
        assert sample["target"] == data.targets[i]
        assert sample["domain"] == data.domains[i]
        assert sample["index"] == i
        assert (sample["id"], sample["group"]) == (data.ids[i], data.groups[i])
        assert sample["text"] == data.report(i)
    assert len(set(data.ids)) == 40
    assert data.groups[::2] == data.groups[1::2]
    assert len(set(data.groups)) == 20
    assert data.populations.shape == (40,)
    np.testing.assert_array_equal(grade(data.lesion_counts), data.targets)


def test_a_sample_does_not_depend_on_size_order_or_rater_number():
    small, large = SyntheticFundus(6, 40, seed=3), SyntheticFundus(5000, 40, seed=3, num_raters=7)
    large[4321], large[1]
    for i in (5, 0):
        a, b = small[i], large[i]
        b["raters"] = b["raters"][:4]
        assert_equal(a, b)
    assert torch.equal(large.targets[:6], small.targets)


@pytest.mark.slow
def test_workers_yield_the_same():
    data = SyntheticFundus(12, 32)
    alone, workers = (list(DataLoader(data, batch_size=4, num_workers=number, collate_fn=collate)) for number in (0, 2))
    for a, b in zip(alone, workers, strict=True):
        assert_equal(a, b)


def test_seeds_draw_different_eyes():
    assert not torch.equal(SyntheticFundus(2, 32, seed=0)[0]["image"], SyntheticFundus(2, 32, seed=1)[0]["image"])


def test_the_same_eye_at_two_image_sizes():
    small, large = (SyntheticFundus(8, size, domains=[0], prevalence=BALANCED) for size in (128, 256))
    assert torch.equal(small.targets, large.targets)
    for i in range(8):
        shrunk = torch.nn.functional.avg_pool2d(large[i]["image"].float(), 2)
        assert (shrunk - small[i]["image"].float()).abs().mean() < 5
        assert small[i]["text"] == large[i]["text"]
        a, b = small.truth(i), large.truth(i)
        assert a.cup_to_disc == b.cup_to_disc
        np.testing.assert_allclose(b.disc, 2 * np.array(a.disc))


def test_another_camera_photographs_the_same_eye():
    eyes = [SyntheticFundus(8, 128, domains=[domain], prevalence=BALANCED) for domain in (0, 1)]
    for i in range(8):
        a, b = (eye.truth(i) for eye in eyes)
        assert torch.equal(a.lesions, b.lesions)  # cameras 0 and 1 frame the eye alike
        assert eyes[0].report(i) == eyes[1].report(i)
        assert not torch.equal(eyes[0][i]["image"], eyes[1][i]["image"])


def recovered(truth):
    """Lesion counts by connected components of the masks."""
    lesions, quadrants = truth.lesions.numpy(), truth.quadrants.numpy()
    found = [ndimage.label(mask) for mask in lesions]
    labels, number = found[1]
    centres = np.array(ndimage.center_of_mass(lesions[1], labels, range(1, number + 1))).reshape(-1, 2)
    rows, columns = centres.round().astype(int).T
    haemorrhages = np.bincount(quadrants[rows, columns], minlength=4)
    counts = [np.array([number]) for _, number in found]
    return LesionCounts(counts[0], haemorrhages[None], *counts[2:])


@pytest.mark.parametrize("size", [128, 256])
def test_grade_and_counts_can_be_read_off_the_masks(size):
    data = SyntheticFundus(100 if size == 128 else 40, size, seed=11, prevalence=BALANCED)
    for i in range(len(data)):
        truth, drawn = data.truth(i), data.lesion_counts.take(i)
        seen = recovered(truth)
        assert grade(seen).item() == data.targets[i]
        np.testing.assert_array_equal(seen.microaneurysms, drawn.microaneurysms)
        np.testing.assert_array_equal(seen.haemorrhages, drawn.haemorrhages)
        np.testing.assert_array_equal(seen.soft_exudates, drawn.soft_exudates)
        assert (seen.neovascularisations > 0) == (drawn.neovascularisations > 0)
        if size == 256:  # at 128 px neighbouring deposits may merge
            np.testing.assert_array_equal(seen.hard_exudates, drawn.hard_exudates)


@pytest.mark.parametrize("domain", range(4))
def test_everything_lies_inside_the_field_of_view(domain):
    data = SyntheticFundus(40, 64, domains=[domain], prevalence=(0, 0, 0, 1, 1))
    for i in range(40):
        sample, truth = data[i], data.truth(i)
        outside = truth.field == 0
        assert not truth.lesions[:, outside].any()
        assert not sample["raters"][:, outside].any()
        assert not truth.vessels[outside].any()
        assert torch.equal(sample["mask"], truth.lesions[:4])


def test_report_names_exactly_what_is_drawn():
    data = SyntheticFundus(60, 64, prevalence=BALANCED)
    for i in range(60):
        sample, truth = data[i], data.truth(i)
        text = sample["text"].lower()
        assert data.class_names[sample["target"]] in text
        assert ("right" in text, "left" in text) == (i % 2 == 0, i % 2 == 1)
        assert (truth.disc[0] > truth.fovea[0]) == ("right" in text)
        text = text.replace("preretinal haemorrhage", "boat")
        words = ("microaneurysm", "haemorrhage", "hard exudate", "soft exudate", "neovascularisation", "boat")
        for word, mask in zip(words, truth.lesions, strict=True):
            assert (word in text) == bool(mask.any()), (text, word)


def test_truth_is_consistent():
    data = SyntheticFundus(20, 256, domains=[0])
    for i in range(20):
        truth = data.truth(i)
        cup, disc = truth.outline == 2, truth.outline >= 1
        heights = [int(mask.any(1).sum()) for mask in (cup, disc)]
        assert heights[0] / heights[1] == pytest.approx(truth.cup_to_disc, abs=0.1)
        rows, columns = torch.where(disc)
        assert columns.float().mean() == pytest.approx(truth.disc[0], abs=3)
        assert rows.float().mean() == pytest.approx(truth.disc[1], abs=3)
        assert 0.04 < truth.vessels.float().mean() < 0.2
        assert len(truth.quadrants.unique()) == 4


def test_names():
    data = SyntheticFundus(1, 32)
    assert len(data) == 1
    assert len(data.class_names) == 5
    assert len(data.domain_names) == 4
    assert list(data.hierarchy) == list(data.class_names)
    assert len(data.lesion_names) == 6


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"size": 0}, "size"),
        ({"image_size": 31}, "image_size"),
        ({"image_size": 513}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"prevalence": (1, 1)}, "prevalence"),
        ({"prevalence": (1, 1, 1, 1, -1)}, "prevalence"),
        ({"prevalence": (0, 0, 0, 0, 0)}, "prevalence"),
        ({"prevalence": (1, 1, 1, 1, float("nan"))}, "prevalence"),
        ({"domains": ()}, "domains"),
        ({"domains": (4,)}, "domains"),
        ({"domains": (0, 0)}, "domains"),
        ({"num_raters": 0}, "num_raters"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        SyntheticFundus(**({"size": 4} | arguments))


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match="out of range"):
        SyntheticFundus(3, 32)[index]


def test_labels_of_a_hundred_thousand_samples_cost_no_drawing():
    start = time.process_time()
    data = SyntheticFundus(100_000)
    counts = data.targets.bincount(minlength=5)
    assert time.process_time() - start < 0.5
    assert (counts / 100_000 - torch.tensor(data.prevalence)).abs().max() < 0.01


@pytest.mark.slow
def test_a_rule_learnt_on_one_camera_fails_on_the_others():
    def features(domain, seed):
        """Histogram of the green channel's local contrast: crude, but it sees haemorrhages and exudates."""
        data = SyntheticFundus(100, 64, seed=seed, domains=[domain], prevalence=(1, 0, 0, 1, 0))
        green = np.stack([data[i]["image"][1].numpy() for i in range(100)]) / 255.0
        contrast = green - ndimage.uniform_filter(green, (0, 9, 9))
        bins = np.linspace(-0.35, 0.35, 22)
        return np.sqrt([np.histogram(each, bins)[0] for each in contrast]), data.targets.numpy() > 0

    train, test = ([features(domain, seed) for domain in range(4)] for seed in (0, 1))
    accuracy = np.zeros((4, 4))
    for source, (x, y) in enumerate(train):
        model = LogisticRegression(C=0.1, max_iter=1000).fit(x, y)
        for target, (x_test, y_test) in enumerate(test):
            accuracy[source, target] = balanced_accuracy_score(y_test, model.predict(x_test))
    at_home = np.diag(accuracy)
    abroad = (accuracy.sum(1) - at_home) / 3
    assert at_home.min() > 0.8
    assert (at_home - abroad).min() > 0.2
