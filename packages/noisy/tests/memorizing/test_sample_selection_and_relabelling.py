import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import EvaluationTransform, MultiView, RandomState, TrainingTransform, UserError
from medbolt.noisy import NoisyLabels, SampleSelectionAndRelabelling, SelectionQuality, SymmetricNoise
from medbolt.noisy.memorizing import sample_selection_and_relabelling as file
from medbolt.noisy.memorizing.neighbours import class_weights, relabel_and_select


class Passed:
    """Batches of the training set in order, for data that know nothing of medbolt."""

    def __init__(self, data):
        self.data = data

    def __call__(self):
        data = self.data
        for index in torch.arange(data.train_size).split(4):
            yield {name: column[index] for name, column in data.columns.items()} | {"index": index}


@pytest.fixture
def passable(random_data):
    def make(*arguments, **columns):
        data = random_data(*arguments, **columns)
        data.train_eval_dataloader = Passed(data)
        return data

    return make


class Decides(SampleSelectionAndRelabelling):
    """Decides as told from the first epoch on."""

    def __init__(self, label, weight, **options):
        super().__init__(**options)
        self.told = torch.tensor(label), torch.tensor(weight)

    def begin_epoch(self, trainer, pl_module):
        self.memory["label"].copy_(self.told[0])
        self.memory["weight"].copy_(self.told[1])


class Draws(Callback):
    """Keeps how the images were mixed."""

    def __init__(self, method, monkeypatch):
        self.mixes = []
        draw = method.draw

        def drawn(*arguments):
            self.mixes.append(draw(*arguments))
            return self.mixes[-1]

        monkeypatch.setattr(method, "draw", drawn)


LABEL, WEIGHT = [-1, 2, -1, -1, -1, 0, -1, -1, -1, -1], [1.5, 1.5, 1.5, 0, 0, 2.0, 0, 1.0, 0, 2.5]


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_formula_sample_by_sample(linear, module, random_data, fit, monkeypatch, soft):
    y = torch.arange(10) % 3
    target = (0.9 * torch.eye(3)[y] + 0.1 / 3) if soft else y
    trained, data = module(linear(), lr=0.0), random_data(target=target)
    method = Decides(LABEL, WEIGHT)
    draws = Draws(method, monkeypatch)
    fit(trained, data, method)
    for (_, index), loss, mix in zip(trained.seen, trained.losses, draws.mixes, strict=True):
        expected = torch.zeros(())
        for a in range(len(index)):
            b, share = int(mix.partner[a]), float(mix.image_weight[a])
            assert share >= 0.5
            i, j = int(index[a]), int(index[b])
            assert (WEIGHT[i] > 0) == (WEIGHT[j] > 0)
            x = share * data.columns["image"][i] + (1 - share) * data.columns["image"][j]
            logits = linear()(x[None])
            for part, k in ((share, i), (1 - share, j)):
                to_learn = torch.tensor(LABEL[k]) if LABEL[k] >= 0 else target[k]
                expected = expected + part * WEIGHT[k] * cross_entropy(logits, to_learn[None]).detach() / len(index)
        torch.testing.assert_close(loss, expected)
    assert any((mix.partner != torch.arange(len(mix.partner))).any() for mix in draws.mixes)


def test_decides_by_a_pass_without_augmentation_over_given_labels(linear, module, passable, fit):
    data = passable()
    method = SampleSelectionAndRelabelling(0.4, neighbours=3)
    trained = module(linear(), lr=0.0)
    fit(trained, data, method, epochs=2)
    x, given = data.columns["image"], data.columns["target"]
    features = linear()[1](linear()[0](x))
    p = linear()(x).softmax(1)
    label, kept = relabel_and_select(p, normalize(features), given, 0.4, 1.0, 3)
    assert 0 < kept.sum() < 10
    assert (label >= 0).any()
    assert torch.equal(method.memory["label"], label)
    torch.testing.assert_close(method.memory["weight"], class_weights(label, kept, given, 3, True))
    assert method.selection.target is not None


def test_labels_that_nobody_tells_are_learned_by_looking(linear, module, passable, fit):
    trained, method = module(linear(), lr=0.0), SampleSelectionAndRelabelling(neighbours=3)
    fit(trained, passable(), method, epochs=1)
    assert method.memory["weight"].tolist() == [1.0] * 10  # nothing was known before the first epoch
    assert torch.equal(method.memory["given"], torch.arange(10) % 3)


def test_selects_from_the_first_epoch_on_where_the_data_tell_their_labels():
    method = SampleSelectionAndRelabelling(neighbours=3)
    trainer(method, limit_val_batches=0).fit(ToyClassifier(lr=0.0), datamodule=ToyImages())
    assert 0 < (method.memory["weight"] > 0).sum() < 24
    later = SampleSelectionAndRelabelling(neighbours=3, start_epoch=1)
    trainer(later, limit_val_batches=0).fit(ToyClassifier(lr=0.0), datamodule=ToyImages())
    assert later.memory["weight"].tolist() == [1.0] * 24


