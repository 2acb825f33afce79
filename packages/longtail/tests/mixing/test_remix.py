import pytest
import torch
from toys import trainer

from medbolt.core import RandomState, UserError
from medbolt.longtail import Remix
from medbolt.longtail.mixing.remix import label_weight


def by_hand(weight, n_i, n_j, kappa, tau):
    """The paper's cases, one sample."""
    if n_i / n_j >= kappa and weight < tau:
        return 0.0
    if n_i / n_j <= 1 / kappa and 1 - weight < tau:
        return 1.0
    return weight


@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (1.2, 0.7), (10.0, 0.3), (3.0, 0.0), (3.0, 1.0)])
def test_labels_follow_the_three_cases(kappa, tau):
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(500, generator=generator)
    n = torch.randint(1, 30, (2, 500), generator=generator).float()
    expected = [by_hand(*row, kappa, tau) for row in zip(weight.tolist(), *n.tolist(), strict=True)]
    torch.testing.assert_close(label_weight(weight, n[0], n[1], kappa, tau), torch.tensor(expected))


def test_a_mixture_never_favours_the_frequent_class():
    weight = torch.linspace(0, 1, 101)
    rare, frequent = torch.full((101,), 2.0), torch.full((101,), 90.0)
    assert (label_weight(weight, rare, frequent, 3.0, 0.5) >= weight).all()
    assert (label_weight(weight, frequent, rare, 3.0, 0.5) <= weight).all()


def test_without_tau_it_is_mix_up():
    weight, n = torch.rand(50), torch.randint(1, 90, (2, 50)).float()
    assert torch.equal(label_weight(weight, n[0], n[1], 1.0, 0.0), weight)


def draw(remix, target, size=None):
    remix.counts = torch.tensor([24.0, 6.0, 2.0])
    return remix.draw(size or len(target), target, torch.device("cpu"))


def test_a_batch_has_one_image_weight_and_one_permutation():
    mix = draw(Remix(), torch.arange(30) % 3)
    assert sorted(mix.partner.tolist()) == list(range(30))
    assert len(mix.image_weight.unique()) == 1
    assert len(mix.target_weight.unique()) > 1


def test_the_loss_in_training_is_that_of_images_and_labels(tailed, watched):
    class Kept(Remix):
        def draw(self, size, target, device):
            self.mix = super().draw(size, target, device)
            return self.mix

    module, remix = watched(), Kept()
    trainer(RandomState(3), remix, limit_train_batches=1).fit(module, datamodule=tailed(32))
    assert remix.counts.tolist() == [24, 6, 2]
    x, y, mix = module.batches[0]["image"], module.batches[0]["target"], remix.mix
    losses = []
    for i, (j, a, b) in enumerate(zip(mix.partner, mix.image_weight, mix.target_weight, strict=True)):
        log_p = module.model((a * x[i] + (1 - a) * x[j])[None]).log_softmax(1)[0]
        losses.append(-b * log_p[y[i]] - (1 - b) * log_p[y[j]])
    assert module.losses == [pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)]
    assert not torch.equal(mix.image_weight, mix.target_weight)


def test_a_batch_of_one_and_a_class_without_training_samples():
    remix = Remix(class_counts=[5, 0, 3])
    remix.counts = torch.tensor([5.0, 1.0, 3.0])
    mix = remix.draw(1, torch.tensor([1]), torch.device("cpu"))
    assert mix.partner.tolist() == [0]
    assert torch.equal(mix.target_weight, mix.image_weight)


def test_gradient_is_finite_under_bfloat16(tailed, watched):
    module = watched(0.1)
    trainer(Remix(), precision="bf16-mixed").fit(module, datamodule=tailed())
    assert all(p.isfinite().all() for p in module.parameters())


def test_soft_targets_and_unknown_counts_are_refused(tailed, watched):
    with pytest.raises(UserError, match="Remix is defined for class indices, .* use BalancedMixUp"):
        draw(Remix(), torch.eye(3))
    with pytest.raises(UserError, match="Remix needs to know how many training samples"):
        trainer(Remix()).fit(watched(), tailed().train_dataloader())


@pytest.mark.parametrize("options", [{"alpha": 0}, {"kappa": 1.0}, {"tau": 1.5}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="alpha must be positive, kappa above 1"):
        Remix(**options)
