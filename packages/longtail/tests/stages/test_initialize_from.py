import copy
import pickle
from argparse import Namespace

import pytest
import timm
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ClassificationTask, EvaluationTransform, RandomState, TimmClassifier, UserError
from medbolt.longtail import InitializeFrom, Resampled, TwoStageTraining


class Start(Callback):
    """Keeps the weights that the first batch finds."""

    def on_train_start(self, trainer, pl_module):
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


class MoCo(LightningModule):
    """MoCo v2 as lightly's examples have it, on a timm network."""

    def __init__(self):
        super().__init__()
        modules, loss = pytest.importorskip("lightly.models.modules"), pytest.importorskip("lightly.loss")
        self.backbone = timm.create_model("resnet10t", num_classes=0)
        self.projection_head = modules.MoCoProjectionHead(512, 32, 16)
        self.backbone_momentum = copy.deepcopy(self.backbone).requires_grad_(False)
        self.projection_head_momentum = copy.deepcopy(self.projection_head).requires_grad_(False)
        self.criterion = loss.NTXentLoss(memory_bank_size=(64, 16))

    def training_step(self, batch, batch_idx):
        utils = pytest.importorskip("lightly.models.utils")
        utils.update_momentum(self.backbone, self.backbone_momentum, m=0.99)
        utils.update_momentum(self.projection_head, self.projection_head_momentum, m=0.99)
        return self.loss(batch["image"], batch["image"].flip(3))

    def project(self, image):
        return self.projection_head(self.backbone(image).flatten(start_dim=1))

    def project_by_momentum(self, image):
        return self.projection_head_momentum(self.backbone_momentum(image).flatten(start_dim=1)).detach()

    def loss(self, one, other):
        return self.criterion(self.project(one), self.project_by_momentum(other))

    def configure_optimizers(self):
        return torch.optim.SGD([parameter for parameter in self.parameters() if parameter.requires_grad], 0.01)


class BYOL(MoCo):
    """BYOL as lightly's examples have it: a prediction of the other view, both ways, and no negatives."""

    def __init__(self):
        super().__init__()
        modules, loss = pytest.importorskip("lightly.models.modules"), pytest.importorskip("lightly.loss")
        self.projection_head = modules.BYOLProjectionHead(512, 32, 16)
        self.projection_head_momentum = copy.deepcopy(self.projection_head).requires_grad_(False)
        self.prediction_head = modules.BYOLPredictionHead(16, 32, 16)
        self.criterion = loss.NegativeCosineSimilarity()

    def loss(self, one, other):
        predicted = [self.prediction_head(self.project(view)) for view in (one, other)]
        targets = [self.project_by_momentum(view) for view in (other, one)]
        return 0.5 * sum(map(self.criterion, predicted, targets))


def task():
    torch.manual_seed(1)
    return ClassificationTask(TimmClassifier("resnet10t", num_classes=3), 3)


@pytest.fixture
def backbone(tmp_path):
    """A checkpoint with a backbone and more, and the backbone's weights."""
    torch.manual_seed(2)
    network = timm.create_model("resnet10t", num_classes=0)
    saved = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": saved | {"head.weight": torch.zeros(2)}, "epoch": 3}, tmp_path / "ssl.ckpt")
    return tmp_path / "ssl.ckpt", network.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("method", [MoCo, BYOL])
def test_a_network_pretrained_by_lightly_begins_where_that_ended(method, tmp_path):
    pretraining, run = method(), trainer(limit_train_batches=2)
    first = pretraining.backbone.conv1[0].weight.detach().clone()
    run.fit(pretraining, ToyImages().train_dataloader())
    assert not torch.equal(pretraining.backbone.conv1[0].weight, first)
    run.save_checkpoint(tmp_path / "pretrained.ckpt")
    start = Start()
    callbacks = [InitializeFrom(tmp_path / "pretrained.ckpt", prefix="backbone."), TwoStageTraining(trainable=["head"])]
    module = task()
    trainer(*callbacks, start, limit_train_batches=2).fit(module, Resampled(ToyImages()))
    for name, value in pretraining.backbone.state_dict().items():
        assert torch.equal(start.state[f"model.features.{name}"], value)
        assert torch.equal(module.model.features.state_dict()[name], value)  # a probe: it stays
    assert not torch.equal(start.state["model.head.weight"], module.model.head.weight)


