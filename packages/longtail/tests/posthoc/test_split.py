import pytest
import torch

from medbolt.core import UserError
from medbolt.longtail.posthoc.split import Collected, class_target


def test_the_order_of_batches_does_not_matter():
    rows, target = torch.randn(9, 3), torch.arange(9) % 3

    def gathered(*parts):
        collected = Collected("me")
        for part in parts:
            collected.begin((None, target[part]))
            collected.add(rows[part])
        return collected.gathered()

    whole = gathered(torch.arange(9))
    parts = gathered(*torch.randperm(9, generator=torch.Generator().manual_seed(1)).split(2))
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])
    assert whole[0].dtype == torch.float64
    assert sorted(whole[0].float().tolist()) == sorted(rows.tolist())


def test_nothing_seen_is_said():
    with pytest.raises(UserError, match="str saw no output of the network"):
        Collected("me").gathered()


def test_targets_are_found_in_dicts_and_tuples_hard_and_soft():
    hard, soft = torch.tensor([1, 0]), torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    for target in (hard, soft, hard[:, None], hard.to(torch.uint8)):
        assert class_target({"target": target}, "me").tolist() == [1, 0]
        assert class_target((None, target), "me").tolist() == [1, 0]


@pytest.mark.parametrize(
    "batch", [{"image": 1}, torch.zeros(2), (None, torch.ones(2, 3)), (None, torch.zeros(2, 4, 4))]
)
def test_batches_without_one_class_a_sample_are_refused(batch):
    with pytest.raises(UserError, match="me needs one class a sample, but the batch has"):
        class_target(batch, "me")
