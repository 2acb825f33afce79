import pytest

from medbolt.core import UserError
from medbolt.noisy import EarlyLearningRegularization
from medbolt.noisy.class_count import class_count

CALLBACK = EarlyLearningRegularization()


class Told:
    """Stands for trainer and module, of which only these attributes are read."""

    def __init__(self, of_data=None, of_module=None):
        self.datamodule = type("Data", (), {} if of_data is None else {"num_classes": of_data})()
        if of_module is not None:
            self.num_classes = of_module


@pytest.mark.parametrize(
    ("given", "of_data", "of_module", "expected"),
    [(3, 4, 5, 3), (None, 4, 5, 4), (None, None, 5, 5), (3, None, None, 3)],
)
def test_the_argument_wins_over_the_data_and_the_data_over_the_module(given, of_data, of_module, expected):
    told = Told(of_data, of_module)
    assert class_count(CALLBACK, given, told, told) == expected


def test_it_is_asked_for_where_nobody_tells():
    with pytest.raises(UserError, match="EarlyLearningRegularization needs the number .* give it num_classes"):
        class_count(CALLBACK, None, Told(), Told())
