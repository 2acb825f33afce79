import pytest
import torch

from medbolt.noisy import estimate_transition, transition_error

MATRIX = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]], dtype=torch.float64)


def posteriors(size: int = 3000, anchors: bool = True) -> torch.Tensor:
    """Return clean posteriors; with anchors a fifth of each class is sure."""
    logits = 2 * torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[torch.arange(size), torch.arange(size) % 3] += 3
    if anchors:
        logits[: size // 5] *= 20
    return logits.softmax(1)


def test_finds_the_matrix_from_sure_samples():
    for options in ({}, {"top_m": 10}, {"outlier_percentile": None}):
        estimate = estimate_transition(posteriors() @ MATRIX, **options)
        torch.testing.assert_close(estimate.transition, MATRIX, atol=0.02, rtol=0)
        assert estimate.without_anchor == []


def test_equals_a_loop_over_classes_with_a_percentile():
    p = posteriors(500) @ MATRIX
    estimate = estimate_transition(p, outlier_percentile=90, top_m=3)
    for i in range(3):
        limit = torch.quantile(p[:, i], 0.9)
        below = sorted((j for j in range(500) if p[j, i] < limit), key=lambda j: -p[j, i])[:3]
        assert estimate.anchors[i] == below
        torch.testing.assert_close(estimate.transition[i], p[below].mean(0))


def test_one_odd_sample_does_not_decide():
    p = posteriors() @ MATRIX
    p[7] = torch.tensor([1.0, 0.0, 0.0])
    assert estimate_transition(p).transition[0, 0].item() == pytest.approx(0.8, abs=0.02)
    assert estimate_transition(p, outlier_percentile=None).transition[0, 0] == 1


def test_a_class_that_is_never_predicted_falls_back_and_is_told():
    clean = posteriors()
    clean[:, 0] += 0.9 * clean[:, 2]  # its samples are taken for those of class 0
    clean[:, 2] *= 0.1
    estimate = estimate_transition(clean)
    assert estimate.without_anchor == [2]
    row = estimate.transition[2]
    assert row.sum().item() == pytest.approx(1)
    assert row[2].item() == pytest.approx(0.5 * row[:2].max().item())
    assert estimate.min_diagonal == pytest.approx(row[2].item())


def test_tells_the_condition():
    estimate = estimate_transition(MATRIX, outlier_percentile=None)
    singular = torch.linalg.svdvals(MATRIX)
    assert estimate.condition == pytest.approx(float(singular[0] / singular[-1]))
    assert estimate.min_diagonal == 0.6
    assert estimate.anchors == [[0], [1], [2]]


@pytest.mark.parametrize("p", [torch.tensor([[0.6, 0.4]]), torch.full((5, 4), 0.25)])
def test_one_sample_or_equal_samples_give_rows_that_sum_to_one(p):
    estimate = estimate_transition(p, top_m=3)
    torch.testing.assert_close(estimate.transition.sum(1), torch.ones(p.shape[1], dtype=torch.float64))
    assert estimate.transition.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outlier_percentile": 0}, "outlier_percentile"),
        ({"top_m": 0}, "top_m"),
        ({"probabilities": torch.zeros(0, 3)}, "N, K"),
        ({"probabilities": torch.ones(3)}, "N, K"),
        ({"probabilities": torch.tensor([[float("nan"), 1.0]])}, "finite"),
    ],
)
def test_refuses_what_is_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        estimate_transition(**{"probabilities": MATRIX, **options})


def test_the_error_is_relative_and_ignores_classes_nobody_has():
    wrong = MATRIX.clone()
    wrong[0] = torch.tensor([0.5, 0.5, 0.0])
    assert transition_error(MATRIX, MATRIX) == 0
    assert transition_error(wrong, MATRIX) == pytest.approx(0.6 / 3)
    truth = MATRIX.clone()
    truth[1] = float("nan")
    assert transition_error(wrong.float(), truth) == pytest.approx(0.6 / 2)
    with pytest.raises(ValueError, match="compared"):
        transition_error(torch.eye(2), MATRIX)
