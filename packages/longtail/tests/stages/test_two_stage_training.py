from copy import deepcopy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import nn
from toys import ToyImages, trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import (
    CosineHead,
    DisAlignHead,
    GaussianCloudedLogitLoss,
    LearnableScalingHead,
    ReplaceHead,
    Resampled,
    TwoStageTraining,
)


class Start(Callback):
    """Keeps the module's weights as training finds them, and the modes of its layers in the last batch."""

    def on_train_start(self, trainer, pl_module):
        self.state = deepcopy(pl_module.state_dict())

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.training = {name: layer.training for name, layer in pl_module.named_modules()}


def moved(module, start):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, start.state[name])}


def second_stage(module, callback, *others, epochs=2, path=None, **options):
    start = Start()
    trainer(*others, callback, start, epochs=epochs, **options).fit(module, datamodule=ToyImages(), ckpt_path=path)
    return start


@pytest.fixture
def first_stage(decaying, tmp_path):
    """The checkpoint of a module that was trained for an epoch, and its weights."""
    module, run = decaying(), trainer(epochs=1)
    run.fit(module, datamodule=ToyImages())
    run.save_checkpoint(tmp_path / "first.ckpt")
    return tmp_path / "first.ckpt", deepcopy(module.state_dict())


HEAD = {"model.5.weight", "model.5.bias"}
STATISTICS = {f"model.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_exactly_the_head_moves_although_the_optimizer_holds_all_and_decays_weights(decaying, first_stage):
    module = decaying()
    start = second_stage(module, TwoStageTraining(first_stage[0], ["5"]))
    assert moved(module, start) == HEAD
    torch.testing.assert_close(start.state, first_stage[1], rtol=0, atol=0)


def test_with_batch_norm_in_training_mode_its_statistics_move_too_and_nothing_else(decaying, first_stage):
    module = decaying()
    start = second_stage(module, TwoStageTraining(first_stage[0], ["5"], batch_norm="train"))
    assert moved(module, start) == HEAD | STATISTICS


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_modes_hold_after_validation(decaying, first_stage, batch_norm):
    start = second_stage(decaying(), TwoStageTraining(first_stage[0], ["5"], batch_norm=batch_norm))
    frozen = {f"model.{i}" for i in range(5)}
    assert {name for name, training in start.training.items() if not training} == (
        frozen if batch_norm == "eval" else set()
    )


def test_several_parts_single_parameters_and_nested_names(decaying):
    module = decaying()
    start = second_stage(module, TwoStageTraining(trainable=["0.bias", "5"]))
    assert moved(module, start) == HEAD | {"model.0.bias"}
    assert not start.training["model.1"]
    assert start.training["model.0"]  # it contains a part that trains


def test_a_part_is_drawn_anew_by_seed_whatever_the_checkpoint_holds(decaying, first_stage):
    heads = []
    for seed in (0, 0, 1):
        start = second_stage(decaying(), TwoStageTraining(first_stage[0], ["5"], ["5"], seed=seed))
        heads.append(start.state["model.5.weight"])
        assert all(torch.equal(start.state[name], first_stage[1][name]) for name in start.state if name not in HEAD)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], first_stage[1]["model.5.weight"])


def test_a_new_head_starts_from_the_first_stage_s_weights_and_trains_its_own(decaying, first_stage):
    module = decaying()
    head = ReplaceHead(LearnableScalingHead, "model.5")
    start = second_stage(module, TwoStageTraining(first_stage[0], ["5"]), head)
    assert moved(module, start) == {"model.5.scale"}
    assert torch.equal(start.state["model.5.scale"], torch.ones(3))
    assert torch.equal(start.state["model.5.weight"], first_stage[1]["model.5.weight"])
    both = ReplaceHead(partial(LearnableScalingHead, train_weights=True, scale_bias=True), "model.5")
    module = decaying()
    start = second_stage(module, TwoStageTraining(first_stage[0], ["5"], batch_norm="train"), both)
    assert moved(module, start) == HEAD | STATISTICS | {"model.5.scale"}


