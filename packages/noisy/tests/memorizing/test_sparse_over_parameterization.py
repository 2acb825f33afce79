import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, one_hot

from medbolt.core import UserError
from medbolt.noisy import SparseOverParameterization


class Begins(Callback):
    """Begins with u and v large enough to see them change."""

    def __init__(self, method):
        self.method = method

    def on_train_start(self, trainer, pl_module):
        generator = torch.Generator().manual_seed(5)
        for name in ("u", "v"):
            self.method.memory[name].normal_(0, 0.5, generator=generator)


def begun(size=10, classes=3):
    generator = torch.Generator().manual_seed(5)
    return [torch.zeros(shape).normal_(0, 0.5, generator=generator) for shape in ((size,), (size, classes))]


def loss_of(z, y, u, v):
    """Return the loss of one sample by its formula."""
    p, label = z.softmax(0), one_hot(y, len(z)).float()
    more, less = (u**2 * label).clamp(0, 1), (v**2 * (1 - label)).clamp(0, 1)
    completed = (p + more - less.detach()).clamp(min=1e-4)
    completed = completed / completed.sum()
    guess = one_hot(p.argmax(), len(z))
    return -completed[y].log() + ((guess + more - less - label) ** 2).sum()


def test_equals_separate_gradient_descent_on_the_rows_of_each_batch(linear, module, random_data, fit):
    trained, callback, data = module(linear(), lr=0.5), SparseOverParameterization(0.7, 1.3), random_data()
    fit(trained, data, callback, Begins(callback), epochs=3)
    u, v = (nn.Parameter(values) for values in begun())
    optimizer = torch.optim.SGD([{"params": [u], "lr": 0.7}, {"params": [v], "lr": 1.3}], lr=1.0)
    for (logits, index), loss in zip(trained.seen, trained.losses, strict=True):
        ys = data.columns["target"][index]
        mine = torch.stack([loss_of(z, y, u[i], v[i]) for z, y, i in zip(logits, ys, index, strict=True)]).mean()
        torch.testing.assert_close(loss, mine.detach())
        optimizer.zero_grad()
        mine.backward()
        optimizer.step()
    torch.testing.assert_close(callback.memory["u"], u.detach())
    torch.testing.assert_close(callback.memory["v"], v.detach())


def test_only_rows_of_the_batch_change(linear, module, random_data, fit):
    trained, callback = module(linear()), SparseOverParameterization()
    fit(trained, random_data(), callback, Begins(callback), limit_train_batches=1)
    changed = [(callback.memory[name] != old).view(10, -1).any(1) for name, old in zip("uv", begun(), strict=True)]
    expected = torch.zeros(10, dtype=torch.bool)
    expected[trained.seen[0][1]] = True
    assert torch.equal(changed[0], expected)
    assert torch.equal(changed[1], expected)


def test_two_accumulated_batches_are_one(linear, module, random_data, fit):
    found = []
    for batch, accumulated in ((4, 1), (2, 2)):
        trained, callback, data = module(linear()), SparseOverParameterization(), random_data(8, batch)
        fit(trained, data, callback, Begins(callback), epochs=2, accumulate_grad_batches=accumulated)
        found.append((callback.memory["u"], callback.memory["v"], trained.model[0].weight))
    torch.testing.assert_close(found[0], found[1])


def test_u_and_v_begin_next_to_zero_and_by_the_seed(linear, module, random_data, fit):
    starts = []
    for seed in (0, 0, 1):
        callback = SparseOverParameterization(0, 0, seed=seed)
        fit(module(linear()), random_data(), callback)
        starts.append(callback.memory["v"])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert 0 < starts[0].abs().max() < 1e-7


def test_the_network_gets_no_gradient_of_the_second_term(linear, module, random_data, fit):
    plain, sparse = module(linear()), module(linear())
    fit(plain, random_data())
    fit(sparse, random_data(), SparseOverParameterization())  # p is nowhere near 1e-4, u and v are next to 0
    torch.testing.assert_close(sparse.model[0].weight, plain.model[0].weight)


