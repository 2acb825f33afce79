import pytest
import torch
import torch.nn.functional as F

from medbolt.core import UserError
from medbolt.longtail.generation.generator import RareSampleGenerator

FREQUENT = torch.tensor([True, False, False, False])


def make(dtype=torch.float64, **options):
    torch.manual_seed(0)
    generator = RareSampleGenerator(5, FREQUENT, **({"centers": 3, "hidden": 7} | options)).to(dtype)
    torch.nn.init.normal_(generator.centers)
    torch.nn.init.normal_(generator.bias)
    return generator


def batch(target=(0, 1, 0, 3, 0, 2, 0), dtype=torch.float64, size=(3, 4)):
    maps = torch.randn(len(target), 5, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return maps.requires_grad_(), torch.tensor(target)


def memberships(generator, maps, target):
    """Return the formula's memberships, sample by sample and center by center."""
    rows = []
    for f, y in zip(maps, target.tolist(), strict=True):
        mean = torch.stack([channel.mean() for channel in f])
        scores = [(generator.weight[y, :, k] * mean).sum() + generator.bias[y, k] for k in range(3)]
        exponentials = [score.exp() for score in scores]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def centers_loss(generator, maps, target):
    total = 0.0
    for f, y, shares in zip(maps, target.tolist(), memberships(generator, maps, target), strict=True):
        for k, share in enumerate(shares):
            for p in f.flatten(1).T:
                total = total + share * ((p - generator.centers[y, k]) ** 2).sum()
    return total / len(maps)


def spread(maps):
    return sum(((f - f.mean((1, 2), keepdim=True)) ** 2).sum() for f in maps) / len(maps)


def filtered(generator, first, second):
    """Return the filter's cross entropy to both answers, different and same, of one pair."""
    log_p = generator.filter(torch.cat([first, second])[None]).log_softmax(1)[0]
    return -log_p[0], -log_p[1]


def pair_loss(generator, maps, target):
    half, losses = len(maps) // 2, []
    for i in range(half):
        different, same = filtered(generator, maps[i], maps[i + half])
        losses.append(same if target[i] == target[i + half] else different)
    return sum(losses) / half


def displaced(generator, maps, target):
    rows = []
    for f, y, shares in zip(maps, target.tolist(), memberships(generator, maps, target), strict=True):
        k = max(range(3), key=lambda k: shares[k].item())
        rows.append(f - generator.centers[y, k].detach()[:, None, None])
    return rows


def vector_loss(generator, maps, target, pairs):
    """Return the generated maps and the loss of the vectors, pair by pair and position by position."""
    d, found, losses = displaced(generator, maps, target), [], []
    for h, r in pairs:
        v = generator.transformation(d[h][None])[0]
        found.append(maps[r] + v)
        loss = filtered(generator, maps[h], v)[0]
        for own, given, of_rare in zip(v.flatten(1).T, d[h].flatten(1).T, d[r].flatten(1).T, strict=True):
            loss = loss + (own.norm() - given.norm()).abs()
            loss = loss + 1 - (own * of_rare).sum() / own.norm() / of_rare.norm()
        losses.append(loss)
    return torch.stack(found), sum(losses) / len(losses)


def gradients(loss, generator):
    found = torch.autograd.grad(loss, [*generator.parameters()], allow_unused=True, retain_graph=True)
    return {name: g for (name, _), g in zip(generator.named_parameters(), found, strict=True) if g is not None}


def test_before_generation_it_learns_centers_and_filter():
    generator, (maps, target) = make(center_weight=0.3), batch()
    made = generator(maps, target, is_generating=False)
    assert made.maps is None
    assert len(made.rare) == 0
    expected = 0.3 * (centers_loss(generator, maps.detach(), target) + pair_loss(generator, maps.detach(), target))
    torch.testing.assert_close(made.loss, expected - 0.3 * spread(maps.detach()))
    found = gradients(made.loss, generator)
    assert found.keys() == {name for name, _ in generator.named_parameters() if "transformation" not in name}
    torch.testing.assert_close(found, gradients(expected, generator))


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        ((0, 1, 0, 3, 0, 2, 0), [(0, 1), (2, 3), (4, 5)]),
        ((0, 1, 0, 0, 0), [(0, 1), (2, 1), (3, 1), (4, 1)]),
        ((1, 0, 2, 2), [(1, 0), (1, 2), (1, 3)]),
    ],
)
def test_generated_maps_and_losses_are_the_formula(target, pairs):
    generator, (maps, target) = make(center_weight=0.3, vector_weight=0.2), batch(target)
    made = generator(maps, target, is_generating=True)
    assert made.rare.tolist() == [r for _, r in pairs]
    expected, vectors = vector_loss(generator, maps.detach(), target, pairs)
    torch.testing.assert_close(made.maps, expected)
    of_centers = centers_loss(generator, maps.detach(), target)
    torch.testing.assert_close(made.loss, 0.3 * (of_centers - spread(maps.detach())) + 0.2 * vectors)
    found = gradients(made.loss, generator)
    expected = gradients(0.3 * of_centers + 0.2 * vectors, generator)
    filters = {name for name in expected if "filter" in name}
    assert filters  # the formula would move the filter, whose parameters are taken as constants
    assert found.keys() == expected.keys() - filters
    torch.testing.assert_close(found, {name: g for name, g in expected.items() if name not in filters})


