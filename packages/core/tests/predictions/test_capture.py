from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer

from medbolt.core import PredictionTable
from medbolt.core.errors import UserError
from medbolt.core.predictions.capture import Outputs, batch_columns


class Module(LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.backbone = network


def columns(network: nn.Module, batch, labelled: bool = True, attribute: str = "backbone"):
    outputs = Outputs(Module(network), attribute)
    network(batch[0] if isinstance(batch, tuple) else batch["image"])
    return batch_columns(None, batch, outputs, labelled)


def test_logits_become_probabilities_by_softmax():
    x = torch.randn(5, 3, dtype=torch.float64)
    rows = columns(nn.Identity(), (x, torch.tensor([0, 1, 2, 0, 1])))
    probability = np.stack([rows[f"p_{k}"] for k in range(3)], axis=1)
    np.testing.assert_allclose(probability, x.softmax(1), atol=1e-6)
    np.testing.assert_array_equal(rows["target"], [0, 1, 2, 0, 1])


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_single_logit_becomes_two_columns_by_sigmoid(shape):
    x = torch.randn(shape)
    rows = columns(nn.Identity(), (x, torch.tensor([[0.0], [1.0], [1.0], [0.0]])))
    np.testing.assert_allclose(rows["p_1"], x.sigmoid().reshape(-1), atol=1e-6)
    np.testing.assert_allclose(rows["p_0"] + rows["p_1"], 1, atol=1e-6)
    np.testing.assert_array_equal(rows["target"], [0, 1, 1, 0])


def test_a_target_a_label_means_a_sigmoid_a_label():
    x = torch.randn(2, 3)
    rows = columns(nn.Identity(), (x, torch.tensor([[1, 0, 1], [0, 0, 1]])))
    np.testing.assert_allclose(rows["p_2"], x[:, 2].sigmoid(), atol=1e-6)
    np.testing.assert_array_equal(rows["target_2"], [1, 1])


def test_soft_targets_of_a_multiclass_task_count_as_their_most_probable_class():
    outputs = Outputs(Module(nn.Identity()), "backbone")
    step = {"probability": torch.eye(2), "target": torch.tensor([[0.3, 0.7], [0.9, 0.1]])}
    np.testing.assert_array_equal(batch_columns(step, {}, outputs, True, "ordinal")["target"], [1, 0])
    np.testing.assert_array_equal(batch_columns(step, {}, outputs, True, "multilabel")["target_1"], [1, 0])


def test_what_the_step_returns_wins_over_the_hook():
    outputs = Outputs(Module(nn.Identity()), "backbone")
    step = {"probability": torch.tensor([0.25, 0.75]), "target": torch.tensor([1, 0])}
    rows = batch_columns(step, (torch.zeros(2, 3), torch.tensor([0, 0])), outputs, labelled=True)
    np.testing.assert_array_equal(rows["p_1"], [0.25, 0.75])
    np.testing.assert_array_equal(rows["target"], [1, 0])


def test_the_names_come_from_the_batch():
    batch = {
        "image": torch.randn(2, 2),
        "target": torch.tensor([0, 1]),
        "index": torch.tensor([8, 3]),
        "domain": torch.tensor([1, 0]),
        "id": ["a", "b"],
        "group": ["p", "p"],
    }
    rows = columns(nn.Identity(), batch)
    assert {"index", "domain", "id", "group", "target", "p_0", "p_1"} == set(rows)
    np.testing.assert_array_equal(rows["index"], [8, 3])
    assert list(rows["id"]) == ["a", "b"]


def test_bfloat16_outputs_are_read():
    rows = columns(nn.Identity(), (torch.randn(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1])))
    assert rows["p_0"].dtype == np.float32


def test_an_output_with_logits_is_read():
    class HuggingFaceLike(nn.Module):
        def forward(self, x):
            return type("Output", (), {"logits": x})()

    assert len(columns(HuggingFaceLike(), (torch.randn(2, 3), torch.tensor([0, 1])))["p_0"]) == 2


def test_predicting_needs_no_target():
    assert "target" not in columns(nn.Identity(), {"image": torch.randn(2, 3)}, labelled=False)


@pytest.mark.parametrize(
    ("network", "batch", "attribute", "message"),
    [
        (nn.Identity(), (torch.randn(2, 3), torch.tensor([0, 1])), "model", "no Module.model .* 'backbone', 'self'"),
        (nn.Identity(), (torch.randn(2, 3),), "backbone", "the test batch has no target"),
        (nn.Identity(), (torch.randn(2, 3), torch.tensor([0.5, 1])), "backbone", "whole-number targets"),
        (nn.Identity(), (torch.randn(2, 3, 4), torch.tensor([0, 1])), "backbone", r"needs probabilities \(B, K\)"),
        (nn.Flatten(0), (torch.randn(2, 3), torch.tensor([0, 1])), "backbone", "differ in length"),
        (nn.LSTM(3, 2), (torch.randn(2, 3), torch.tensor([0, 1])), "backbone", "gave tuple, no tensor"),
    ],
)
def test_what_is_no_classification_is_refused_in_one_sentence(network, batch, attribute, message):
    with pytest.raises(UserError, match=message) as error:
        columns(network, batch, attribute=attribute)
    assert "\n" not in str(error.value)


def test_the_hook_is_taken_off():
    network = nn.Identity()
    outputs = Outputs(Module(network), "backbone")
    outputs.remove()
    assert not network._forward_hooks


class Network(nn.Module):
    """Not a container of torch's own, whose hooks the compiler looks at each time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 3)

    def forward(self, image):
        return self.layer(image.flatten(1))


class Foreign(ToyClassifier):
    """Returns no probabilities."""

    def __init__(self):
        super().__init__()
        self.model = Network()

    def test_step(self, batch, batch_idx):
        self.model(batch["image"])


def table_of_a_compiled_module(folder):
    """Return probabilities of the table and those of the network."""
    module, data = Foreign(), ToyImages()
    compiled = torch.compile(module, backend="eager")
    trainer().test(compiled, datamodule=data, verbose=False)
    trainer(PredictionTable(folder)).test(compiled, datamodule=data, verbose=False)
    table = pd.read_parquet(next(Path(folder).glob("*.parquet")))
    expected = torch.cat([module.model(batch["image"]) for batch in data.test_dataloader()]).softmax(1)
    return table[["p_0", "p_1", "p_2"]].to_numpy(), expected.detach().numpy()


def test_a_module_that_was_compiled_and_called_before(tmp_path):
    # in a process of its own: inside pytest's even a network that is not traced anew calls the hook
    ((table, expected),) = run(table_of_a_compiled_module, str(tmp_path), processes=1)
    np.testing.assert_allclose(table, expected, atol=1e-6)
