from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from toys import trainer, weights

from medbolt.core import ClassificationTask, Indexed, MultiView, RandomState, UserError
from medbolt.core.randomness import derive_seed
from medbolt.noisy import DivideMix, NoisyLabels, SymmetricNoise
from medbolt.noisy.dividemix.split import Split, clean_probability, normalized


def adam(parameters):
    return torch.optim.Adam(parameters, 0.003)


def still(parameters):
    return torch.optim.SGD(parameters, 0.0)


def verdict(monkeypatch, *labelled):
    """Let each network find all samples labelled right, or none."""

    def update(self, *arguments):
        self.memory["clean"][:] = torch.tensor(labelled).float()
        self.memory["labelled"][:] = torch.tensor(labelled)

    monkeypatch.setattr(Split, "update", update)


def test_beats_cross_entropy_under_forty_percent_noise(blobs, network):
    def accuracy(task):
        data = blobs((64,) * 4, wrong=0.4)
        run = trainer(RandomState(0), epochs=12, limit_val_batches=0)
        run.fit(task, data)
        return run.test(task, data, verbose=False)[0]["test/balanced_accuracy"], data

    baseline, _ = accuracy(ClassificationTask(network(), 4, optimizer=adam))
    task = DivideMix(network(), 4, warmup_epochs=3, rampup_epochs=8, optimizer=adam)
    found, data = accuracy(task)
    assert found > baseline + 0.1
    right = data.dataset("train").targets == torch.arange(4).repeat_interleave(64)
    for labelled in task.split.memory["labelled"].T:
        assert labelled.float().mean() < 0.9
        assert right[labelled].float().mean() > right.float().mean() + 0.15


@pytest.mark.parametrize("judge", [0, 1])
def test_each_network_learns_from_what_the_other_one_trusts(judge, blobs, network, monkeypatch):
    verdict(monkeypatch, judge == 0, judge == 1)
    task = DivideMix(network(), 4, 0, unlabelled_weight=0, prior=None, optimizer=adam)
    networks = [task.model, task.peer]
    before = [weights(each) for each in networks]
    trainer().fit(task, blobs())
    changed = [not torch.equal(weights(each), start) for each, start in zip(networks, before, strict=True)]
    assert changed == [judge == 1, judge == 0]
    assert bool(task.selection.kept.all()) is (judge == 1)  # what network 1 learns from


def test_samples_are_divided_by_their_losses_without_augmentation_or_training_mode(blobs, network):
    data, epochs = blobs(wrong=0.4), 3
    model = network()
    model.insert(1, nn.Dropout(0.5))
    task = DivideMix(model, 4, 0, averaged_epochs=2, optimizer=still)
    trainer(epochs=epochs).fit(task, data)
    batches = list(data.train_eval_dataloader())
    images, target = (torch.cat([batch[key] for batch in batches]) for key in ("image", "target"))
    for k, each in enumerate((task.model, task.peer)):
        each.eval()
        scaled = normalized(F.cross_entropy(each(images), target, reduction="none"))
        # the weights rest, so the average of two epochs is each epoch's
        torch.testing.assert_close(task.split.memory["loss"][:, k], torch.stack([scaled, scaled], 1))
        clean = clean_probability(scaled, seed=0).float()
        torch.testing.assert_close(task.split.memory["clean"][:, k], clean, rtol=1e-3, atol=1e-3)
        assert torch.equal(task.split.memory["labelled"][:, k], task.split.memory["clean"][:, k] > 0.5)
    assert not torch.equal(*task.split.memory["clean"].T)


