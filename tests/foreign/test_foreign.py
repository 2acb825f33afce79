"""Objectives on LightningModules that are not ours, unmodified, on one process and on two."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_modules
import pytest
import torch
import torch.nn.functional as F
from foreign_modules import SIZE, TEXT, documentation_style, lightning_transformer, torchgeo_classification
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from processes import run
from torch import Tensor
from toys import trainer, weights

from medbolt.core import Indexed, ObjectiveCallback, RandomState, UserError

STEPS = 2  # whose losses are compared as floats of single precision: threads may add up in another order


class Tripled(ObjectiveCallback):
    def objective(self, step):
        return 3 * step.loss()


class Remembers(ObjectiveCallback):
    """Writes what it saw of each sample."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, loss=torch.tensor(-1.0), target=torch.tensor(-1), visits=torch.tensor(0))

    def objective(self, step):
        losses, index = step.loss(), step.index
        self.memory.write(index, loss=losses, target=step.target, visits=self.memory.read(index, "visits") + 1)
        return losses


class Watches(Callback):
    """Remembers the losses and the first gradient."""

    def __init__(self):
        self.losses: list[float] = []
        self.gradient: Tensor | None = None

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if self.gradient is None:
            self.gradient = torch.cat([p.grad.flatten() for p in pl_module.parameters()])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


def fitted(make: Callable[..., Any], method: type[ObjectiveCallback] | None, **options: Any) -> dict[str, Any]:
    """Fit a freshly seeded module, with or without a method; return what can be compared."""
    torch.manual_seed(0)
    module, data, names = make()
    start = weights(module)
    watch, callback = Watches(), method(**names) if method else None
    fit = trainer(RandomState(1), watch, *([callback] if callback else []), epochs=STEPS, **options)
    fit.fit(module, datamodule=Indexed(data) if method is Remembers else data)
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    if "val_loss" in logged:
        logged["validated"] = float(fit.validate(module, datamodule=data, verbose=False)[0]["val_loss"])
    result = {"losses": watch.losses, "gradient": watch.gradient, "weights": weights(module), "logged": logged}
    if callback is not None and callback.memory is not None:
        result["memory"] = dict(callback.memory.fields)
        result["targets"] = torch.tensor([target_of(data.samples[i]) for i in range(SIZE)])
    return result | {"start": start}


def target_of(sample: Any) -> int:
    return int(sample["label"] if isinstance(sample, dict) else sample[1])


def scenario(case: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Fit with each method, on this process alone and on all of them."""
    make = functools.partial(getattr(foreign_modules, case), folder)
    methods = {"plain": None, "nothing": ObjectiveCallback, "tripled": Tripled, "remembers": Remembers}
    alone = {name: fitted(make, method, devices=1) for name, method in methods.items()}
    return {"alone": alone, "together": {name: fitted(make, method) for name, method in methods.items()}}


CASES = [
    documentation_style,
    lightning_transformer,
    pytest.param(torchgeo_classification, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.__name__)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the fits alone and together gave on each of two processes."""
    if request.param is torchgeo_classification:
        pytest.importorskip("torchgeo")
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "wikitext-2.txt").write_text(TEXT, encoding="utf-8")
    found = run(scenario, request.param.__name__, folder, timeout=300)
    return {name: [process[name] for process in found] for name in ("alone", "together")}


both = pytest.mark.parametrize("where", ["alone", "together"])
pytestmark = pytest.mark.ddp


@both
def test_a_callback_without_an_objective_changes_nothing(results, where):
    for process in results[where]:
        plain, watched = process["plain"], process["nothing"]
        assert len(plain["losses"]) == STEPS
        torch.testing.assert_close(watched["losses"], plain["losses"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(watched["gradient"], plain["gradient"])
        torch.testing.assert_close(watched["weights"], plain["weights"], rtol=1e-4, atol=1e-6)
        assert not torch.equal(plain["weights"], plain["start"])


@both
def test_an_objective_reaches_the_loss_its_gradient_and_what_is_logged(results, where):
    for process in results[where]:
        plain, tripled = process["plain"], process["tripled"]
        assert tripled["losses"][0] == pytest.approx(3 * plain["losses"][0], rel=1e-5)
        # as vectors: of 11 million entries some are sums of far larger ones, whose rounding is all they hold
        assert (tripled["gradient"] / 3 - plain["gradient"]).norm() < 1e-5 * plain["gradient"].norm()
        if "train_loss" in tripled["logged"]:
            assert tripled["logged"]["train_loss"] == pytest.approx(tripled["losses"][-1])


@both
def test_validation_does_not_see_it(results, where):
    for process in results[where]:
        logged = process["tripled"]["logged"]
        if "val_loss" in logged:
            assert logged["val_loss"] == pytest.approx(logged["validated"], rel=1e-5)


@both
def test_a_memory_knows_every_sample_on_every_process(results, where):
    for process in results[where]:
        rows = process["remembers"]["memory"]
        assert torch.equal(rows["target"], process["remembers"]["targets"])
        assert rows["visits"].tolist() == [STEPS] * SIZE
        torch.testing.assert_close(process["remembers"]["losses"], process["plain"]["losses"], rtol=1e-5, atol=1e-6)
    last = torch.tensor([process["remembers"]["losses"][-1] for process in results[where]]).mean()
    for process in results[where]:  # the last step's losses, all processes' together
        torch.testing.assert_close(process["remembers"]["memory"]["loss"].mean(), last)


def test_processes_agree_on_weights_and_memory(results):
    for name in ("plain", "tripled", "remembers"):
        zero, one = (process[name] for process in results["together"])
        parameters = len(zero["gradient"])  # buffers of batch norm are each process's own
        if len(zero["weights"]) == parameters:
            assert torch.equal(zero["weights"], one["weights"])
        torch.testing.assert_close(zero["gradient"], one["gradient"], rtol=0, atol=0)
        torch.testing.assert_close(zero.get("memory"), one.get("memory"), rtol=0, atol=0)


def of_the_documentation(folder: Path) -> list[dict[str, Any]]:
    return [
        fitted(functools.partial(documentation_style, folder), Remembers, **options) for options in ({"devices": 1}, {})
    ]


def test_two_processes_learn_what_one_learns(tmp_path):
    for alone, together in run(of_the_documentation, tmp_path):
        torch.testing.assert_close(together["weights"], alone["weights"])
        torch.testing.assert_close(together["memory"], alone["memory"])


def test_the_first_losses_in_memory_are_those_of_the_first_weights():
    torch.manual_seed(0)
    module, data, names = documentation_style(Path())
    inputs = torch.stack([x for x, _ in data.samples])
    expected = F.cross_entropy(module.layers(inputs), torch.arange(SIZE) % 3, reduction="none").detach()
    callback = Remembers(**names)
    trainer(callback).fit(module, datamodule=Indexed(data))
    torch.testing.assert_close(callback.memory["loss"], expected)


def test_a_loss_without_a_target_is_refused():
    """BoringModel's: its ``loss`` takes the outputs alone, and it is no classification loss either."""
    with pytest.raises(UserError, match="criterion 'loss' was called without a target"):
        trainer(ObjectiveCallback("loss", "layer")).fit(BoringModel(), datamodule=BoringDataModule())
    with pytest.raises(UserError, match="training_step of BoringModel never called torch's 'cross_entropy'"):
        trainer(Tripled("functional", "layer")).fit(BoringModel(), datamodule=BoringDataModule())
