import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail.stages.first_stage import load_first_stage


class Network(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.features, self.head = nn.Linear(4, 3), nn.Linear(3, classes)


@pytest.fixture
def checkpoint(tmp_path):
    def save(weights, name="first.ckpt"):
        torch.save(weights, tmp_path / name)
        return tmp_path / name

    return save


def load(network, path, reset=(), optional=()):
    load_first_stage(network, path, "model.", reset, optional)


def named(network, prefix="model."):
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


def test_the_network_s_part_of_a_checkpoint_is_loaded(checkpoint):
    first, second = Network(), Network()
    load(second, checkpoint({"state_dict": named(first) | {"criterion.weight": torch.ones(2)}, "epoch": 3}))
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_what_is_reset_may_have_another_shape_or_not_be_there(checkpoint):
    for saved in (Network(classes=5), nn.ModuleDict({"features": nn.Linear(4, 3)})):
        second = Network()
        head = second.head.weight.clone()
        load(second, checkpoint(named(saved)), reset=["head"])
        assert torch.equal(second.head.weight, head)
        assert torch.equal(second.features.weight, saved.state_dict()["features.weight"])


def test_what_is_new_keeps_what_it_starts_with_but_other_shapes_are_refused(checkpoint):
    second = Network()
    head = second.head.bias.clone()
    saved = {name: value for name, value in named(Network()).items() if name != "model.head.bias"}
    load(second, checkpoint(saved), optional=["head"])
    assert torch.equal(second.head.bias, head)
    with pytest.raises(UserError, match=r"has 'head.bias' of shape \(5,\), this Network of \(2,\); take the network"):
        load(second, checkpoint(named(Network(classes=5))), optional=["head"])


def test_missing_and_unexpected_weights_are_named_in_one_sentence(checkpoint):
    saved = {name.replace("head", "fc"): value for name, value in named(Network()).items()}
    message = r"is not of this Network: it lacks 'head.bias', 'head.weight' and has 'fc.bias', 'fc.weight' in excess"
    with pytest.raises(UserError, match=message):
        load(Network(), checkpoint(saved))


def test_weights_in_excess_alone_are_refused_too(checkpoint):
    with pytest.raises(UserError, match=r"it has 'old.weight' in excess; take"):
        load(Network(), checkpoint(named(Network()) | {"model.old.weight": torch.ones(1)}))


def test_nothing_is_changed_by_a_checkpoint_that_does_not_fit(checkpoint):
    second = Network()
    before = {name: value.clone() for name, value in second.state_dict().items()}
    with pytest.raises(UserError):
        load(second, checkpoint(named(Network(classes=5))))
    torch.testing.assert_close(second.state_dict(), before, rtol=0, atol=0)


def test_files_that_are_no_checkpoints_are_named(checkpoint, tmp_path):
    with pytest.raises(UserError, match="holds pickled Python objects"):
        load(Network(), checkpoint(Network()))
    with pytest.raises(UserError, match="holds no state_dict"):
        load(Network(), checkpoint({"epoch": 3}))
    with pytest.raises(UserError, match="there is no"):
        load(Network(), tmp_path / "none.ckpt")
    for content in (b"", b"not a checkpoint"):
        (tmp_path / "text.ckpt").write_bytes(content)
        with pytest.raises(UserError, match=r"text.ckpt (is no checkpoint|is damaged)"):
            load(Network(), tmp_path / "text.ckpt")
