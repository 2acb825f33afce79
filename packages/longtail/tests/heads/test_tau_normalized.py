import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail import TauNormalizedHead


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 2.0])
def test_equals_the_formula_entry_by_entry(features, linear, tau):
    expected = [[float(w @ x / w.norm() ** tau) for w in linear.weight.detach()] for x in features]
    torch.testing.assert_close(TauNormalizedHead.from_linear(linear, tau)(features), torch.tensor(expected).double())


def test_at_zero_it_is_the_linear_layer_without_its_bias(features, linear):
    torch.testing.assert_close(TauNormalizedHead.from_linear(linear, 0.0)(features) + linear.bias, linear(features))


def test_its_state_is_the_layer_s(linear):
    assert TauNormalizedHead(6, 4).double().load_state_dict(linear.state_dict())
    assert not list(TauNormalizedHead(6, 4).parameters())


def test_tau_is_tuned_by_balanced_accuracy():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[9.0, 0.0], [0.0, 1.0]])
    # right for both classes while 9^(1 - tau) 0.5 < 1 (the rare class) and 1 > 2 * 9^(tau - 1)... so from tau 0.7 on
    features, target = torch.tensor([[0.5, 1.0], [1.0, 0.5], [1.0, 0.2]]), torch.tensor([1, 0, 0])
    head = TauNormalizedHead.from_linear(linear, tau=None)
    head.fit(features, target)
    assert head.tau == 0.7
    assert head(features).argmax(1).tolist() == [1, 0, 0]


def test_untuned_it_says_so(features, linear):
    with pytest.raises(UserError, match="made with tau=None and not tuned"):
        TauNormalizedHead.from_linear(linear, tau=None)(features)


def test_a_class_without_weights_gives_zero_and_nothing_infinite(features, linear):
    linear.weight.data[1] = 0
    logits = TauNormalizedHead.from_linear(linear, 2.0)(features)
    assert logits.isfinite().all()
    assert (logits[:, 1] == 0).all()


def test_half_precision_and_zeros(finite_in_half_precision):
    finite_in_half_precision(TauNormalizedHead(6, 4))


@pytest.mark.parametrize("options", [{"tau": -4.0}, {"grid": []}, {"grid": [-1.0]}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must not be negative nor the grid empty"):
        TauNormalizedHead(6, 4, **options)


def test_one_output_is_no_two_classes():
    with pytest.raises(UserError, match="TauNormalizedHead compares classes, but the network has one output"):
        TauNormalizedHead(6, 1).fit(torch.randn(8, 6), torch.arange(8) % 2)
