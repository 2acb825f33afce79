import pytest
import torch

from medbolt.core import UserError
from medbolt.longtail import RangeLoss
from medbolt.longtail.losses.inputs import hard, hidden, precise, target_matrix


def test_precision_is_raised_to_float32_and_never_lowered():
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    assert [precise(torch.ones(1, dtype=kind)).dtype for kind in kinds] == [torch.float32] * 3 + [torch.float64]


def test_rows_are_one_hot_or_kept():
    logits = torch.zeros(2, 3, dtype=torch.float64)
    assert target_matrix(torch.tensor([2, 0]), logits).tolist() == [[0, 0, 1], [1, 0, 0]]
    soft = torch.full((2, 3), 1 / 3)
    assert target_matrix(soft, logits).dtype == torch.float64
    torch.testing.assert_close(target_matrix(soft, logits).float(), soft)


def test_hidden_logits_have_no_probability_and_no_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    log_p = hidden(logits, torch.tensor([[False, True, False]])).log_softmax(1)
    torch.testing.assert_close(log_p.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    (log_p * torch.tensor([[1.0, 0.0, 0.0]])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, 0.0, -0.5]]))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (torch.ones(3), r"RangeLoss is defined for class indices, .* got floats, \(B,\), as a task of one logit"),
        (torch.ones(3, 2), r"got soft targets or labels of shape \(3, 2\); leave out what mixes labels"),
        (torch.ones(3, 2).long(), r"got soft targets or labels of shape \(3, 2\); leave out what mixes labels"),
    ],
)
def test_targets_that_are_no_class_indices_are_named(target, sentence):
    with pytest.raises(UserError, match=sentence):
        hard(target, RangeLoss())
