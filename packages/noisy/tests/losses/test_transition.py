import pytest
import torch

from medbolt.noisy.losses.transition import as_transition, mixed, noisy_probability

MATRIX = [[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]]


def test_noisy_probabilities_follow_the_columns_and_sum_to_one():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    noisy = noisy_probability(p.log(), torch.tensor(MATRIX))
    expected = [sum(p[0, i].item() * MATRIX[i][j] for i in range(3)) for j in range(3)]
    assert noisy[0].tolist() == pytest.approx(expected)
    assert noisy.sum().item() == pytest.approx(1)


def test_products_keep_their_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mixed(torch.tensor(MATRIX), torch.rand(2, 3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5]], "square"),
        ([[1.0, 0.0], [1.0]], "square"),
        ([[0.9, 0.1], [0.5, 0.6]], "row 1"),
        ([[1.1, -0.1], [0.5, 0.5]], "row 0"),
    ],
)
def test_refuses_what_is_no_transition_matrix(matrix, message):
    with pytest.raises(ValueError, match=message):
        as_transition(matrix)


def test_refuses_logits_of_another_number_of_classes():
    with pytest.raises(ValueError, match="3 classes, the logits have 2"):
        noisy_probability(torch.zeros(1, 2), torch.tensor(MATRIX))
