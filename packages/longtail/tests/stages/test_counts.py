from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from medbolt.core import UserError
from medbolt.longtail.stages.counts import known_counts


def of(given=None, **data):
    return known_counts(Callback(), given, SimpleNamespace(datamodule=SimpleNamespace(**data)))


def test_what_is_given_comes_before_what_the_data_say():
    assert of(class_counts=[3, 0]).tolist() == [3, 0]
    assert of([5, 2], class_counts=[3, 1]).tolist() == [5, 2]


def test_nobody_knowing_is_told_with_the_remedy():
    with pytest.raises(UserError, match=r"Callback needs to know how many .* give it class_counts=\[\.\.\.\]"):
        of()


@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [0.5, 0.5], [[1, 2]], []])
def test_what_are_no_counts_is_refused(counts):
    with pytest.raises(UserError, match="Callback got class_counts"):
        of(counts)