def test_the_second_stage_of_gcl_draws_the_cosine_head_anew(decaying, tmp_path):
    head = ReplaceHead(CosineHead, "model.5")
    first, run = decaying(), trainer(head)
    run.fit(first, datamodule=ToyImages())
    run.save_checkpoint(tmp_path / "first.ckpt")
    module = decaying()
    module.criterion = GaussianCloudedLogitLoss(gamma=1.0, class_counts=[8, 4, 2])
    start = second_stage(module, TwoStageTraining(tmp_path / "first.ckpt", ["5"], ["5"]), head)
    assert moved(module, start) == {"model.5.weight"}
    assert torch.equal(start.state["model.0.weight"], first.model[0].weight)
    assert not torch.equal(start.state["model.5.weight"], first.model[5].weight)


@pytest.mark.parametrize("head", [DisAlignHead, LearnableScalingHead])
def test_a_first_stage_without_the_layer_that_stays_frozen_is_refused(decaying, tmp_path, head):
    first, run = decaying(), trainer(ReplaceHead(CosineHead, "model.5"))
    run.fit(first, datamodule=ToyImages())
    run.save_checkpoint(tmp_path / "first.ckpt")
    with pytest.raises(UserError, match="it lacks '5.bias'; take the network of the first stage"):
        second_stage(decaying(), TwoStageTraining(tmp_path / "first.ckpt", ["5"]), ReplaceHead(head, "model.5"))


def test_a_head_over_a_frozen_layer_is_not_drawn_anew(decaying, first_stage):
    head = ReplaceHead(DisAlignHead, "model.5")
    with pytest.raises(UserError, match="DisAlignHead lies over a trained layer .*leave it out of reset"):
        second_stage(decaying(), TwoStageTraining(first_stage[0], ["5"], ["5"]), head)


def test_plain_weights_of_the_network_will_do(decaying, first_stage, tmp_path):
    plain = {name.removeprefix("model."): value for name, value in first_stage[1].items()}
    torch.save(plain, tmp_path / "plain.pt")
    start = second_stage(decaying(), TwoStageTraining(tmp_path / "plain.pt", ["5"]))
    torch.testing.assert_close(start.state, first_stage[1], rtol=0, atol=0)


def test_resumed_is_uninterrupted_and_does_without_the_first_stage_s_file(decaying, first_stage, tmp_path):
    def fit(folder, path=None):
        module = decaying()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        stage = TwoStageTraining(first_stage[0], ["5"], ["5"], batch_norm="train")
        options = {"enable_checkpointing": True, "epochs": 3, "path": path}
        second_stage(module, stage, RandomState(1), saving, **options)
        return module

    whole = fit(tmp_path / "whole")
    first_stage[0].unlink()
    for step in (8, 12):  # of six batches an epoch
        resumed = fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")
        assert torch.equal(weights(resumed), weights(whole))


def test_a_first_stage_s_checkpoint_is_not_resumed(decaying, first_stage):
    with pytest.raises(UserError, match=r"first.ckpt was not saved by a second stage.* as init_from instead"):
        second_stage(decaying(), TwoStageTraining(trainable=["5"]), path=first_stage[0])


def test_everything_trains_again_afterwards(decaying):
    class Fails(Callback):
        def on_train_batch_end(self, *arguments):
            raise RuntimeError("boom")

    module = decaying()
    module.model[2].eval()
    module.model[0].bias.requires_grad_(False)
    second_stage(module, TwoStageTraining(trainable=["5"]))
    with pytest.raises(RuntimeError, match="boom"):
        second_stage(module, TwoStageTraining(trainable=["5"]), Fails())
    assert {name for name, p in module.named_parameters() if not p.requires_grad} == {"model.0.bias"}
    assert [i for i, layer in enumerate(module.model) if not layer.training] == [2]
    assert moved(module, second_stage(module, Callback())) == HEAD | STATISTICS | {
        "model.0.weight",
        "model.1.weight",
        "model.1.bias",
    }


