import pytest
import torch

from medbolt.noisy.dividemix.uniform_split import UniformSplit, divergence, uniform_selection


def test_divergence_is_that_of_the_distributions():
    p = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double().mul(3).softmax(1)
    for row, y in zip(p, torch.arange(20) % 4, strict=True):
        label = torch.eye(4, dtype=torch.float64)[y]
        mean = (row + label) / 2
        bits = [float((q * (q / mean).log2()).nan_to_num(0).sum()) for q in (row, label)]
        assert float(divergence(row[y])) == pytest.approx(sum(bits) / 2)


def test_divergence_is_between_its_ends_in_single_precision():
    p = torch.tensor([0.0, 1e-40, 1e-8, 1 - 1e-7, 1.0])
    found = divergence(p)
    assert found.dtype == torch.float32
    assert found[0] == 1
    assert found[-1] == 0
    assert ((found >= 0) & (found <= 1)).all()


def selected_by_hand(d, label, classes, high, strictness):
    d, label = d.tolist(), label.tolist()
    threshold = sum(d) / len(d)
    if threshold > high:
        threshold -= (threshold - min(d)) / strictness
    rate = sum(x < threshold for x in d) / len(d)
    each = max(int(rate * len(d) / classes + 1e-9), 1)
    chosen = set()
    for c in range(classes):
        mine = sorted((i for i in range(len(d)) if label[i] == c), key=lambda i: d[i])
        chosen |= set(mine[:each])
    return [i in chosen for i in range(len(d))]


@pytest.mark.parametrize("high", [0.0, 0.4, 1.0])
def test_selects_as_many_of_each_class(high):
    generator = torch.Generator().manual_seed(1)
    d, label = torch.rand(60, generator=generator, dtype=torch.float64), torch.randint(0, 3, (60,), generator=generator)
    found = uniform_selection(d, label, 3, high, 5.0)
    assert found.tolist() == selected_by_hand(d, label, 3, high, 5.0)
    counts = torch.bincount(label[found], minlength=3)
    assert counts.min() == counts.max() > 1


def test_a_stricter_threshold_labels_fewer():
    d, label = torch.linspace(0.5, 1, 100), torch.arange(100) % 2
    sizes = [int(uniform_selection(d, label, 2, 0.7, strictness).sum()) for strictness in (1, 2, 5, 1e9)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 2  # one a class
    assert sizes[-1] == 50


def test_small_empty_and_broken_classes():
    d = torch.tensor([0.1, 0.2, 0.1, 0.9, torch.nan, 0.9])
    label = torch.tensor([0, 0, 1, 0, 2, 0])
    found = uniform_selection(d, label, 4, 0.7, 5.0)
    assert found.tolist() == [True, False, True, False, False, False]
    assert not uniform_selection(torch.full((3,), torch.nan), label[:3], 4, 0.7, 5.0).any()
    assert uniform_selection(torch.tensor([0.5]), torch.tensor([0]), 4, 0.7, 5.0).tolist() == [True]
    assert uniform_selection(torch.full((4,), 0.5), torch.tensor([0, 0, 1, 1]), 2, 0.7, 5.0).sum() == 2


def test_arguments_out_of_range():
    for wrong in ((1.5, 5.0), (-0.1, 5.0), (0.7, 0.5)):
        with pytest.raises(ValueError, match="high_divergence"):
            UniformSplit(*wrong)
