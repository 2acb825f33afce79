"""Generation of rare samples, of medbolt-longtail, on two processes: it does not fail, and both learn the same."""

from typing import Any

import pytest
import torch
from processes import run
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import RareSampleGeneration

pytestmark = pytest.mark.ddp


def everything(batch_size: int) -> dict[str, Any]:
    callback = RareSampleGeneration(4, "model.2", start=1, hidden=8, class_counts=[90, 9, 1])
    module, rows = ToyClassifier(0.01), []
    module.model[5].register_forward_hook(lambda layer, inputs, output: rows.append(len(inputs[0])))
    data = ToyImages(batch_size=batch_size)
    trainer(RandomState(7), callback, epochs=3, limit_val_batches=0).fit(module, datamodule=data)
    assert callback.generator is not None
    learned = torch.cat([weights(callback.generator), *(p.detach().flatten().double() for p in module.parameters())])
    return {"learned": learned, "rows": rows}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_two_processes_learn_the_same_whoever_of_them_generates(batch_size):
    first, second = run(everything, batch_size)
    assert first["learned"].isfinite().all()
    assert torch.equal(first["learned"], second["learned"])
    generated = [(a > batch_size, b > batch_size) for a, b in zip(first["rows"], second["rows"], strict=True)]
    # of one image nothing is generated; of three it is by both, by one of them, and before the start by none
    expected = {(False, False)} if batch_size == 1 else {(False, False), (True, True)}
    assert expected <= set(generated)
    assert (True in {a != b for a, b in generated}) == (batch_size == 3)
