import pytest
import torch

from medbolt.longtail.mixing.weights import drawn_weights


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.2, 1.0), (0.8, 0.8)])
def test_mean_and_variance_are_those_of_the_distribution(first, second):
    torch.manual_seed(0)
    drawn, total = drawn_weights(first, second, 8000), first + second
    assert float(drawn.mean()) == pytest.approx(first / total, abs=0.02)
    assert float(drawn.var()) == pytest.approx(first * second / (total**2 * (total + 1)), rel=0.08)


def test_precision_is_float32_whatever_the_default():
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert drawn_weights(1.0, 1.0, 2).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
