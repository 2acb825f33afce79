import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import DeconfoundedHead


def loop(head, features, alpha):
    """The formula, part by part."""
    size = head.in_features // head.parts
    rows = []
    for x in features:
        row = []
        for w in head.weight:
            total = 0.0
            for k in range(head.parts):
                xk, wk, mk = (v[k * size : (k + 1) * size] for v in (x, w, head.mean))
                u = xk / xk.norm()
                if alpha:
                    m = mk / mk.norm()
                    u = u - alpha * (u @ m) * m
                total += wk @ u / (wk.norm() + head.gamma)
            row.append(float(head.temperature / head.parts * total))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(params=[1, 2, 3])
def head(request):
    torch.manual_seed(2)
    head = DeconfoundedHead(6, 4, alpha=1.5, parts=request.param).double()
    head.mean = torch.randn(6).double()
    return head


def test_predictions_are_total_direct_effects(head, features):
    torch.testing.assert_close(head.eval()(features), loop(head, features, 1.5))
    head.apply_tde = False
    torch.testing.assert_close(head(features), loop(head, features, 0.0))


def test_training_sees_the_plain_logits(head, features):
    torch.testing.assert_close(head.train()(features), loop(head, features, 0.0))


def test_the_mean_moves_in_training_only(head, features):
    before = head.mean.clone()
    head.eval()(features)
    assert torch.equal(head.mean, before)
    head.train()(features)
    torch.testing.assert_close(head.mean, 0.9 * before + features.mean(0))
    assert torch.equal(head.state_dict()["mean"], head.mean)
    assert not head.mean.requires_grad


def test_before_any_training_there_is_nothing_to_take_out(features):
    head = DeconfoundedHead(6, 4).double().eval()
    torch.testing.assert_close(head(features), loop(head, features, 0.0))


def test_it_recovers_rare_classes_that_momentum_has_hidden():
    """Features share a direction that points to the frequent class; without it the rare class is found more often."""
    torch.manual_seed(0)
    counts = [500, 25]
    target = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    own = F.one_hot(target, 2).float() * 2 + torch.randn(525, 2)
    features = torch.cat([own, torch.full((525, 2), 2.0)], 1)
    head = DeconfoundedHead(4, 2, alpha=1.5, parts=1)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(head(features), target).backward()
        optimizer.step()
    head.eval()
    rare, recalls = target == 1, []
    for head.apply_tde in (False, True):
        recalls.append(float((head(features[rare]).argmax(1) == 1).float().mean()))
    assert recalls[1] > recalls[0] + 0.1


def test_half_precision_and_zeros(finite_in_half_precision):
    finite_in_half_precision(DeconfoundedHead(6, 4))
    finite_in_half_precision(DeconfoundedHead(6, 4).eval())


@pytest.mark.parametrize(
    ("options", "message"), [({"parts": 4}, "multiple of parts"), ({"momentum": 1.0}, "momentum must be")]
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeconfoundedHead(6, 4, **options)


def test_drawn_anew_it_forgets_the_mean():
    head = DeconfoundedHead(6, 4)
    head(torch.ones(2, 6))
    before = head.weight.detach().clone()
    head.reset_parameters()
    assert not head.mean.any()
    assert not torch.equal(head.weight, before)
    assert head.weight.abs().max() <= 6**-0.5