def test_a_foreign_module_that_is_its_own_network(foreign, foreign_loader, tmp_path):
    class Noisy(nn.CrossEntropyLoss):
        def forward(self, logits, target):
            assert self.training
            return super().forward(logits, target)

    torch.save(foreign().state_dict(), tmp_path / "first.pt")
    module, start = foreign(Noisy()), Start()
    stage = TwoStageTraining(tmp_path / "first.pt", ["fc"], network="self")
    trainer(stage, start, epochs=2).fit(module, foreign_loader)
    assert moved(module, start) == {"fc.weight", "fc.bias"}
    assert start.training == {"": True, "conv": False, "norm": False, "fc": True, "loss_fn": True}


def test_a_second_stage_helps_the_tail(overlapping, overlapping_task):
    torch.manual_seed(0)
    task, data = overlapping_task(), overlapping()

    def balanced_accuracy():
        return trainer().test(task, overlapping(), verbose=False)[0]["test/balanced_accuracy"]

    trainer(RandomState(), epochs=6, limit_val_batches=0).fit(task, data)
    before = balanced_accuracy()
    stage = TwoStageTraining(trainable=["4"], reset=["4"])
    trainer(RandomState(), stage, epochs=6, limit_val_batches=0).fit(task, Resampled(data))
    assert balanced_accuracy() > before + 0.05


def test_a_fit_that_goes_on_draws_nothing_anew(decaying, first_stage):
    def fitted(*epochs):
        module = decaying()
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.1)  # each fit makes a new one
        run = trainer(RandomState(7), TwoStageTraining(first_stage[0], ["5"], reset=["5"]), epochs=1)
        for last in epochs:
            run.fit_loop.max_epochs = last
            run.fit(module, datamodule=ToyImages())
        return weights(module)

    assert torch.equal(fitted(2, 4), fitted(4))


def test_a_search_does_not_hide_a_wrong_first_stage(decaying, first_stage, tmp_path):
    module = decaying()
    module.learning_rate = 0.01
    (tmp_path / "wrong.ckpt").write_bytes(b"")
    finder = LearningRateFinder(num_training_steps=3, attr_name="learning_rate", update_attr=False)
    stage = TwoStageTraining(tmp_path / "wrong.ckpt", ["5"])
    with pytest.raises(UserError, match=r"wrong\.ckpt"):
        second_stage(module, stage, finder, epochs=1, default_root_dir=tmp_path)


def test_without_a_first_stage_it_warns(decaying):
    with pytest.warns(UserWarning, match="has no init_from: what it freezes of Decaying keeps its weights"):
        second_stage(decaying(), TwoStageTraining(trainable=["5"]), epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": ["head"]}, r"Sequential has no part trainable='head'; it has '0', '1'"),
        ({"trainable": ["5.scale"]}, r"no part trainable='5.scale'; it has '5.weight', '5.bias'"),
        ({"reset": ["2"]}, "reset='2' has no weights to draw anew"),
        ({"reset": ["5.bias"]}, "reset='5.bias' is a single parameter"),
        ({"trainable": ["2"]}, r"trainable=\['2'\] of Sequential has no parameter to train"),
        ({"network": "net"}, "Decaying has no part network='net'; it has 'model'"),
    ],
)
def test_parts_that_will_not_do_are_named(decaying, options, message):
    with pytest.raises(UserError, match=message):
        second_stage(decaying(), TwoStageTraining(**{"trainable": ["5"], **options}))


def test_options_are_checked():
    with pytest.raises(ValueError, match="trainable must be a list of parts"):
        TwoStageTraining(trainable="head")
    with pytest.raises(ValueError, match="batch_norm must be 'eval' or 'train'"):
        TwoStageTraining(batch_norm="freeze")


def test_averaging_that_would_empty_frozen_batch_norm_is_refused(decaying, first_stage):
    module = decaying()
    with pytest.raises(UserError, match="take EMAWeightAveraging, or batch_norm='train'"):
        second_stage(module, TwoStageTraining(first_stage[0], ["5"]), StochasticWeightAveraging(0.01))
    assert all(p.requires_grad for p in module.parameters())
    second_stage(
        decaying(), TwoStageTraining(first_stage[0], ["5"], batch_norm="train"), StochasticWeightAveraging(0.01)
    )
    start = second_stage(module, TwoStageTraining(first_stage[0], ["5"]), EMAWeightAveraging(decay=0.5))
    assert moved(module, start) == HEAD
