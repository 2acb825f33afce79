from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from toys import trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import AddExperts, CosineHead, ExpertsClassifier


def test_the_network_gets_experts_and_all_of_them_are_trained(kept, add, overlapping):
    module = kept(0.1)
    before = ExpertsClassifier(kept().model, 3, ["body"]).state_dict()
    trainer(add()).fit(module, datamodule=overlapping())
    after = module.model.state_dict()
    assert before.keys() == after.keys()
    learned = [name for name in before if "weight" in name]  # biases before batch norm have no gradient
    assert len(learned) == 2 + 3 * 3
    assert all(not torch.equal(before[name], after[name]) for name in learned)


def test_the_options_reach_the_experts(kept, overlapping):
    module = kept()
    callback = AddExperts(2, [], "head", partial(CosineHead, scale=7.0), "head", seed=3)
    trainer(callback).fit(module, datamodule=overlapping())
    expected = ExpertsClassifier(kept().model, 2, [], "head", partial(CosineHead, scale=7.0), "head", seed=3)
    assert module.model.network.head.copies[1].scale == 7.0
    assert torch.equal(
        module.model.network.head.copies[1].weight, expected.network.head.copies[1].weight
    )  # nothing was learned


def test_experts_stay_for_the_test_and_come_back_with_a_checkpoint(task, add, overlapping, tmp_path):
    module, data = task(), overlapping()
    saving = ModelCheckpoint(tmp_path, "last")
    run = trainer(RandomState(), add(), saving, enable_checkpointing=True)
    run.fit(module, datamodule=data)
    trained = weights(module.model)
    (tested,) = run.test(module, datamodule=data, verbose=False)
    assert torch.equal(weights(module.model), trained)
    other = task()
    (again,) = trainer(add(seed=5)).test(other, datamodule=data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert again == tested


def test_a_training_mode_is_left_alone(kept, add, overlapping):
    module = kept()
    module.model.body.eval()
    trainer(add(), limit_val_batches=0).fit(module, datamodule=overlapping())
    assert not any(layer.training for layer in module.model.network.body.modules())
    assert module.model.network.stem.training


def test_mistakes_are_named(kept, add, overlapping):
    module = kept()
    trainer(add(2)).fit(module, datamodule=overlapping())
    with pytest.raises(UserError, match="'model' of Kept has 2 experts already, AddExperts is to add 3"):
        trainer(add(3)).fit(module, datamodule=overlapping())
    with pytest.raises(UserError, match="cannot replace network='self', the module itself; name the attribute"):
        trainer(add(network="self")).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="Kept has no network 'net' whose output AddExperts could see"):
        trainer(add(network="net")).fit(kept(), datamodule=overlapping())


@pytest.mark.parametrize("averaging", [EMAWeightAveraging(), StochasticWeightAveraging(0.01)])
def test_averaging_that_stands_before_it_is_refused(averaging, kept, add, overlapping):
    with pytest.raises(UserError, match="Averaging stands before AddExperts and copies the module .* put AddExperts"):
        trainer(averaging, add()).fit(kept(), datamodule=overlapping())
    trainer(add(), averaging).fit(kept(), datamodule=overlapping())
