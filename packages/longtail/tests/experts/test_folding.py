import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail.experts.folding import Copies, Fold, Unfolded


def test_the_first_part_gives_every_copy_the_batch_and_later_ones_its_share():
    fold = Fold(3, rows=6)
    x = torch.randn(2, 4)
    first, second = (
        Copies([nn.Linear(4, 4) for _ in range(3)], fold, "a"),
        Copies([nn.Linear(4, 5) for _ in "abc"], fold, "b"),
    )
    folded = second(first(x))
    expected = torch.cat([b(a(x)) for a, b in zip(first.copies, second.copies, strict=True)])
    torch.testing.assert_close(folded, expected)
    by_expert = Unfolded(3)(folded)
    assert by_expert.shape == (3, 2, 5)
    assert torch.equal(by_expert[1], expected[2:4])


@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_none_and_of_one(size):
    copies = Copies([nn.Linear(4, 5) for _ in range(3)], Fold(3, rows=3 * size), "a")
    assert Unfolded(3)(copies(torch.zeros(size, 4))).shape == (3, size, 5)


def test_half_precision_comes_out_in_full():
    assert Unfolded(2)(torch.zeros(4, 3, dtype=torch.bfloat16)).dtype == torch.float32
    assert Unfolded(2)(torch.zeros(4, 3, dtype=torch.float64)).dtype == torch.float64


def test_rows_that_are_no_images_are_refused():
    with pytest.raises(UserError, match="part 'body' .* was given 5 rows for 2 images; name parts that work on one"):
        Copies([nn.Linear(4, 4)] * 3, Fold(3, rows=6), "body")(torch.zeros(5, 4))
    with pytest.raises(UserError, match="3 experts gave 2 rows for 2 images; name as head its last layer"):
        Fold(3, rows=6).checked(torch.zeros(2, 4))
    with pytest.raises(UserError, match="gave a tuple for 2 images"):
        Fold(3, rows=6).checked((torch.zeros(6, 4),))