def test_losses_are_averaged_over_the_last_epochs(blobs, network):
    histories = []

    class Histories(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            histories.append(pl_module.split.memory["loss"])

    task = DivideMix(network(), 4, 0, averaged_epochs=2, optimizer=adam)
    trainer(Histories(), epochs=3, limit_val_batches=0).fit(task, blobs(wrong=0.4))
    assert histories[0][:, :, 0].isnan().all()
    assert torch.equal(histories[2][:, :, 0], histories[1][:, :, 1])
    assert not torch.equal(histories[2][:, :, 1], histories[1][:, :, 1])
    for k, mean in enumerate(histories[2].mean(2).T):
        clean = clean_probability(mean, derive_seed(0, 2, k)).float()
        torch.testing.assert_close(task.split.memory["clean"][:, k], clean)


def test_class_thresholds_and_label_prior_are_of_the_given_labels(blobs, network):
    task = DivideMix(network(), 4, 0, class_threshold="log_freq", prior="labels", optimizer=still)
    data = blobs((64, 16, 4, 4))
    trainer().fit(task, data)
    threshold = torch.tensor([0.8, 0.6, 0.4, 0.4])[data.train_targets]
    assert torch.equal(task.split.memory["labelled"], task.split.memory["clean"] > threshold[:, None])
    assert task._prior.tolist() == pytest.approx([64 / 88, 16 / 88, 4 / 88, 4 / 88])


def test_the_warm_up_trains_both_networks_each_on_its_view(blobs, network):
    seen = []

    class Views(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((batch["views"], batch["target"]))

    task = DivideMix(network(), 4, 1, confidence_penalty=0.5, optimizer=still)
    run = trainer(Views(), limit_train_batches=1)
    run.fit(task, blobs())
    (views, target), expected = seen[0], torch.tensor(0.0)
    assert not torch.equal(views[:, 0], views[:, 1])
    for each, images in ((task.model, views[:, 0]), (task.peer, views[:, 1])):
        p = each(images).softmax(1)
        expected = expected + F.nll_loss(p.log(), target) + 0.5 * (p * p.log()).sum(1).mean()
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(expected.item(), rel=1e-5)


def test_an_epoch_costs_the_passes_of_the_method_and_no_more(blobs, network):
    images = {True: 0, False: 0}

    def count(layer, inputs, output):
        images[torch.is_grad_enabled()] += len(inputs[0])

    task = DivideMix(network(), 4, 0)
    task.model.register_forward_hook(count)
    trainer(limit_val_batches=0).fit(task, blobs())
    assert images == {True: 2 * 128, False: 3 * 128}  # two views mixed; two guessed and one divided


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("prior", ["uniform", "labels", None])
def test_batches_of_one_all_or_none_of_them_labelled(labelled, prior, blobs, network, monkeypatch):
    verdict(monkeypatch, labelled, labelled)
    task = DivideMix(network(), 4, 0, rampup_epochs=0, prior=prior)
    trainer(limit_val_batches=0).fit(task, blobs((3, 2, 1, 1), batch_size=1))
    assert weights(task.model).isfinite().all()


def test_a_rare_class_without_labelled_samples(blobs, network):
    task = DivideMix(network(), 4, 1, rampup_epochs=1, optimizer=adam)
    data = blobs((64, 64, 2, 1), batch_size=66, drop_last=False)  # the last batch is a smaller one
    trainer(epochs=3).fit(task, data)
    assert weights(task).isfinite().all()


def test_a_network_that_fails_on_an_image_leaves_it_unlabelled(blobs, network):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, image):
            logits = self.network(image)
            divides = len(image) == 128  # one view of each image
            return logits.index_fill(0, torch.tensor([5]), torch.nan) if divides else logits

    task = DivideMix(Fails(), 4, 0, optimizer=still)
    trainer(limit_val_batches=0).fit(task, blobs(batch_size=128))
    assert task.split.memory["labelled"].sum() > 0
    assert not task.split.memory["labelled"][5].any()
    assert task.split.memory["clean"][5].tolist() == [0, 0]
    assert weights(task.model).isfinite().all()


def test_soft_labels_and_bfloat16_train_both_networks(blobs, network):
    class Soft(blobs):
        def load(self, split):
            dataset = super().load(split)
            soft = 0.8 * F.one_hot(dataset.targets, 4) + 0.05
            return type(dataset)(dataset.images, soft, dataset.ids)

    task = DivideMix(network(), 4, 0, rampup_epochs=0, optimizer=adam)
    before = [[p.detach().clone() for p in each.parameters()] for each in (task.model, task.peer)]
    trainer(precision="bf16-mixed").fit(task, Soft())
    for each, start in zip((task.model, task.peer), before, strict=True):
        assert all(p.isfinite().all() for p in each.parameters())
        assert not any(torch.equal(p, old) for p, old in zip(each.parameters(), start, strict=True))


def noisy_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 4)
    )


@pytest.mark.parametrize(
    "saves", [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 3}], ids=["epoch", "validation", "inside"]
)
def test_resumed_is_uninterrupted(saves, tmp_path, blobs):
    def fit(epochs, *callbacks, path=None):
        task = DivideMix(noisy_network(), 4, 1, averaged_epochs=2, rampup_epochs=2, optimizer=adam)
        torch.manual_seed(99 if path else 0)
        run = trainer(RandomState(7), *callbacks, epochs=epochs, enable_checkpointing=bool(callbacks))
        run.fit(task, blobs(wrong=0.4), ckpt_path=path)
        return task

    fit(2, ModelCheckpoint(tmp_path, save_last=True, **saves))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == (6 if "every_n_train_steps" in saves else 8)
    resumed, whole = fit(4, path=tmp_path / "last.ckpt"), fit(4)
    assert torch.equal(weights(resumed), weights(whole))
    torch.testing.assert_close(resumed.split.memory.fields, whole.split.memory.fields, rtol=0, atol=0)


