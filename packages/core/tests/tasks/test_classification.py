import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from medbolt.core import ClassificationTask, ImageDataModule, ImageDataset, ObjectiveCallback, UserError

SPLITS = {"train": 32, "val": 16, "test": 21}


class Tiny(ImageDataModule):
    """Images whose brightness is the class, in two domains."""

    def __init__(self, kind: str = "multiclass") -> None:
        super().__init__(batch_size=8, image_size=None, drop_last=False)
        self.kind = kind

    def load(self, split):
        size = SPLITS[split]
        target = torch.arange(size) % (2 if self.kind == "binary" else 4)
        images = (target * 60)[:, None, None, None].expand(size, 3, 8, 8).to(torch.uint8)
        if self.kind == "multilabel":
            target = torch.stack([(target >> bit) & 1 for bit in range(2)], 1).float()
        ids = [f"{split}{i}" for i in range(size)]
        return ImageDataset(images, target, ids, domains=torch.arange(size) // 11)

    @property
    def class_names(self):
        return {"binary": ["no", "yes"], "multilabel": ["low", "high"]}.get(self.kind, list("abcd"))

    @property
    def domain_names(self):
        return ["near", "far", "farther"]


def make(kind="multiclass", **options):
    torch.manual_seed(0)
    outputs = {"binary": 1, "multilabel": 2}.get(kind, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, outputs))
    return ClassificationTask(model, num_classes=max(outputs, 2), task=kind, **options)