def test_the_features_are_those_of_the_file_and_the_head_its_own(backbone):
    start, module = Start(), task()
    head = module.model.head.weight.detach().clone()
    trainer(InitializeFrom(backbone[0], "backbone."), start, limit_train_batches=1).fit(module, ToyImages())
    assert all(torch.equal(start.state[f"model.features.{name}"], value) for name, value in backbone[1].items())
    assert torch.equal(start.state["model.head.weight"], head)
    assert not torch.equal(module.model.features.conv1[0].weight, backbone[1]["conv1.0.weight"])  # it trains on


@pytest.mark.parametrize(
    "finder",
    [
        lambda: LearningRateFinder(num_training_steps=3, attr_name="lr", update_attr=False),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
    ],
    ids=["learning rate", "batch size"],
)
def test_a_search_before_training_finds_the_weights_loaded_and_leaves_them(backbone, tmp_path, finder):
    """Lightning puts searches first, and restores the weights after them as if a run was resumed."""

    class Searched(ClassificationTask):
        lr = 0.01
        found = None

        def training_step(self, batch, batch_idx):
            if self.found is None:
                self.found = copy.deepcopy(self.model.features.state_dict())
            return super().training_step(batch, batch_idx)

    torch.manual_seed(1)
    start, module = Start(), Searched(TimmClassifier("resnet10t", num_classes=3), 3)
    callbacks = [InitializeFrom(backbone[0], "backbone."), start, finder()]
    trainer(*callbacks, limit_train_batches=4, limit_val_batches=0, default_root_dir=tmp_path).fit(module, ToyImages())
    for name, value in backbone[1].items():
        assert torch.equal(start.state[f"model.features.{name}"], value)
        if value.is_floating_point() and "running" not in name:
            assert torch.equal(module.found[name], value)
    wrong = InitializeFrom(backbone[0], "encoder.")
    with pytest.raises(UserError, match="no weight in .* has a name that begins with 'encoder.'"):
        trainer(wrong, finder(), limit_train_batches=4, default_root_dir=tmp_path).fit(module, ToyImages())


def test_it_can_be_sent_to_processes_that_are_spawned():
    assert pickle.loads(pickle.dumps(InitializeFrom("ssl.ckpt"))).part == "model.features"
    assert pickle.loads(pickle.dumps(TwoStageTraining("first.ckpt", ["head"]))).trainable == ["head"]


def test_a_fit_that_goes_on_keeps_what_it_learned(backbone):
    start, module = Start(), task()
    run = trainer(InitializeFrom(backbone[0], "backbone."), start, limit_train_batches=1, limit_val_batches=0)
    run.fit(module, ToyImages())
    learned = copy.deepcopy(module.state_dict())
    run.fit_loop.max_epochs = 2
    run.fit(module, ToyImages())
    assert all(torch.equal(start.state[name], value) for name, value in learned.items())


@pytest.fixture
def autoencoder(tmp_path):
    """A masked autoencoder's file as MAE's code writes it, and the weights of its encoder."""
    torch.manual_seed(2)
    encoder = timm.create_model("test_vit", num_classes=0).state_dict()
    decoder = {"decoder_embed.weight": torch.ones(2), "decoder_pos_embed": torch.ones(1), "mask_token": torch.ones(1)}
    saved = {"model": encoder | decoder, "optimizer": {"state": {}}, "epoch": 3, "args": Namespace(lr=0.1)}
    torch.save(saved, tmp_path / "mae.pth")
    return tmp_path / "mae.pth", encoder


def vision_transformer():
    return ClassificationTask(TimmClassifier("test_vit", num_classes=3), 3)


def large_images():
    """Images of the size that timm's small transformer takes."""
    data = ToyImages()
    data.train_transform = data.eval_transform = EvaluationTransform(160)
    return data