def test_the_extras_are_a_second_view_and_the_balance_of_classes(linear, module, random_data, fit):
    found = []
    strong = nn.Hardshrink(0.5)
    for consistency, balance in ((0, 0), (0.9, 0), (0, 0.1)):
        trained, data = module(linear()), random_data(4)
        fit(trained, data, SparseOverParameterization(consistency=consistency, balance=balance, strong=strong))
        found.append(trained.losses[0])
    index = trained.seen[0][1]
    x = data.columns["image"][index]
    log_p, log_q = linear()(x).log_softmax(1).detach(), linear()(strong(x)).log_softmax(1).detach()
    torch.testing.assert_close(found[1] - found[0], 0.9 * kl_div(log_q, log_p, reduction="batchmean", log_target=True))
    uniform = cross_entropy(log_p.exp().mean(0).log()[None], torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(found[2] - found[0], 0.1 * uniform, rtol=1e-4, atol=1e-6)


def test_consistency_needs_a_second_view(linear, module, random_data, fit):
    with pytest.raises(UserError, match="needs a second view"):
        fit(module(linear()), random_data(), SparseOverParameterization(consistency=0.9))


def test_beats_cross_entropy_under_forty_percent_noise_which_goes_into_v(accuracy, cross_entropy_accuracy, noisy_blobs):
    callback = SparseOverParameterization(lr_u=10, lr_v=300)  # 50 short epochs instead of the authors' 300
    assert accuracy(callback) > cross_entropy_accuracy + 0.2
    data, clean = noisy_blobs()
    wrong = data.columns["target"] != clean
    size = callback.memory["v"].abs().amax(1)
    assert size[wrong].median() > 3 * size[~wrong].median()


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(num_classes=None), SparseOverParameterization(num_classes=3, criterion="functional"))
    fit(second, random_data(), SparseOverParameterization())
    torch.testing.assert_close(first.losses, second.losses)


def test_gradient_is_finite_under_bfloat16_extreme_logits_one_logit_and_soft_targets(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["image"]).flatten(), batch["target"].float())

    for trained, options, data in (
        (module(linear()), {"precision": "bf16-mixed"}, random_data()),
        (module(linear()), {}, random_data(1)),
        (module(linear()), {}, random_data(image=torch.full((10, 5), 1e4))),
        (module(linear()), {}, random_data(target=torch.full((10, 3), 1 / 3))),
        (Binary(linear(1), nn.BCEWithLogitsLoss()), {}, random_data(target=torch.arange(10) % 2, num_classes=2)),
    ):
        callback = SparseOverParameterization(balance=0.1)
        fit(trained, data, callback, Begins(callback), epochs=2, **options)
        assert all(p.isfinite().all() for p in trained.parameters())
        assert callback.memory["v"].isfinite().all()


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        SparseOverParameterization(lr_u=-1)


def test_a_sample_that_is_drawn_thrice_has_the_gradients_of_all(linear, module, random_data, fit):
    class Repeated:
        def __init__(self, columns):
            self.columns = columns

        def __len__(self):
            return 1

        def __iter__(self):
            index = torch.tensor([4, 7, 4, 4])
            yield {name: column[index] for name, column in self.columns.items()} | {"index": index}

    data, callback = random_data(), SparseOverParameterization(0.7, 1.3)
    data.train_dataloader = lambda: Repeated(data.columns)
    fit(module(linear(), lr=0.0), data, callback, Begins(callback))
    u, v = (values.requires_grad_() for values in begun())
    x, y = data.columns["image"], data.columns["target"]
    sum(loss_of(linear()(x[i]).detach(), y[i], u[i], v[i]) / 4 for i in (4, 7, 4, 4)).backward()
    torch.testing.assert_close(callback.memory["u"], (u - 0.7 * u.grad).detach())
    torch.testing.assert_close(callback.memory["v"], (v - 1.3 * v.grad).detach())
