from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from medbolt.core import Subset, UserError
from medbolt.longtail import ClassGroups, GroupF1, GroupRanking, GroupRecall, LongTailReport

KINDS = {"recall/": GroupRecall, "f1/": GroupF1, "": GroupRanking}


def expected(task, data, groups, average="class"):
    batches = list(data.test_dataloader())
    with torch.no_grad():
        probability = torch.cat([task.model.eval()(batch["image"]) for batch in batches]).softmax(1)
    target = torch.cat([batch["target"] for batch in batches])
    found = {}
    for prefix, kind in KINDS.items():
        metric = kind(4, groups, average)
        metric.update(probability, target)
        found |= {f"test/{prefix}{name}": float(value) for name, value in metric.compute().items()}
    return {name: value for name, value in found.items() if value == value}


def test_groups_by_training_samples(bright, make_task, make_trainer):
    task, report = make_task(), LongTailReport(many=30, few=6)
    trainer = make_trainer(callbacks=[report], max_epochs=2)
    trainer.fit(task, bright())
    assert {"val/recall/head", "val/recall/medium", "val/f1/tail", "val/recall/average"} <= set(
        trainer.callback_metrics
    )
    assert "val/auroc/head" not in trainer.callback_metrics
    (found,) = trainer.test(task, bright(), verbose=False)
    groups = ClassGroups((0,), (1, 2), (3,))
    assert {name: found[name] for name in expected(task, bright(), groups)} == pytest.approx(
        expected(task, bright(), groups)
    )
    assert "test/average_precision/average" in found


def test_groups_by_index_and_their_average(bright, make_task, make_trainer):
    task, report = make_task(), LongTailReport(index_bounds=[0, 3], average="group", ranking="always")
    trainer = make_trainer(callbacks=[report])
    trainer.fit(task, bright())
    assert "val/auroc/tail" in trainer.callback_metrics
    (found,) = trainer.test(task, bright(), verbose=False)
    values = expected(task, bright(), ClassGroups((), (0, 1, 2), (3,)), "group")
    assert {name: found[name] for name in values} == pytest.approx(values)
    assert "test/recall/head" not in found


def test_each_of_several_loaders_has_its_groups(bright, make_task, make_trainer):
    task, data = make_task(), bright()
    trainer = make_trainer(callbacks=[LongTailReport(many=30, few=6)])
    (test,), (val,) = trainer.test(task, data, verbose=False), trainer.validate(task, data, verbose=False)
    single = data.test_dataloader
    data.test_dataloader = lambda: [single(), data.val_dataloader()]
    found = trainer.test(task, data, verbose=False)[0]
    for name in ("recall/head", "recall/tail", "f1/average"):
        assert found[f"test/{name}/dataloader_idx_0"] == test[f"test/{name}"]
        assert found[f"test/{name}/dataloader_idx_1"] == val[f"val/{name}"]


class Foreign(LightningModule):
    """Returns nothing from its steps."""

    def __init__(self, network):
        super().__init__()
        self.net = network

    def test_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self.net(batch["image"]), batch["target"]))


def test_a_foreign_module_s_network_is_read(bright, make_task, make_trainer):
    task = make_task()
    (plain,) = make_trainer(callbacks=[LongTailReport(30, 6)]).test(task, bright(), verbose=False)
    report = LongTailReport(30, 6, network="net")
    (found,) = make_trainer(callbacks=[report]).test(Foreign(task.model), bright(), verbose=False)
    assert {k: v for k, v in found.items() if "/" in k} == pytest.approx({k: v for k, v in plain.items() if k in found})
    assert not task.model._forward_hooks


def test_one_logit_of_two_classes(bright, make_trainer):
    class Two(bright):
        class_names = ["a", "b"]

        def load(self, split):
            dataset = super().load(split)
            dataset.targets.clamp_(max=1)
            return dataset

    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))

    class Binary(Foreign):
        def test_step(self, batch, batch_idx):
            self.net(batch["image"])

    report = LongTailReport(36, 36, network="net")
    (found,) = make_trainer(callbacks=[report]).test(Binary(network), Two(), verbose=False)
    assert set(found) >= {"test/recall/head", "test/recall/average", "test/auroc/head"}