def test_the_encoder_of_a_masked_autoencoder_begins_a_vision_transformer(autoencoder):
    path, encoder = autoencoder
    start, module = Start(), vision_transformer()
    skip = ["decoder_embed", "decoder_pos_embed", "mask_token"]
    trainer(InitializeFrom(path, skip=skip), start, limit_train_batches=1).fit(module, large_images())
    assert all(torch.equal(start.state[f"model.features.{name}"], value) for name, value in encoder.items())


def test_what_is_skipped_stays_as_it_is(autoencoder):
    path, encoder = autoencoder
    start, module = Start(), vision_transformer()
    norm = module.model.features.norm.weight.detach().fill_(2.0).clone()
    skip = ["decoder_embed", "decoder_pos_embed", "mask_token", "norm"]
    trainer(InitializeFrom(path, skip=skip), start, limit_train_batches=1).fit(module, large_images())
    assert torch.equal(start.state["model.features.norm.weight"], norm)
    assert torch.equal(start.state["model.features.cls_token"], encoder["cls_token"])


def test_a_decoder_that_is_not_skipped_is_named(autoencoder):
    with pytest.raises(
        UserError, match="has 'decoder_embed.weight', 'decoder_pos_embed', 'mask_token' in excess; .* skip"
    ):
        trainer(InitializeFrom(autoencoder[0])).fit(vision_transformer(), large_images())


def test_plain_weights_of_any_part_will_do(tmp_path):
    layer = nn.Linear(144, 3)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    start = Start()
    trainer(InitializeFrom(tmp_path / "layer.pt", part="model.5"), start).fit(ToyClassifier(), datamodule=ToyImages())
    assert torch.equal(start.state["model.5.weight"], layer.weight)


def test_resumed_is_uninterrupted_and_needs_no_file(tmp_path):
    torch.save(nn.Linear(144, 3).state_dict(), tmp_path / "layer.pt")

    def fit(folder, path=None):
        module = ToyClassifier()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        callbacks = [InitializeFrom(tmp_path / "layer.pt", part="model.5"), RandomState(1), saving]
        run = trainer(*callbacks, epochs=2, enable_checkpointing=True)
        run.fit(module, datamodule=ToyImages(), ckpt_path=path)
        return weights(module)

    whole = fit(tmp_path / "whole")
    (tmp_path / "layer.pt").unlink()
    assert torch.equal(fit(tmp_path / "resumed", tmp_path / "whole/step=8.ckpt"), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "encoder."}, r"begins with 'encoder.'; give prefix one of 'backbone.', 'head.'"),
        ({"prefix": ""}, r"is not of this ResNet: it lacks .* and has .* in excess; pre-train the same network"),
        ({"prefix": "backbone.", "part": "model.head"}, r"is not of this Linear: it lacks 'bias', 'weight'"),
        ({"prefix": "backbone.", "part": "model.net"}, r"no part part='model.net'; it has 'model.features'"),
        ({"prefix": "backbone.", "part": "model.head.weight"}, "part='model.head.weight' is a single parameter"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, options, message):
    with pytest.raises(UserError, match=message):
        trainer(InitializeFrom(backbone[0], **options)).fit(task(), ToyImages())


def test_another_shape_is_refused_and_nothing_is_half_loaded(backbone):
    saved = torch.load(backbone[0])
    saved["state_dict"]["backbone.layer4.0.conv1.weight"] = torch.zeros(1)
    torch.save(saved, backbone[0])
    module = task()
    before = weights(module)
    with pytest.raises(UserError, match=r"has 'layer4.0.conv1.weight' of shape \(1,\), this ResNet of"):
        trainer(InitializeFrom(backbone[0], "backbone.")).fit(module, ToyImages())
    assert torch.equal(weights(module), before)


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(UserError, match="holds pickled Python objects"):
        trainer(InitializeFrom(tmp_path / "whole.pt", part="model.5")).fit(ToyClassifier(), datamodule=ToyImages())
