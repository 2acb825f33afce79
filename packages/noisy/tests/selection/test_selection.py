from types import SimpleNamespace

import torch

from medbolt.noisy import Selection
from medbolt.noisy.selection.selection import selections


def test_selections_are_those_of_callbacks_that_know_the_samples():
    index, kept = torch.tensor([3, 1]), torch.tensor([True, False])
    known, unknown = Selection(index, kept), Selection(None, kept)
    callbacks = [
        SimpleNamespace(),
        SimpleNamespace(selection=None),
        SimpleNamespace(selection=unknown),
        SimpleNamespace(selection="random"),
        SimpleNamespace(selection=known),
    ]
    ((found, where),) = selections(SimpleNamespace(callbacks=callbacks, lightning_module=SimpleNamespace()))
    assert found is known
    assert where is index
