import pytest
import torch

from medbolt.noisy.memorizing.partial import drawn_rows, rows_of, spread

AMONG = torch.arange(30) % 3 == 0  # ten of them


def test_without_a_share_all_rows_come_in_order():
    rows, number = drawn_rows(AMONG, 10, 1.0)
    assert (rows.tolist(), number) == (AMONG.nonzero()[:, 0].tolist(), 10)


@pytest.mark.parametrize(("share", "number"), [(0.5, 5), (0.7, 7), (0.1, 2), (0.01, 2), (0.41, 5)])
def test_a_share_is_rounded_up_and_drawn_of_those_asked_for(share, number):
    rows, drawn = drawn_rows(AMONG, 10, share)
    assert drawn == number
    assert len(rows) == number
    assert AMONG[rows].all()
    assert len(rows.unique()) == len(rows)


def test_every_row_is_drawn_equally_often():
    torch.manual_seed(0)
    times = torch.zeros(30)
    for _ in range(3000):
        times[drawn_rows(AMONG, 10, 0.3)[0]] += 1
    assert not times[~AMONG].any()
    deviation = (3000 * 0.3 * 0.7) ** 0.5
    assert ((times[AMONG] - 900).abs() < 4 * deviation).all()


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("kept", [[], [2]])
def test_rows_fill_up_to_two(share, kept):
    among = torch.zeros(4, dtype=torch.bool)
    among[kept] = True
    rows, number = drawn_rows(among, len(kept), share)
    assert (len(rows), number) == (2, len(kept))
    assert rows[: len(kept)].tolist() == kept


def test_the_mean_of_what_is_spread_is_that_of_the_rows():
    losses, rows = torch.tensor([1.0, 2.0, 6.0], requires_grad=True), torch.tensor([4, 0, 2])
    spread_out = spread(losses, rows, 5)
    assert spread_out.mean() == losses.mean()
    assert spread_out[[1, 3]].eq(0).all()
    spread_out.mean().backward()
    torch.testing.assert_close(losses.grad, torch.full((3,), 1 / 3))


def test_what_has_no_row_a_sample_stays_whole():
    rows, table, number = torch.tensor([1, 0]), torch.arange(3), torch.tensor(3.0)
    taken, *rest = rows_of([torch.tensor([5, 6]), table, number, "mode"], rows, 2)
    assert taken.tolist() == [6, 5]
    assert rest[0] is table
    assert rest[1] is number
    assert rest[2] == "mode"
