import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import trainer

from medbolt.core import EvaluationTransform, MultiView, RandomState, UserError
from medbolt.longtail import ConMix
from medbolt.longtail.mixing.con_mix import contrast


class Darker(nn.Module):
    """Another view: the left half of a picture at a third of its brightness."""

    def forward(self, images):
        return torch.cat([images[..., :2] / 3, images[..., 2:]], dim=-1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture
def module(watched):
    def make(lr=0.0):
        made = watched(lr)
        made.model = network()
        return made

    return make


def by_hand(first, second, groups, temperature):
    """Return the loss by loops over groups, of which only those with samples are given."""
    mixtures = []
    for view in (first, second):
        for group in groups:
            mixture = sum(weight * view[i] / view[i].norm() for i, weight in group)
            mixtures.append(mixture / mixture.norm())
    losses = []
    for a, u in enumerate(mixtures):
        others = [torch.exp(u @ v / temperature) for b, v in enumerate(mixtures) if b != a]
        pair = mixtures[(a + len(groups)) % len(mixtures)]
        losses.append(-torch.log(torch.exp(u @ pair / temperature) / sum(others)))
    return sum(losses) / len(losses)


def members(target):
    return [[(i, 1.0) for i in torch.nonzero(target == label).flatten()] for label in target.unique()]


def test_losses_and_a_step_are_those_of_loops(module, tailed):
    trained = module(0.1)
    callback = ConMix(0.7, 0.3, strong=Darker(), features="model.1")
    trainer(RandomState(1), callback, limit_train_batches=1).fit(trained, datamodule=tailed())
    batch, by_loops = trained.batches[0], network()
    target = batch["target"]
    first, second = (by_loops[:2](view) for view in (batch["image"], Darker()(batch["image"])))
    loss = F.cross_entropy(by_loops[2:](first), target) + 0.7 * by_hand(first, second, members(target), 0.3)
    assert trained.losses[0] == pytest.approx(float(loss), rel=1e-5)
    loss.backward()
    for ours, theirs in zip(trained.model.parameters(), by_loops.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


def test_classes_that_are_absent_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, 3, 5, generator=generator)
    some = torch.tensor([True, False, True])
    groups = [[(0, 1.0)], [(2, 1.0)]]
    unit = F.normalize(views, dim=2)
    torch.testing.assert_close(contrast(views, some, 0.5), by_hand(*unit, groups, 0.5))
    views.requires_grad_()
    contrast(views * some[:, None], some, 0.5).backward()
    assert views.grad.isfinite().all()
    assert not views.grad[:, 1].any()


def test_one_group_has_nothing_to_be_told_from():
    views = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert contrast(views, torch.tensor([False, True, False]), 0.5).item() == 0


def test_a_batch_without_labels_has_nothing_to_mix():
    views = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = contrast(views, torch.tensor([False, False, False]), 0.5)
    loss.backward()
    assert loss.item() == 0
    assert not views.grad.any()


def test_the_module_s_own_loss_stays_under_autocast(module, tailed):
    class Asks(nn.Module):
        def forward(self, logits, target):
            self.enabled = torch.is_autocast_enabled("cpu")
            return F.cross_entropy(logits, target)

    trained = module()
    trained.criterion = Asks()
    callback = ConMix(1.0, strong=Darker(), features="model.1")
    trainer(callback, precision="bf16-mixed", limit_train_batches=1).fit(trained, datamodule=tailed())
    assert trained.criterion.enabled


def test_soft_targets_take_part_by_their_share(module, tailed):
    trained = module()
    callback = ConMix(1.0, strong=Darker(), features="model.1")
    soft = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    trained.training_step = lambda batch, batch_idx: trained.criterion(trained.model(batch["image"]), soft)
    losses = []
    callback.on_train_batch_end = lambda trainer, module, outputs, *_: losses.append(float(outputs["loss"]))
    data = tailed()
    trainer(RandomState(1), callback, limit_train_batches=1).fit(trained, datamodule=data)
    image = next(iter(data.train_dataloader()))["image"]
    first, second = (network()[:2](view) for view in (image, Darker()(image)))
    groups = [[(i, soft[i, label]) for i in range(8)] for label in range(3)]
    expected = F.cross_entropy(network()(image), soft) + by_hand(first, second, groups, 0.5)
    assert losses[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_a_binary_task_has_two_groups(module, tailed, shape):
    def one_output():
        made = network()
        return made[:3].append(nn.Linear(6, 1))

    trained, target = module(), torch.tensor([0.0, 0, 1, 0, 1, 0, 0, 0])
    trained.model, trained.criterion = one_output(), nn.BCEWithLogitsLoss()
    trained.training_step = lambda batch, batch_idx: trained.criterion(
        trained.model(batch["image"]).reshape(shape), target.reshape(shape)
    )
    callback, losses = ConMix(1.0, strong=Darker(), features="model.1"), []
    callback.on_train_batch_end = lambda trainer, module, outputs, *_: losses.append(float(outputs["loss"]))
    data, untrained = tailed(), trained.model.state_dict()
    trainer(RandomState(1), callback, limit_train_batches=1).fit(trained, datamodule=data)
    image, copy = next(iter(data.train_dataloader()))["image"], one_output()
    copy.load_state_dict(untrained)  # the learning rate is 0
    first, second = (copy[:2](view) for view in (image, Darker()(image)))
    own = F.binary_cross_entropy_with_logits(copy(image).flatten(), target)
    assert losses[0] == pytest.approx(float(own + by_hand(first, second, members(target), 0.5)), rel=1e-5)


def test_random_groups_are_drawn_anew_and_need_no_labels(module, tailed, monkeypatch):
    trained, drawn = module(), []
    draw = torch.randint

    def watched(high, size, **options):
        drawn.append(draw(high, size, **options))
        return drawn[-1]

    callback = ConMix(1.0, groups=4, strong=Darker(), features="model.1")
    monkeypatch.setattr("medbolt.longtail.mixing.con_mix.torch.randint", watched)
    trainer(RandomState(1), callback).fit(trained, datamodule=tailed())
    assert len({tuple(groups.tolist()) for groups in drawn}) == len(trained.batches) == 4
    for batch, groups, loss in zip(trained.batches, drawn, trained.losses, strict=True):
        first, second = (network()[:2](view) for view in (batch["image"], Darker()(batch["image"])))
        expected = F.cross_entropy(network()(batch["image"]), batch["target"])
        expected = expected + by_hand(first, second, members(groups), 0.5)
        assert loss == pytest.approx(float(expected), rel=1e-5)


def test_the_views_of_the_data_module_are_taken(module, tailed):
    data, plain = tailed(), EvaluationTransform(None)
    data.train_transform = MultiView([plain, plain])
    trained = module()
    trainer(ConMix(1.0, features="model.1"), limit_train_batches=1).fit(trained, datamodule=data)
    batch = trained.batches[0]
    first = network()[:2](batch["image"])
    expected = F.cross_entropy(network()(batch["image"]), batch["target"])
    expected = expected + by_hand(first, first, members(batch["target"]), 0.5)
    assert trained.losses[0] == pytest.approx(float(expected), rel=1e-5)


def test_the_data_module_makes_the_views(module, tailed):
    data, trained = tailed(), module()
    own = data.train_transform
    trainer(ConMix(features="model.1"), limit_train_batches=1).fit(trained, datamodule=data)
    assert trained.batches[0]["views"].shape[1] == 2
    assert data.train_transform is own


def test_a_weight_of_zero_is_the_plain_run(module, tailed):
    losses = []
    for callbacks in ([], [ConMix(0.0, features="model.1")]):
        trained = module(0.1)
        trainer(RandomState(0), *callbacks, epochs=2).fit(trained, datamodule=tailed())
        losses.append(trained.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_mixtures_of_the_classes_part(module, tailed):
    def cosine(weight):
        data, trained = tailed(batch_size=32), module(0.5)
        callback = ConMix(weight, strong=Darker(), features="model.1")
        trainer(RandomState(0), callback, epochs=100).fit(trained, datamodule=data)
        batch = trained.batches[-1]
        directions = F.normalize(trained.model[:2](batch["image"]), dim=1)
        means = [directions[batch["target"] == label].mean(0) for label in (0, 1, 2)]
        return max(float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(means, means[1:] + means[:1], strict=True))

    assert cosine(1.0) < cosine(0.0) - 0.2


def test_gradients_are_finite_in_half_precision(module, tailed):
    trained = module(0.1)
    callback = ConMix(1.0, strong=Darker(), features="model.1")
    trainer(callback, epochs=2, precision="bf16-mixed").fit(trained, datamodule=tailed())
    assert all(math.isfinite(loss) for loss in trained.losses)
    assert all(parameter.isfinite().all() for parameter in trained.parameters())


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="weight must not be negative and temperature positive, got -1 and 0.5"):
        ConMix(-1)
    with pytest.raises(ValueError, match="got 1.0 and 0"):
        ConMix(temperature=0)
    with pytest.raises(ValueError, match="groups must be at least 2"):
        ConMix(groups=1)


def test_what_is_missing_is_named(module, tailed):
    with pytest.raises(UserError, match=r"has no layer features='model.9'"):
        trainer(ConMix(features="model.9", strong=Darker())).fit(module(), datamodule=tailed())
    with pytest.raises(UserError, match=r"network 'model.0' does not pass the layer features='model.1' that ConMix"):
        trainer(ConMix(features="model.1", network="model.0", strong=Darker())).fit(module(), datamodule=tailed())
