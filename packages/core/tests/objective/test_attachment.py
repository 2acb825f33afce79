import copy

import pytest
import torch
from torch import nn

from medbolt.core.errors import UserError
from medbolt.core.objective.attachment import Attachment


@pytest.fixture
def module(classifier):
    return classifier()


def test_it_trains_and_moves_with_the_module(module):
    peer = nn.BatchNorm1d(2)
    Attachment(module, "peer", peer)
    assert module.peer is peer
    assert {id(p) for p in peer.parameters()} <= {id(p) for p in module.parameters()}
    module.double().eval()
    assert peer.weight.dtype == torch.float64
    assert not peer.training


def test_it_is_in_no_state_dict(module):
    plain = dict(module.state_dict())
    Attachment(module, "peer", nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    Attachment(module, "peers", nn.Linear(2, 2))
    assert module.state_dict().keys() == plain.keys()
    whole = nn.ModuleDict({"inside": module})
    assert not [key for key in whole.state_dict() if "peer" in key]


def test_weights_with_similar_names_stay(module):
    module.peer_head = nn.Linear(2, 2)
    Attachment(module, "peer", nn.Linear(2, 2))
    assert "peer_head.weight" in module.state_dict()


@pytest.mark.parametrize("strict", [True, False])
def test_plain_weights_load_strictly(module, classifier, strict):
    plain = classifier().state_dict()
    Attachment(module, "peer", nn.Linear(2, 2))
    missing, unexpected = module.load_state_dict(plain, strict=strict)
    assert (missing, unexpected) == ([], [])
    torch.testing.assert_close(dict(module.state_dict()), dict(plain), rtol=0, atol=0)


def test_strict_loading_still_finds_what_is_really_missing(module, classifier):
    plain = classifier().state_dict()
    del plain["model.0.weight"]
    Attachment(module, "peer", nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"model.0.weight\"\. "):
        module.load_state_dict(plain)


def test_a_module_inside_a_larger_one_loads_strictly(module, classifier):
    plain = nn.ModuleDict({"inside": classifier()}).state_dict()
    Attachment(module, "peer", nn.Linear(2, 2))
    nn.ModuleDict({"inside": module}).load_state_dict(plain)
    with pytest.raises(RuntimeError, match="Missing"):
        nn.ModuleDict({"inside": module, "superpeer": nn.Linear(2, 2)}).load_state_dict(plain)


def test_it_leaves_no_trace(module):
    before = dict(vars(module))
    hooks = (len(module._state_dict_hooks), len(module._load_state_dict_post_hooks))
    attachment = Attachment(module, "peer", nn.Linear(2, 2))
    attachment.remove()
    attachment.remove()
    assert not hasattr(module, "peer")
    assert vars(module).keys() == before.keys()
    assert (len(module._state_dict_hooks), len(module._load_state_dict_post_hooks)) == hooks


def test_a_copy_of_the_module_hides_its_copy(module):
    attachment = Attachment(module, "peer", nn.Linear(2, 2))
    copied = copy.deepcopy(module)
    attachment.remove()
    assert copied.peer is not attachment.submodule
    assert "peer.weight" not in copied.state_dict()


def test_names_that_are_taken_are_refused(module):
    Attachment(module, "peer", nn.Linear(2, 2))
    for name in ("peer", "model", "forward"):
        with pytest.raises(UserError, match=f"Classifier already has an attribute '{name}', .*take one, or rename"):
            Attachment(module, name, nn.Linear(2, 2))
