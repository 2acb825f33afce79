import pytest
import torch

from medbolt.noisy.noise.report import noise_report


def test_counts_what_happened_to_each_class():
    report = noise_report(torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 2, 1, 0]), num_classes=3)
    assert report.rate == pytest.approx(2 / 6)
    assert report.transition[:2].tolist() == [[0.75, 0, 0.25], [0.5, 0.5, 0]]
    assert report.class_rates[:2].tolist() == [0.25, 0.5]
    assert report.transition[2].isnan().all()
    assert report.limit == pytest.approx(2 / 3)


def test_says_whether_every_class_can_be_told():
    clean = torch.tensor([0, 0, 0, 1, 1, 1])
    assert noise_report(clean, torch.tensor([0, 0, 1, 1, 1, 1]), 2).identifiable
    assert not noise_report(clean, torch.tensor([0, 0, 1, 1, 0, 0]), 2).identifiable
    assert noise_report(clean, clean, 3).identifiable  # a class without samples says nothing