@pytest.fixture
def trainer(tmp_path):
    def build(**options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(accelerator="cpu", default_root_dir=tmp_path, **(quiet | {"max_epochs": 1} | options))

    return build


class Several(Tiny):
    """Two loaders each; the test's second one is the validation data."""

    def val_dataloader(self):
        return [super().val_dataloader(), super().test_dataloader()]

    def test_dataloader(self):
        return {"inside": super().test_dataloader(), "outside": super().val_dataloader()}


def test_each_of_several_loaders_has_its_metrics(trainer):
    task = make()
    loop, one = trainer(), Tiny()
    test, val = loop.test(task, one, verbose=False)[0], loop.validate(task, one, verbose=False)[0]
    inside, outside = loop.test(task, Several(), verbose=False)
    of_inside = {f"{name}/dataloader_idx_0": value for name, value in test.items()}
    of_outside = {f"{name.replace('val', 'test')}/dataloader_idx_1": value for name, value in val.items()}
    assert inside | of_inside == inside  # Lightning adds what is logged at the end, by class and by domain, to both
    assert outside | of_outside == outside
    assert "test/loss/dataloader_idx_1" not in inside
    assert outside["test/recall/d/dataloader_idx_1"] == inside["test/recall/d/dataloader_idx_1"]
    first, second = loop.validate(task, Several(), verbose=False)
    assert first == {f"{name}/dataloader_idx_0": value for name, value in val.items()}
    assert second == {f"{name}/dataloader_idx_1": test[name.replace("val", "test")] for name in val}
    assert len(loop.predict(task, dataloaders=Several().test_dataloader())) == 2


def test_a_loader_without_batches_is_left_out(trainer):
    class OneEmpty(Tiny):
        def test_dataloader(self):
            return [super().test_dataloader(), DataLoader([])]

    logged = trainer().test(make(), OneEmpty(), verbose=False)
    assert "test/loss/dataloader_idx_0" in logged[0]
    assert not any(name.endswith("_1") for metrics in logged for name in metrics)


@pytest.mark.parametrize("kind", ["multiclass", "ordinal", "binary", "multilabel"])
def test_learns_what_is_easy(kind, trainer):
    task, data = make(kind, optimizer=lambda p: torch.optim.Adam(p, 0.01)), Tiny(kind)
    trainer(max_epochs=30, enable_checkpointing=False, num_sanity_val_steps=0).fit(task, data)
    metrics = trainer().test(task, data, verbose=False)[0]
    assert metrics["test/auroc"] > 0.95
    assert any(name.startswith("test/recall/") for name in metrics)
    assert "test/auroc/worst_domain" in metrics


def test_logged_metrics_are_those_of_the_whole_split(trainer):
    task, data = make(), Tiny()
    logged = trainer().test(task, data, verbose=False)[0]
    with torch.no_grad():
        batches = list(data.test_dataloader())
        logits = task.eval()(torch.cat([batch["image"] for batch in batches]))
    target = torch.cat([batch["target"] for batch in batches])
    probability = logits.softmax(1)
    assert logged["test/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, probability.argmax(1)))
    assert logged["test/auroc"] == pytest.approx(roc_auc_score(target, probability, multi_class="ovr"), abs=1e-5)
    assert logged["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, target).item(), rel=1e-5)


def test_predict_returns_probabilities_and_targets(trainer):
    outputs = trainer().predict(make("binary"), Tiny("binary"))
    probability = torch.cat([o["probability"] for o in outputs])
    assert probability.shape == (21,)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert torch.cat([o["target"] for o in outputs]).tolist() == [i % 2 for i in range(21)]


def test_a_criterion_that_asks_is_told_the_class_counts(trainer):
    class Asks(nn.CrossEntropyLoss):
        def set_class_counts(self, counts):
            self.counts = list(counts)

    task = make(criterion=Asks())
    trainer(enable_checkpointing=False, max_steps=1, limit_val_batches=0).fit(task, Tiny())
    assert task.criterion.counts == [8, 8, 8, 8]


def test_it_is_told_the_number_of_samples_too_not_of_labels_nor_of_the_base_set(trainer):
    class Asks(nn.BCEWithLogitsLoss):
        def set_class_counts(self, counts):
            self.counts = list(counts)

        def set_num_samples(self, num_samples):
            self.num_samples = num_samples

    class Labelled(Tiny):
        def load(self, split):
            dataset = super().load(split)
            return dataset.select([i for i in range(len(dataset)) if i % 4])

    data, task = Labelled("multilabel"), make("multilabel", criterion=Asks())
    trainer(enable_checkpointing=False, max_steps=1, limit_val_batches=0).fit(task, data)
    assert (sum(task.criterion.counts), data.train_size, task.criterion.num_samples) == (32, 32, 24)


def test_a_test_of_data_without_training_samples_still_runs(trainer):
    class TestOnly(Tiny):
        def load(self, split):
            if split == "train":
                raise UserError("there is no training split.")
            return super().load(split)

    class Asks(nn.CrossEntropyLoss):
        def set_class_counts(self, counts):
            self.counts = list(counts)

    told, untold = make(criterion=Asks()), make(criterion=Asks())
    trainer().test(told, Tiny(), verbose=False)
    trainer().test(untold, TestOnly(), verbose=False)
    assert told.criterion.counts == [8, 8, 8, 8]
    assert not hasattr(untold.criterion, "counts")


def test_soft_targets_train_and_are_scored_by_their_most_probable_class(trainer):
    task = make()
    batch = {"image": torch.rand(4, 3, 8, 8), "target": torch.eye(4) * 0.8 + 0.05, "index": torch.arange(4)}
    task.log = lambda *args, **options: None
    assert task.training_step(batch, 0).isfinite()
    assert task._labels(batch["target"]).tolist() == [0, 1, 2, 3]


def test_the_scheduler_steps_as_configured(trainer):
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    task = make(optimizer=lambda p: torch.optim.SGD(p, 1.0), scheduler=halve, scheduler_interval="step")
    loop = trainer(enable_checkpointing=False, limit_train_batches=3, limit_val_batches=0)
    loop.fit(task, Tiny())
    assert loop.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.125)


@pytest.mark.parametrize("data", [Tiny, Several])
def test_a_plateau_watches_the_validation_loss(data, trainer):
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.1, threshold=10.0)

    task = make(optimizer=lambda p: torch.optim.SGD(p, 1e-6), scheduler=plateau)
    loop = trainer(enable_checkpointing=False, max_epochs=3)
    loop.fit(task, data())
    assert loop.optimizers[0].param_groups[0]["lr"] < 1e-6


def test_a_run_does_not_go_on_with_another_optimizer(trainer, tmp_path):
    loop = trainer()
    loop.fit(make(optimizer=lambda p: torch.optim.SGD(p, 0.1)), Tiny())
    loop.save_checkpoint(tmp_path / "sgd.ckpt")
    sentence = "the checkpoint's optimizer had no 'betas', .*, so it was not AdamW; configure the one"
    with pytest.raises(UserError, match=sentence):
        trainer(max_epochs=2).fit(make(), Tiny(), ckpt_path=tmp_path / "sgd.ckpt")


def test_a_binary_task_refuses_two_outputs(trainer):
    task = ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 2, task="binary")
    with pytest.raises(UserError, match=r"needs a network with one output, but it gives \(8, 2\) for 8 images"):
        trainer().validate(task, Tiny("binary"), verbose=False)


