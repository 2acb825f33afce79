"""Co-teaching and ELR on LightningModules that are not ours, unmodified."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_modules import SIZE, TEXT, documentation_style, lightning_transformer, torchgeo_classification
from lightning.pytorch import Callback, LightningModule
from processes import run
from torch import Tensor
from toys import trainer, weights

from medbolt.core import Indexed, ObjectiveCallback, RandomState, TrainingStep, UserError
from medbolt.noisy import CoTeaching, EarlyLearningRegularization

EPOCHS = 2  # of one batch each


@pytest.fixture(params=["documentation_style", "torchgeo_classification", "lightning_transformer"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A module, its data, the names to pass to a callback and its number of classes."""
    torch.manual_seed(0)
    if request.param == "torchgeo_classification":
        pytest.importorskip("torchgeo")
        return *torchgeo_classification(tmp_path), 3
    if request.param == "documentation_style":
        return *documentation_style(tmp_path), 3
    (tmp_path / "wikitext-2.txt").write_text(TEXT, encoding="utf-8")
    module, data, names = lightning_transformer(tmp_path)
    return module, data, names, data.samples.vocab_size


class Listens(ObjectiveCallback):
    """Innermost: keeps each call of the criterion, its losses and its step."""

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self.calls: list[tuple[Tensor, TrainingStep]] = []

    def objective(self, step):
        losses = step.loss()
        self.calls.append((losses.detach(), step))
        return losses


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].detach())


def logged_as_validated(module: LightningModule, data: Any, run: Any) -> None:
    """Assert that validation in the fit saw the module's own loss."""
    if "val_loss" in (logged := run.callback_metrics):
        logged = float(logged["val_loss"])
        assert float(run.validate(module, datamodule=data, verbose=False)[0]["val_loss"]) == pytest.approx(logged)


def test_elr(foreign):
    module, data, names, classes = foreign
    keys, before = list(module.state_dict()), weights(module)
    listens, losses = Listens(**names), Losses()
    method = EarlyLearningRegularization(weight=3.0, momentum=0.7, num_classes=classes, **names)
    fit = trainer(listens, method, losses, epochs=EPOCHS)
    fit.fit(module, datamodule=Indexed(data))
    (own, first), (_, second) = listens.calls
    p, later = (step.logits.detach().softmax(1) for step in (first, second))
    assert len(own) == SIZE
    torch.testing.assert_close(losses.values[0], own.mean() + 3 * torch.log(1 - 0.3 * p.square().sum(1)).mean())
    target = torch.zeros(SIZE, classes).index_add(0, first.index, 0.7 * 0.3 * p).index_add(0, second.index, 0.3 * later)
    assert method.memory is not None
    torch.testing.assert_close(method.memory["target"], target, rtol=0, atol=1e-3)  # ELR clamps probabilities
    assert not torch.equal(weights(module), before)
    assert list(module.state_dict()) == keys
    logged_as_validated(module, data, fit)


def test_co_teaching(foreign):
    module, data, names, _ = foreign
    if type(module).__name__ == "LightningTransformer":
        with pytest.raises(UserError, match=r"no optimizer of LightningTransformer holds .* self.parameters\(\)"):
            trainer(CoTeaching(0.5, **names)).fit(module, datamodule=data)
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.1)  # the remedy it names
    keys, before = list(module.state_dict()), weights(module)
    listens, losses, method = Listens(**names), Losses(), CoTeaching(0.5, gradual_epochs=0, **names)
    fit = trainer(listens, method, losses, epochs=EPOCHS)
    fit.fit(module, datamodule=data)
    (one, _), (two, _) = listens.calls[:2]
    assert not torch.equal(one, two)
    expected = one[two.argsort()[: SIZE // 2]].mean() + two[one.argsort()[: SIZE // 2]].mean()
    torch.testing.assert_close(losses.values[0], expected)
    assert len(listens.calls) == 2 * EPOCHS
    assert not torch.equal(weights(module), before)
    assert method.peer is not None
    assert weights(method.peer).isfinite().all()
    assert list(module.state_dict()) == keys
    logged_as_validated(module, data, fit)


def fitted(make: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    module, data, names = documentation_style(Path())
    method: Any = make(names)
    trainer(RandomState(1), method, epochs=EPOCHS).fit(module, datamodule=Indexed(data))
    memory = {} if method.memory is None else dict(method.memory.fields)
    peer = weights(method.peer) if isinstance(method, CoTeaching) else torch.zeros(0)
    return {"weights": weights(module), "peer": peer, "memory": memory}


def both_methods() -> list[dict[str, Any]]:
    elr = fitted(lambda names: EarlyLearningRegularization(num_classes=3, **names))
    return [elr, fitted(lambda names: CoTeaching(0.5, gradual_epochs=0, scope="global", **names))]


@pytest.mark.ddp
def test_two_processes_learn_what_one_learns():
    (alone,) = run(both_methods, processes=1)
    for together in run(both_methods):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