def test_is_mixup_where_all_are_selected_and_none_replaced(linear, module, random_data, fit, monkeypatch):
    from medbolt.noisy import MixUp

    for module_name in (file.__name__, "medbolt.core.objective.mixup"):
        monkeypatch.setattr(f"{module_name}.drawn_weights", lambda *args: torch.tensor([0.75]))
    one, two = module(linear()), module(linear())
    fit(one, random_data(), Decides([-1] * 10, [1.0] * 10), epochs=2)
    fit(two, random_data(), MixUp(), epochs=2)
    torch.testing.assert_close(one.losses, two.losses)
    torch.testing.assert_close(one.model[0].weight, two.model[0].weight)


def test_consistency_is_of_two_unmixed_views_and_trains_its_networks(linear, module, random_data, fit):
    found, networks = [], []

    class Keeps(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            networks.append(pl_module.feature_consistency)

    for consistency in (0.0, 0.7):
        method = Decides(LABEL, WEIGHT, consistency=consistency, strong=nn.Hardshrink(0.5))
        trained, data = module(linear(), lr=0.0), random_data(4)
        told = method.told
        method.told = tuple(values[:4] for values in told)
        fit(trained, data, method, *([Keeps()] if consistency else []))
        found.append(trained.losses[0])
        names = list(trained.state_dict())
    assert not [name for name in names if "consistency" in name]
    x = data.columns["image"][trained.seen[0][1]]
    features = [linear()[1](linear()[0](view)) for view in (x, nn.Hardshrink(0.5)(x))]
    torch.testing.assert_close(found[1] - found[0], 0.7 * networks[0](*features).mean().detach(), rtol=1e-3, atol=1e-5)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy, noisy_blobs, monkeypatch):
    data, clean = noisy_blobs()
    monkeypatch.setattr(type(data), "train_eval_dataloader", lambda self: Passed(self)(), raising=False)
    method = SampleSelectionAndRelabelling(relabel_threshold=0.8, neighbours=50, start_epoch=2)
    assert accuracy(method, epochs=30) > cross_entropy_accuracy + 0.15
    right = data.columns["target"] == clean
    kept, label = method.memory["weight"] > 0, method.memory["label"]
    learned = torch.where(label >= 0, label, data.columns["target"])
    assert (learned == clean)[kept].float().mean() > right.float().mean() + 0.25


def test_tells_diagnostics_what_it_selects_and_corrects():
    data = NoisyLabels(ToyImages({"train": 48}), SymmetricNoise(0.4))
    run = trainer(SampleSelectionAndRelabelling(0.5, neighbours=5), SelectionQuality(), epochs=2)
    run.fit(ToyClassifier(), datamodule=data)
    assert 0 < run.callback_metrics["lnl/select/recall"] < 1
    assert 0 <= run.callback_metrics["lnl/correct/precision"] <= 1


@pytest.mark.parametrize("saves", [{"save_on_train_epoch_end": False}, {}, {"every_n_train_steps": 9}], ids=str)
def test_resumed_is_uninterrupted(tmp_path, saves):
    def fit(epochs, *callbacks, path=None):
        views = MultiView([TrainingTransform(8), EvaluationTransform(8)])
        module, method = ToyClassifier(), SampleSelectionAndRelabelling(0.4, neighbours=5, consistency=1.0)
        torch.manual_seed(99 if path else 0)
        run = trainer(RandomState(7), method, *callbacks, epochs=epochs, enable_checkpointing=bool(callbacks))
        run.fit(module, datamodule=ToyImages(train_transform=views), ckpt_path=path, weights_only=True)
        return weights(module), method.memory

    fit(2, ModelCheckpoint(tmp_path, save_last=True, **saves))
    (resumed, memory), (whole, expected) = fit(4, path=tmp_path / "last.ckpt"), fit(4)
    assert torch.equal(resumed, whole)
    torch.testing.assert_close(memory.fields, expected.fields, rtol=0, atol=0)


def test_half_precision_batches_of_one_one_logit_and_nothing_selected(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["image"]).flatten(), batch["target"].float())

    for trained, options, data in (
        (module(linear()), {"precision": "bf16-mixed"}, random_data()),
        (module(linear()), {}, random_data(10, 1)),
        (module(linear()), {}, random_data(image=torch.full((10, 5), 1e4))),
        (Binary(linear(1), nn.BCEWithLogitsLoss()), {}, random_data(target=torch.arange(10) % 2, num_classes=2)),
    ):
        for weight in (WEIGHT, [0.0] * 10):
            before = trained.model[2].bias.detach().clone()
            label = [min(c, 1) for c in LABEL] if isinstance(trained, Binary) else LABEL
            fit(trained, data, Decides(label, weight, consistency=0.0), epochs=1, **options)
            assert all(p.isfinite().all() for p in trained.parameters())
            assert torch.equal(trained.model[2].bias, before) == (not any(weight))


def test_says_what_it_needs(linear, module, random_data, fit):
    with pytest.raises(UserError, match="no linear layer head='fc'"):
        fit(module(linear()), random_data(), SampleSelectionAndRelabelling(head="fc"))
    with pytest.raises(UserError, match="train_eval_dataloader"):
        fit(module(linear()), random_data(), SampleSelectionAndRelabelling())
    with pytest.raises(UserError, match="needs a second view"):
        fit(module(linear()), random_data(), Decides([-1] * 10, [1.0] * 10, consistency=1.0))
    for wrong in ({"alpha": 0}, {"neighbours": 0}, {"select_threshold": 2}, {"consistency": -1}, {"start_epoch": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SampleSelectionAndRelabelling(**wrong)
