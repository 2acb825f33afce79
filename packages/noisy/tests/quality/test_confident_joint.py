import math

import numpy as np
import pytest
import torch
from torch import Tensor

from medbolt.noisy import (
    ConfidentJoint,
    confidence_weighted_entropy,
    confident_joint,
    label_issues,
    normalized_margin,
    self_confidence,
)
from medbolt.noisy.quality.confident_joint import confident_class, thresholds

CLASSES = 4


def problem(size: int = 400, seed: int = 0, rate: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return labels and probabilities, the first wrong at a rate and the second informative."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(CLASSES, 0.5), size)
    labels = np.where(rng.random(size) < 1 - rate, p.argmax(1), rng.integers(0, CLASSES, size))
    return torch.from_numpy(labels), torch.from_numpy(p)


def slow(labels: list[int], p: list[list[float]]) -> tuple[list[list[int]], list[bool]]:
    """Return counts and issues sample by sample, as the paper writes them."""
    means = []
    for k in range(CLASSES):
        own = [row[k] for row, label in zip(p, labels, strict=True) if label == k]
        means.append(sum(own) / len(own) if own else math.inf)
    counts, issues = [[0] * CLASSES for _ in range(CLASSES)], []
    for row, label in zip(p, labels, strict=True):
        confident = [k for k in range(CLASSES) if row[k] >= means[k] - 1e-6]
        best = max(confident, key=lambda k: row[k], default=None)
        if best is not None:
            counts[label][best] += 1
        issues.append(best not in (None, label) and max(range(CLASSES), key=lambda k: row[k]) != label)
    return counts, issues


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loop_over_samples(seed):
    labels, p = problem(seed=seed)
    counts, issues = slow(labels.tolist(), p.tolist())
    assert confident_joint(labels, p).counts.tolist() == counts
    assert label_issues(labels, p).tolist() == issues


def test_the_matrices_are_those_of_the_formula():
    labels, p = problem()
    estimate = confident_joint(labels, p)
    counts, sizes = estimate.counts.numpy().astype(float), np.bincount(labels, minlength=CLASSES)
    joint = np.zeros((CLASSES, CLASSES))
    for i in range(CLASSES):
        for j in range(CLASSES):
            joint[i, j] = counts[i, j] / counts[i].sum() * sizes[i] / len(labels)
    np.testing.assert_allclose(estimate.joint, joint)
    assert estimate.noise_rate == pytest.approx(1 - np.trace(joint))
    np.testing.assert_allclose(estimate.transition.numpy().T, joint / joint.sum(0))
    np.testing.assert_allclose(estimate.inverse, joint / joint.sum(1, keepdims=True))


def test_the_noise_is_found_where_the_classes_are_known():
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(20_000) % 3
    flips = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.1, 0.1, 0.8]], dtype=torch.float64)
    labels = torch.multinomial(flips[true], 1, generator=generator).squeeze(1)
    p = torch.nn.functional.one_hot(true, 3).double() * 0.9 + 1 / 30
    estimate = confident_joint(labels, p)
    torch.testing.assert_close(estimate.transition, flips, atol=0.01, rtol=0)
    assert estimate.noise_rate == pytest.approx(0.4 / 3, abs=0.01)
    assert (label_issues(labels, p) == (labels != true)).all()
    first = estimate.pairs()[0]
    assert (first.given, first.true) == (1, 0)
    assert first.samples == pytest.approx(((labels == 1) & (true == 0)).sum().item())
    assert first.share == pytest.approx(0.2 / 3, abs=0.01)
    assert [pair.samples for pair in estimate.pairs()] == sorted((q.samples for q in estimate.pairs()), reverse=True)


