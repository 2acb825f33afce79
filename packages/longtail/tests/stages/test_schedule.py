import pytest
from lightning.pytorch import Callback
from toys import trainer

from medbolt.core import UserError
from medbolt.longtail.stages.schedule import check_start, start_epoch


@pytest.mark.parametrize(
    ("start", "epochs", "expected"),
    [(0.8, 50, 40), (0.8, 90, 72), (0.29, 100, 29), (0.5, 3, 1), (1.0, 7, 7), (0.0, 7, 0), (160, 200, 160), (1, 9, 1)],
)
def test_a_float_is_a_share_and_an_integer_an_epoch(start, epochs, expected):
    check_start(start)
    assert start_epoch(Callback(), start, trainer(epochs=epochs)) == expected


def test_a_share_of_an_open_end_is_refused_but_an_epoch_is_not():
    endless = trainer(epochs=-1)
    assert start_epoch(Callback(), 3, endless) == 3
    with pytest.raises(UserError, match=r"Callback starts at a share of the epochs, start=0.5, but .* no max_epochs"):
        start_epoch(Callback(), 0.5, endless)


@pytest.mark.parametrize("start", [-1, -0.5, 1.5])
def test_what_is_neither_is_refused(start):
    with pytest.raises(ValueError, match="start must be an epoch"):
        check_start(start)