def test_a_fit_that_goes_on_is_uninterrupted(blobs):
    def fitted(*epochs):
        plain = partial(torch.optim.SGD, lr=0.05)  # which remembers nothing, for each fit makes a new one
        module = DivideMix(noisy_network(), 4, 1, averaged_epochs=3, rampup_epochs=2, optimizer=plain)
        run = trainer(RandomState(7), epochs=1)
        for last in epochs:
            run.fit_loop.max_epochs = last
            run.fit(module, blobs(wrong=0.4))
        return weights(module)

    assert torch.equal(fitted(3, 5), fitted(5))


def test_other_data_are_refused_on_resume_only(tmp_path, blobs, network):
    class Others(blobs):
        def load_state_dict(self, state_dict):
            self._is_restored = True  # only DivideMix objects

    path = tmp_path / "last.ckpt"
    run = trainer()
    run.fit(DivideMix(network(), 4, optimizer=adam), Others())
    run.save_checkpoint(path)
    with pytest.raises(UserError, match="belongs to other training data"):
        trainer(epochs=2).fit(DivideMix(network(), 4, optimizer=adam), Others((16,) * 4), ckpt_path=path)
    trainer().test(DivideMix(network(), 4), Others((16,) * 4), ckpt_path=path, verbose=False)


def test_it_does_not_go_on_with_another_optimizer(tmp_path, blobs, network):
    run = trainer()
    run.fit(DivideMix(network(), 4, optimizer=adam), blobs())
    run.save_checkpoint(tmp_path / "adam.ckpt")
    with pytest.raises(UserError, match="so it was not SGD; configure the one that it was trained with"):
        trainer(epochs=2).fit(DivideMix(network(), 4, optimizer=still), blobs(), ckpt_path=tmp_path / "adam.ckpt")


def test_a_checkpoint_loads_without_pickled_code_and_predicts_the_mean_of_both(tmp_path, blobs, network):
    run, task = trainer(), DivideMix(network(), 4, peer=network(width=32), optimizer=adam)
    run.fit(task, blobs())
    run.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    loaded = DivideMix.load_from_checkpoint(
        tmp_path / "last.ckpt", model=network(), peer=network(width=32), weights_only=True
    ).eval()
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(loaded(images), (loaded.model(images) + loaded.peer(images)) / 2)
    assert torch.equal(loaded(images), task.eval()(images))


def test_any_data_module_gets_two_views_for_the_fit_only(blobs, network):
    data = NoisyLabels(blobs(), SymmetricNoise(0.4))
    own = data.train_transform
    task = DivideMix(network(), 4)
    trainer().fit(task, data)
    assert data.train_transform is own
    data.train_transform = MultiView([own, own, own])
    trainer().fit(task, data)
    assert len(data.train_transform.transforms) == 3


def test_a_data_module_has_its_own_transform_back_after_a_failure(blobs, network):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            raise RuntimeError("the disk is full")

    data = blobs()
    own = data.train_transform
    with pytest.raises(RuntimeError, match="disk is full"):
        trainer(Fails()).fit(DivideMix(network(), 4), data)
    assert data.train_transform is own


class Foreign(LightningDataModule):
    def __init__(self, samples):
        super().__init__()
        self.samples = samples

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=4)


@pytest.mark.parametrize("warmup_epochs", [0, 1])
def test_wrapped_data_without_views_or_index_are_refused(warmup_epochs, network):
    images, targets = torch.randn(8, 3, 4, 4), [i % 4 for i in range(8)]
    pairs = list(zip(images, targets, strict=True))
    viewed = [{"image": image, "target": target, "views": torch.stack([image] * 2)} for image, target in pairs]
    for samples, absent in ((pairs, "'image', 'views', 'target', 'index'"), (viewed, "'index'")):
        with pytest.raises(UserError, match=f"have no {absent}; use one of medbolt's data modules"):
            trainer().fit(DivideMix(network(), 4, warmup_epochs), Indexed(Foreign(samples)))
    with pytest.raises(UserError, match="prior='labels' .* have no class_counts"):
        trainer().fit(DivideMix(network(), 4, warmup_epochs, prior="labels"), Indexed(Foreign(pairs)))


def test_data_that_do_not_serve_are_answered_with_the_remedy(blobs, network):
    data = blobs()
    with pytest.raises(UserError, match="datamodule="):
        trainer().fit(DivideMix(network(), 4), DataLoader(data.dataset("train")))
    data.on_before_batch_transfer = lambda batch, dataloader_idx: {k: v for k, v in batch.items() if k != "views"}
    with pytest.raises(UserError, match="MultiView"):
        trainer().fit(DivideMix(network(), 4), data)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"alpha": 0}, {"temperature": 0}, {"warmup_epochs": -1}, {"prior": "head"}, {"task": "binary"}),
        *({"supervised_loss": "mae"}, {"threshold": 1.0}, {"class_threshold": "gmm"}, {"averaged_epochs": 0}),
    ],
    ids=str,
)
def test_arguments_out_of_range(wrong, network):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DivideMix(network(), 2, **wrong)
