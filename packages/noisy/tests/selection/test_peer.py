import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.utils import spectral_norm
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ObjectiveCallback, TimmClassifier, UserError
from medbolt.core.randomness import derive_seed
from medbolt.noisy import CoTeaching, JoCoR
from medbolt.noisy.selection.peer import PeerNetwork


class Holder(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def peer_of(model: nn.Module, reinitialize: str = "", seed: int = 0) -> nn.Module:
    return PeerNetwork(None, reinitialize, seed).make(Holder(model), "model")


def test_all_weights_and_statistics_are_drawn_anew():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model(torch.randn(8, 3, 3, 3))  # moves the running mean
    before = weights(model)
    peer = peer_of(model)
    assert torch.equal(weights(model), before)
    assert not (peer[0].weight == model[0].weight).any()
    assert not (peer[3].weight == model[3].weight).any()
    assert peer[1].running_mean.tolist() == [0] * 4
    assert not {p.data_ptr() for p in peer.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    model, state = nn.Linear(3, 2), torch.get_rng_state()
    assert torch.equal(weights(peer_of(model)), weights(peer_of(model)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(weights(peer_of(model)), weights(peer_of(model, seed=1)))
    torch.manual_seed(derive_seed(0, 1))
    assert torch.equal(weights(peer_of(model)), weights(nn.Linear(3, 2)))


def test_only_the_named_part_is_drawn_anew():
    model = TimmClassifier("resnet10t", 3)
    peer = peer_of(model, "head")
    assert torch.equal(weights(peer.features), weights(model.features))
    assert not (peer.head.weight == model.head.weight).any()


def test_what_is_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.BatchNorm1d(2).eval(), nn.Linear(2, 2))
    peer = peer_of(model, "2")
    assert [p.requires_grad for p in peer[0].parameters()] == [False, False]
    assert not peer[1].training


def test_frozen_layers_keep_their_weights():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[:2].requires_grad_(False)
    model[1].running_mean.fill_(3)
    peer = peer_of(model)
    assert torch.equal(weights(peer[:2]), weights(model[:2]))
    assert not (peer[2].weight == model[2].weight).any()
    with pytest.raises(UserError, match="has no trainable weights to draw anew"):
        peer_of(model.requires_grad_(False))


def test_hooks_of_others_stay_with_the_first_network_and_its_own_come_along():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(2, 2), 0
            self.layer.register_forward_hook(self.count)

        def count(self, layer, inputs, output):
            self.calls += 1

        def forward(self, x):
            return self.layer(x)

    model, seen = nn.Sequential(Counts(), spectral_norm(nn.Linear(2, 2))), []
    model.register_forward_hook(lambda *call: seen.append(call))
    model[0].layer.register_forward_pre_hook(lambda *call: seen.append(call))
    peer = peer_of(model, "0")
    peer(torch.ones(1, 2))
    assert not seen
    assert (peer[0].calls, model[0].calls) == (1, 0)
    model(torch.ones(1, 2))
    assert len(seen) == 2
    before = peer[1].weight.clone()
    peer[1].weight_orig.data *= torch.tensor([[1.0], [5.0]])
    peer(torch.ones(1, 2))  # spectral norm is at work in the copy
    assert not torch.equal(peer[1].weight, before)


def test_the_network_s_inputs_are_those_of_the_first_network_s_call():
    class Watches(ObjectiveCallback):
        def objective(self, step):
            self.inputs = step.inputs[0]
            assert torch.equal(step.inputs[0], step.batch["image"])
            return step.loss()

    watching, method = Watches(), CoTeaching(0.2)
    trainer(watching, method).fit(ToyClassifier(), datamodule=ToyImages(batch_size=8))
    assert method.peer is not None
    assert not [hook for layer in method.peer.modules() for hook in layer._forward_pre_hooks.values()]


def test_layers_that_cannot_be_drawn_anew_are_named():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(2))

    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Token()))
    with pytest.raises(UserError, match=r"layer '1\.0' \(Token\) has weights of its own .* pass a network as peer"):
        peer_of(model)
    with pytest.raises(UserError, match=r"layer '1\.0' \(Token\)"):
        peer_of(model, "1")
    peer_of(model, "0")
    with pytest.raises(UserError, match=r"the network itself \(VisionTransformer\)"):
        peer_of(TimmClassifier("vit_tiny_patch16_224", 3).features)


@pytest.mark.parametrize(
    ("path", "part", "says"),
    [
        ("net", "", "no network 'net' in ToyClassifier.*network='net'"),
        ("self", "", "network='self' cannot be copied"),
        ("model", "head", "no part reinitialize='head'; it has '0', '1'"),
        ("model", "2", "reinitialize='2' has no trainable weights"),
    ],
)
def test_says_what_is_missing(path, part, says):
    with pytest.raises(UserError, match=says):
        PeerNetwork(None, part, 0).make(ToyClassifier(), path)


def test_a_network_that_cannot_be_copied_is_refused_in_one_sentence():
    model = nn.Linear(2, 2)
    model.cache = model(torch.ones(1, 2))  # not a leaf
    with pytest.raises(UserError, match="Linear cannot be copied"):
        peer_of(model)


def test_a_given_peer_is_used_as_it_is():
    module, given = ToyClassifier(), nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    before = weights(given)
    method = CoTeaching(0.2, peer=given)
    trainer(method).fit(module, datamodule=ToyImages(batch_size=8))
    assert method.peer is given
    assert not torch.equal(weights(given), before)
    with pytest.raises(UserError, match="peer is the network 'model' itself"):
        PeerNetwork(module.model, "", 0).make(module, "model")


def test_a_peer_with_other_outputs_is_refused():
    given = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(UserError, match=r"returned \(8, 5\) where the criterion got logits of shape \(8, 3\)"):
        trainer(CoTeaching(0.2, peer=given)).fit(ToyClassifier(), datamodule=ToyImages(batch_size=8))


@pytest.mark.parametrize("make", [CoTeaching, JoCoR])
def test_a_network_called_by_keyword_is_refused_in_one_sentence(make):
    class ByKeyword(ToyClassifier):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(input=batch["image"]), batch["target"])

    with pytest.raises(UserError, match=r"ByKeyword gives its network no positional argument, so the peer network"):
        trainer(make(0.2)).fit(ByKeyword(), datamodule=ToyImages(batch_size=8))


def test_a_second_fit_goes_on_with_the_peer():
    method, module, data = CoTeaching(0.2), ToyClassifier(), ToyImages(batch_size=8)
    run = trainer(method)
    run.fit(module, datamodule=data)
    first, before = method.peer, weights(method.peer)
    run.fit_loop.max_epochs = 2
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "CoTeaching begins")
        run.fit(module, datamodule=data)
    assert method.peer is first
    assert not torch.equal(weights(method.peer), before)
    trainer(method).fit(module, datamodule=data)  # another trainer begins anew
    assert method.peer is not first


def test_warns_of_a_peer_drawn_anew_beside_a_trained_network():
    module, data, run = ToyClassifier(), ToyImages(batch_size=8), trainer(CoTeaching(0.2))
    run.fit(module, datamodule=data)
    run.callbacks = [CoTeaching(0.2)]
    run.fit_loop.max_epochs = 2
    with pytest.warns(UserWarning, match="CoTeaching begins at epoch 1 with a peer network drawn anew"):
        run.fit(module, datamodule=data)