def test_data_without_targets_are_refused_but_for_prediction(trainer):
    class Unlabelled(Tiny):
        def load(self, split):
            dataset = super().load(split)
            return ImageDataset(dataset.images, None, dataset.ids)

    with pytest.raises(UserError, match="no target to train or evaluate by; name the label column, or run predict"):
        trainer().test(make(), Unlabelled(), verbose=False)
    assert "target" not in trainer().predict(make(), Unlabelled())[0]


def test_a_loss_of_one_class_a_sample_is_refused_for_several_labels():
    with pytest.raises(UserError, match="CrossEntropyLoss compares classes of which a sample has one"):
        make("multilabel", criterion=nn.Sequential(nn.CrossEntropyLoss()))


def test_a_compiled_criterion_without_len_is_kept():
    criterion = torch.compile(nn.CrossEntropyLoss(), backend="eager")
    assert make(criterion=criterion).criterion is criterion


def test_a_checkpoint_loads_without_the_command_line(trainer, tmp_path):
    task = make()
    loop = trainer()
    loop.fit(task, Tiny())
    loop.save_checkpoint(tmp_path / "task.ckpt")
    again = ClassificationTask.load_from_checkpoint(tmp_path / "task.ckpt", model=make().model, weights_only=True)
    torch.testing.assert_close(again.state_dict(), task.state_dict())
    assert again.num_classes == 4


def test_objectives_find_criterion_and_network_where_they_look_first(trainer):
    class Looks(ObjectiveCallback):
        def objective(self, step):
            self.shape, self.index = step.inputs[0].shape, step.index
            return step.loss()

    callback = Looks()
    trainer(callbacks=[callback], enable_checkpointing=False, max_steps=1, limit_val_batches=0).fit(make(), Tiny())
    assert callback.shape == (8, 3, 8, 8)
    assert len(set(callback.index.tolist())) == 8


def test_gradients_are_finite_under_bfloat16(trainer):
    task = make("multilabel")
    trainer(enable_checkpointing=False, precision="bf16-mixed").fit(task, Tiny("multilabel"))
    assert all(p.isfinite().all() for p in task.parameters())


def test_a_binary_task_has_two_classes():
    with pytest.raises(ValueError, match="num_classes=3"):
        ClassificationTask(nn.Linear(1, 1), num_classes=3, task="binary")


def test_a_loss_that_compares_classes_is_refused_for_several_labels_and_no_other_task():
    class Compares(nn.BCEWithLogitsLoss):
        one_class_a_sample = True

    with pytest.raises(UserError, match="Compares compares classes of which a sample has one"):
        make("multilabel", criterion=Compares())
    for kind in ("multiclass", "ordinal", "binary"):
        make(kind, criterion=Compares())