def test_equals_cleanlab():
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.rank")
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    for seed in range(3):
        labels, p = problem(1000, seed)
        theirs = labels.numpy(), p.numpy()
        estimate = confident_joint(labels, p)
        np.testing.assert_allclose(thresholds(labels, p), count.get_confident_thresholds(*theirs))
        assert estimate.counts.tolist() == count.compute_confident_joint(*theirs, calibrate=False).tolist()
        # they round the scaled counts to whole samples
        np.testing.assert_allclose(estimate.joint, count.estimate_joint(*theirs), atol=1.5 / len(labels))
        _, noise, inverse, _ = count.estimate_py_and_noise_matrices_from_probabilities(*theirs)
        np.testing.assert_allclose(estimate.transition.T, noise, atol=0.01)
        np.testing.assert_allclose(estimate.inverse.T, inverse, atol=0.01)
        assert label_issues(labels, p).tolist() == find(*theirs, filter_by="confident_learning").tolist()
        for ours, name in (
            (self_confidence, "get_self_confidence_for_each_label"),
            (normalized_margin, "get_normalized_margin_for_each_label"),
            (confidence_weighted_entropy, "get_confidence_weighted_entropy_for_each_label"),
        ):
            np.testing.assert_allclose(ours(labels, p), getattr(rank, name)(*theirs), atol=1e-6)


def test_scores_are_between_0_and_1_and_low_for_wrong_labels():
    p = torch.tensor([[0.97, 0.01, 0.01, 0.01]]).repeat(2, 1)
    labels = torch.tensor([0, 3])
    for score in (self_confidence, normalized_margin, confidence_weighted_entropy):
        right, wrong = score(labels, p).tolist()
        assert 0 <= wrong < 0.4 < right <= 1
    certain = torch.eye(CLASSES)[[0, 0]]
    for score in (self_confidence, normalized_margin, confidence_weighted_entropy):
        values = score(torch.tensor([0, 1]), certain)
        assert values.isfinite().all()
        assert values.min() >= 0
        assert values.max() <= 1


def test_classes_without_labels_or_confident_samples_do_no_harm():
    labels, p = problem()
    labels = labels.where(labels != 3, 0)
    estimate = confident_joint(labels, p)
    assert estimate.joint.isfinite().all()
    assert estimate.joint[3].sum() == estimate.joint[:, 3].sum() == 0
    assert float(estimate.joint.sum()) == pytest.approx(1)
    for rows in (estimate.transition, estimate.inverse):
        torch.testing.assert_close(rows.sum(1), torch.ones(CLASSES, dtype=torch.float64))
        assert rows[3].tolist() == [0, 0, 0, 1]
    empty = ConfidentJoint(torch.tensor([[0, 0], [0, 5]]), torch.tensor([3, 5]))
    assert empty.joint.tolist() == [[0.375, 0], [0, 0.625]]
    assert empty.pairs() == []


def test_equal_probabilities_reach_their_own_mean_in_any_precision():
    p = torch.full((7, 3), 1 / 3)
    assert (confident_class(torch.zeros(7, dtype=torch.int64), p) == 0).all()
    bf16 = problem()[1].bfloat16()
    assert confident_joint(problem()[0], bf16).joint.isfinite().all()


def test_one_sample():
    assert confident_joint(torch.tensor([1]), torch.tensor([[0.4, 0.6]])).noise_rate == 0


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        (torch.tensor([0, 5]), torch.rand(2, 3), "0 to 2, got 0 to 5"),
        (torch.tensor([-1]), torch.rand(1, 3), "got -1"),
        (torch.tensor([0]), torch.rand(2, 3), r"got \(1,\) and \(2, 3\)"),
        (torch.zeros(0, dtype=torch.int64), torch.rand(0, 3), "at least one sample"),
    ],
)
def test_what_does_not_fit_is_refused(labels, p, message):
    with pytest.raises(ValueError, match=message):
        confident_joint(labels, p)


def test_the_most_probable_label_is_no_issue():
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.7, 0.3], [0.6, 0.4]])
    labels = torch.tensor([0, 0, 0, 1, 1])  # thresholds 0.82 and 0.35: the third sample confidently belongs to class 1
    assert confident_class(labels, p).tolist() == [0, 0, 1, -1, 1]
    assert confident_joint(labels, p).counts.tolist() == [[2, 1], [0, 1]]
    assert not label_issues(labels, p).any()