def test_nothing_reaches_the_layers_below():
    generator, (maps, target) = make(), batch()
    for is_generating in (False, True):
        made = generator(maps, target, is_generating)
        total = made.loss if made.maps is None else made.loss + made.maps.sum()
        assert torch.autograd.grad(total, maps, allow_unused=True) == (None,)


@pytest.mark.parametrize("target", [(0, 0, 0), (1, 2, 3), (0,), (2,)])
@pytest.mark.parametrize("is_generating", [False, True])
def test_batches_of_one_kind_or_one_sample_generate_nothing(target, is_generating):
    generator, (maps, target) = make(), batch(target)
    made = generator(maps, target, is_generating)
    assert made.maps is None
    assert made.loss.isfinite()
    assert all(g.isfinite().all() for g in gradients(made.loss, generator).values())


def test_zero_is_zero_with_a_gradient_to_everything():
    generator = make()
    assert generator.zero() == 0
    found = gradients(generator.zero(), generator)
    assert found.keys() == dict(generator.named_parameters()).keys()
    assert not any(g.any() for g in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [None, 0.0, 1e4])
def test_half_precision_empty_and_extreme_maps_have_finite_gradients(dtype, value):
    generator, (maps, target) = make(torch.float32), batch(dtype=torch.float32)
    torch.nn.init.zeros_(generator.transformation.bias)  # so that empty maps give vectors of length 0
    if value is not None:
        torch.nn.init.zeros_(generator.centers)
        maps = torch.full_like(maps, value)
    for is_generating in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            made = generator(maps.to(dtype), target, is_generating)
        assert made.loss.dtype == torch.float32
        assert made.maps is None or made.maps.dtype == dtype
        total = made.loss if made.maps is None else made.loss + made.maps.float().mean()
        assert all(g.isfinite().all() and g.abs().max() < 1e12 for g in gradients(total, generator).values())


def test_vectors_of_length_zero_have_bounded_gradients():
    generator, (maps, target) = make(), batch()
    torch.nn.init.zeros_(generator.transformation.bias)
    torch.nn.init.zeros_(generator.centers)
    maps = maps.detach() * (target > 0)[:, None, None, None]  # frequent samples are their center, rare ones are not
    found = gradients(generator(maps, target, True).loss, generator)
    assert 0 < found["transformation.bias"].abs().max() < 1e4


def test_wholly_in_bfloat16_it_runs():
    generator, (maps, target) = make(torch.bfloat16), batch(dtype=torch.bfloat16)
    for is_generating in (False, True):
        made = generator(maps, target, is_generating)
        assert made.loss.isfinite()
        assert all(g.isfinite().all() for g in gradients(made.loss, generator).values())


def test_learned_vectors_keep_lengths_and_turn_away_from_the_rare_center():
    generator, (maps, target) = make(), batch((0, 1, 0, 2, 0, 3, 0, 1, 0, 2))
    optimizer = torch.optim.Adam(generator.parameters(), 0.02)

    def measured():
        with torch.no_grad():
            d, _ = generator.displacement(maps, target)
            v = generator(maps, target, True).maps - maps[target > 0]
            frequent, rare = d[target == 0], d[target > 0]
            return float(F.cosine_similarity(v, rare, 1).mean()), float(
                (v.norm(dim=1) - frequent.norm(dim=1)).abs().mean()
            )

    turn, length = measured()
    for _ in range(300):
        optimizer.zero_grad()
        generator(maps, target, True).loss.backward()
        optimizer.step()
    after_turn, after_length = measured()
    assert after_turn > turn + 0.2
    assert after_length < 0.7 * length


@pytest.mark.parametrize(
    ("maps", "target", "message"),
    [
        (torch.zeros(2, 4, 3, 3), [0, 1], r"from maps \(2, 5, H, W\), but the layer gave \(2, 4, 3, 3\)"),
        (torch.zeros(2, 5), [0, 1], r"but the layer gave \(2, 5\)"),
        (torch.zeros(4, 5, 3, 3), [0, 1], r"but the layer gave \(4, 5, 3, 3\)"),
        ((torch.zeros(2, 5, 3, 3),), [0, 1], "but the layer gave tuple"),
        (torch.zeros(2, 5, 3, 3), [0, 4], "of 4 classes, but the batch's targets are from 0 to 4"),
        (torch.zeros(2, 5, 3, 3), [-100, 1], "of 4 classes, but the batch's targets are from -100 to 1"),
    ],
)
def test_other_maps_and_targets_are_refused(maps, target, message):
    with pytest.raises(UserError, match=message):
        make(torch.float32)(maps, torch.tensor(target), True)
