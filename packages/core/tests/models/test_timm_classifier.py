import pytest
import torch
from torch import nn

from medbolt.core import TimmClassifier, UserError


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_is_features_then_head(name):
    size = 224 if name.startswith("vit") else 32
    model = TimmClassifier(name, num_classes=5).eval()
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = model.features(image)
    assert features.shape == (2, model.head.in_features)
    torch.testing.assert_close(model(image), model.head(features))


def test_small_images_keep_their_resolution_at_the_stem():
    model = TimmClassifier("resnet18", 3, small_images=True)
    stem = nn.Sequential(model.features.conv1, model.features.maxpool)
    assert stem(torch.zeros(1, 3, 28, 28)).shape == (1, 64, 28, 28)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 3)


def test_channels_last_is_the_same_function():
    plain, last = TimmClassifier("resnet10t", 3).eval(), TimmClassifier("resnet10t", 3, channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(last(image), plain(image), rtol=1e-3, atol=1e-5)
    assert last.features.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_dropout_is_before_the_head():
    model = TimmClassifier("resnet10t", 3, drop_rate=0.9)
    image = torch.ones(2, 3, 32, 32)
    model.features.eval()
    assert not torch.equal(model(image), model(image))
    assert torch.equal(model.eval()(image), model(image))


def test_unknown_names_and_unsuited_networks_are_answered():
    with pytest.raises(UserError, match=r"timm has no model 'resnet19' \(did you mean 'resnet1"):
        TimmClassifier("resnet19", 3)
    with pytest.raises(UserError, match="small_images needs .* 'vit_tiny_patch16_224' is not"):
        TimmClassifier("vit_tiny_patch16_224", 3, small_images=True)