@pytest.mark.parametrize("name", ["probability", "logits"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_score_of_two_classes_that_a_step_returns(bright, make_trainer, name, shape):
    class Two(bright):
        class_names = ["a", "b"]

        def load(self, split):
            dataset = super().load(split)
            dataset.targets.clamp_(max=1)
            return dataset

    class Returns(LightningModule):
        def test_step(self, batch, batch_idx):
            logits = torch.where(batch["target"] == 1, 0.3, -0.3).reshape(shape)  # right, if hardly so
            return {name: logits if name == "logits" else logits.sigmoid(), "target": batch["target"]}

    report = LongTailReport(36, 36)
    (found,) = make_trainer(callbacks=[report]).test(Returns(), Two(), verbose=False)
    assert found["test/recall/average"] == found["test/auroc/average"] == 1


def test_ranks_are_those_of_the_counts_whatever_the_numbers_of_classes(bright, make_task, make_trainer):
    class Reversed(bright):
        def load(self, split):
            dataset = super().load(split)
            return replace(dataset, targets=3 - dataset.targets)

    (found,) = make_trainer(callbacks=[LongTailReport(index_bounds=[1, 3])]).test(
        make_task(), Reversed(), verbose=False
    )
    values = expected(make_task(), Reversed(), ClassGroups(head=(3,), medium=(1, 2), tail=(0,)))
    assert {name: found[name] for name in values} == pytest.approx(values)


def test_groups_that_the_data_module_has(bright, make_task, make_trainer):
    class Grouped(bright):
        class_groups = ClassGroups((3,), (0, 2), (1,))

    wrapped = Subset(Grouped(), fraction=0.9)
    (found,) = make_trainer(callbacks=[LongTailReport()]).test(make_task(), wrapped, verbose=False)
    values = expected(make_task(), bright(), Grouped.class_groups)
    assert {name: found[name] for name in values} == pytest.approx(values)
    (found,) = make_trainer(callbacks=[LongTailReport(index_bounds=[1, 3])]).test(make_task(), wrapped, verbose=False)
    assert found["test/recall/head"] == pytest.approx(
        expected(make_task(), bright(), ClassGroups((0,), (), ()))["test/recall/head"]
    )


@pytest.mark.parametrize("network", ["", "net"])
def test_several_findings_a_sample_are_ranked(bright, make_task, make_trainer, network):
    task = make_task(task="multilabel")
    module = task
    if network:
        module = Foreign(task.model)
        module.task = "multilabel"
        module.test_step = lambda batch, batch_idx: module.net(batch["image"])
    (found,) = make_trainer(callbacks=[LongTailReport(30, 6, network=network or "model")]).test(
        module, bright("labels"), verbose=False
    )
    batches = list(bright("labels").test_dataloader())
    with torch.no_grad():
        probability = torch.cat([task.model.eval()(batch["image"]) for batch in batches]).sigmoid()
    metric = GroupRanking(4, ClassGroups((0,), (1, 2), (3,)))
    metric.update(probability, torch.cat([batch["target"] for batch in batches]))
    values = {f"test/{name}": float(value) for name, value in metric.compute().items()}
    assert {name: found[name] for name in values} == pytest.approx(values)
    assert not [name for name in found if name.startswith(("test/recall/head", "test/f1/head"))]


def test_steps_and_data_that_do_not_tell_are_named(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="do not tell class_counts"):
        make_trainer(callbacks=[LongTailReport()]).test(make_task(), bright().test_dataloader())
    with pytest.raises(UserError, match="no Foreign.model to take logits from"):
        make_trainer(callbacks=[LongTailReport()]).test(Foreign(make_task().model), bright())


@pytest.mark.parametrize("options", [{"ranking": "sometimes"}, {"index_bounds": [3]}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="ranking must be|index_bounds are"):
        LongTailReport(**options)
