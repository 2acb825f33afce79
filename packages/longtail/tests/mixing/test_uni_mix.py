import pytest
import torch
from toys import trainer

from medbolt.core import RandomState, UserError
from medbolt.longtail import UniMix
from medbolt.longtail.mixing.uni_mix import uniform_weight

COUNTS = torch.tensor([900.0, 90.0, 10.0])


def draw(unimix, target):
    unimix.counts = COUNTS
    return unimix.draw(len(target), target, torch.device("cpu"))


def test_weights_are_the_plain_loop_s_and_in_range():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(500, generator=generator)
    n = torch.randint(1, 90, (2, 500), generator=generator).float()
    expected = []
    for xi, own, partner in zip(drawn.tolist(), *n.tolist(), strict=True):
        value = partner / (own + partner) + xi
        expected.append(value - 1 if value > 1 else value)
    weight = uniform_weight(drawn, n[0], n[1])
    torch.testing.assert_close(weight, torch.tensor(expected))
    assert ((weight >= 0) & (weight <= 1)).all()


@pytest.mark.parametrize(("tau", "expected"), [(0.0, [0.6, 0.3, 0.1]), (-1.0, None), (-0.5, None)])
def test_partners_are_drawn_by_the_power_of_their_class_size(tau, expected):
    target = torch.repeat_interleave(torch.arange(3), torch.tensor([60, 30, 10]))
    shares = COUNTS**tau * torch.tensor([60.0, 30.0, 10.0])
    shares = shares / shares.sum() if expected is None else torch.tensor(expected)
    torch.manual_seed(0)
    partners = torch.cat([target[draw(UniMix(tau=tau), target).partner] for _ in range(200)])
    found = torch.bincount(partners, minlength=3) / len(partners)
    assert (found - shares).abs().max() < 0.01


def test_the_rarer_of_two_prevails_for_small_alpha():
    torch.manual_seed(0)
    target = torch.tensor([0, 2] * 500)
    mix = draw(UniMix(alpha=0.05, tau=-1.0), target)
    mixed = target != target[mix.partner]
    own = mix.image_weight[mixed & (target == 2)]
    assert float(own.median()) == pytest.approx(900 / 910, abs=0.01)
    assert torch.equal(mix.image_weight, mix.target_weight)
    assert len(mix.image_weight.unique()) > 500  # one for each sample


def test_uniform_draws_between_equal_classes_are_mix_up_s():
    torch.manual_seed(0)
    mix = draw(UniMix(alpha=1.0, tau=0.0), torch.zeros(4000, dtype=torch.int64))
    assert float(mix.image_weight.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(mix.image_weight.var()) == pytest.approx(1 / 12, rel=0.05)


def test_mixtures_are_nearly_balanced_where_the_data_are_not():
    torch.manual_seed(0)
    target = torch.repeat_interleave(torch.arange(3), torch.tensor([900, 90, 10]))
    mix = draw(UniMix(alpha=0.1, tau=-1.0), target)
    mass = torch.zeros(3).index_add(0, target, mix.target_weight)
    mass = mass.index_add(0, target[mix.partner], 1 - mix.target_weight)
    assert float(mass.max() / mass.min()) < 2.5


def test_the_loss_in_training_has_a_weight_for_each_sample(tailed, watched):
    class Kept(UniMix):
        def draw(self, size, target, device):
            self.mix = super().draw(size, target, device)
            return self.mix

    module, unimix = watched(), Kept()
    trainer(RandomState(3), unimix, limit_train_batches=1).fit(module, datamodule=tailed(32))
    x, y, mix = module.batches[0]["image"], module.batches[0]["target"], unimix.mix
    losses = []
    for i, (j, a) in enumerate(zip(mix.partner, mix.image_weight, strict=True)):
        log_p = module.model((a * x[i] + (1 - a) * x[j])[None]).log_softmax(1)[0]
        losses.append(-a * log_p[y[i]] - (1 - a) * log_p[y[j]])
    assert module.losses == [pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)]


def test_extreme_counts_and_exponents_stay_finite():
    unimix = UniMix(tau=-3.0, class_counts=[10**7, 1, 0])
    unimix.counts = torch.tensor([1e7, 1.0, 1.0])
    mix = unimix.draw(4, torch.tensor([0, 0, 0, 2]), torch.device("cpu"))
    assert mix.partner.tolist() == [3, 3, 3, 3]
    assert mix.image_weight.isfinite().all()
    assert unimix.draw(1, torch.tensor([0]), torch.device("cpu")).partner.tolist() == [0]


def test_gradient_is_finite_under_bfloat16(tailed, watched):
    module = watched(0.1)
    trainer(UniMix(), precision="bf16-mixed").fit(module, datamodule=tailed())
    assert all(p.isfinite().all() for p in module.parameters())


def test_what_it_cannot_do_is_refused():
    with pytest.raises(UserError, match="UniMix is defined for class indices, .* use BalancedMixUp"):
        draw(UniMix(), torch.eye(3))
    with pytest.raises(ValueError, match="alpha must be positive"):
        UniMix(alpha=0)
