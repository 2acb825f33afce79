import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import cross_entropy

from medbolt.core import SampleMemory, UserError
from medbolt.noisy import DISC, Selection

SORTS = {"clean": [0, 5], "hard": [1, 6, 7], "purified": [2, 8]}
STRONG = nn.Hardshrink(0.5)


class Sorted(DISC):
    """Sorts ten samples as told; corrects every label to class 0."""

    sorts = SORTS

    def begin_epoch(self, trainer, pl_module):
        for name, rows in self.sorts.items():
            self.memory[name][rows] = True
        self.memory["corrected"].zero_()


class Selections(Callback):
    def __init__(self, method):
        self.method, self.found = method, []

    def on_train_batch_end(self, *_):
        self.found.append(self.method.selection)


@pytest.fixture
def fixed_mix(monkeypatch):
    """Mix each sample kept with the one before it, seven to three."""
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.full(shape, 0.3))
    monkeypatch.setattr(torch, "randperm", lambda size, **options: torch.arange(size).roll(1))


def sorted_by_a_loop(memory, sigma, momentum):
    """Sort the samples one by one, in plain numbers."""
    sorts = {"clean": [], "hard": [], "purified": [], "corrected": [], "weak_threshold": [], "strong_threshold": []}
    for i in range(len(memory)):
        weak, strong = memory["weak"][i].tolist(), memory["strong"][i].tolist()
        thresholds = {"weak": float(memory["weak_threshold"][i]), "strong": float(memory["strong_threshold"][i])}
        if not memory.seen[i]:
            found = (True, False, False)
        else:
            y = int(memory["label"][i])
            votes = (weak[y] > thresholds["weak"]) + (strong[y] > thresholds["strong"])
            mean = [(w + s) / 2 for w, s in zip(weak, strong, strict=True)]
            needed = min((thresholds["weak"] + thresholds["strong"]) / 2 + sigma, 0.99)
            found = (votes == 2, votes == 1, votes == 0 and max(mean) > needed)
            sorts["corrected"].append((i, mean.index(max(mean))))
        for name, flag in zip(("clean", "hard", "purified"), found, strict=True):
            sorts[name].append(flag)
        for name, p in (("weak", weak), ("strong", strong)):
            moved = momentum * thresholds[name] + (1 - momentum) * max(p) if memory.seen[i] else thresholds[name]
            sorts[f"{name}_threshold"].append(moved)
    return sorts


@pytest.mark.parametrize("sigma", [0.3, 0.8])  # with the second, thresholds reach their cap
def test_samples_are_sorted_as_by_a_loop_over_them(sigma):
    generator = torch.Generator().manual_seed(0)
    rows = {"weak": torch.zeros(4), "strong": torch.zeros(4)}
    rows |= dict.fromkeys(["weak_threshold", "strong_threshold"], torch.tensor(0.0))
    rows |= dict.fromkeys(["clean", "hard", "purified"], torch.tensor(False))
    callback = DISC(sigma=sigma, momentum=0.9)
    memory = callback.memory = SampleMemory(300, **rows, label=torch.tensor(-1), corrected=torch.tensor(-1))
    index = torch.randperm(300, generator=generator)[:250]
    for name in ("weak", "strong"):
        memory[f"{name}_threshold"].copy_(0.6 * torch.rand(300, generator=generator))
    for _ in range(2):
        # half of the samples are predicted with confidence, often another class than the label
        logits = torch.randn(250, 4, generator=generator) * torch.tensor([1.0, 12.0]).repeat(125)[:, None]
        memory.write(
            index,
            weak=logits.softmax(1),
            strong=(logits + torch.randn(250, 4, generator=generator)).softmax(1),
            label=torch.randint(0, 4, (250,), generator=generator),
        )
        expected = sorted_by_a_loop(memory, sigma, 0.9)
        callback.begin_epoch(None, None)
        for name in ("clean", "hard", "purified"):
            assert memory[name].tolist() == expected[name]
            assert memory[name].sum() > 10
        assert all(memory["corrected"][i] == label for i, label in expected["corrected"])
        for name in ("weak_threshold", "strong_threshold"):
            torch.testing.assert_close(memory[name], torch.tensor(expected[name]))


def test_the_warm_up_is_the_loss_of_both_views(linear, module, random_data, fit):
    trained, data, callback = module(linear()), random_data(), DISC(start_epoch=1, strong=STRONG)
    selections = Selections(callback)
    fit(trained, data, callback, selections)
    _, index = trained.seen[0]
    x, y = data.columns["image"][index], data.columns["target"][index]
    expected = cross_entropy(linear()(x), y) + cross_entropy(linear()(STRONG(x)), y)
    torch.testing.assert_close(trained.losses[0], expected.detach())
    assert selections.found[0].kept.all()
    torch.testing.assert_close(callback.memory["weak_threshold"], torch.full((10,), 0.1))


def test_the_loss_is_each_samples_by_its_sort(linear, module, random_data, fit, fixed_mix):
    trained, data, callback = module(linear()), random_data(10, 10), Sorted(0, hard_weight=0.5, strong=STRONG)
    data.shuffle = False
    selections = Selections(callback)
    fit(trained, data, callback, selections)
    network, x, y = linear(), data.columns["image"], data.columns["target"]
    target = [0 if i in SORTS["purified"] else int(y[i]) for i in range(10)]
    kept = sorted(i for rows in SORTS.values() for i in rows)
    total = 0.0
    for view in (x, STRONG(x)):
        total += sum(float(cross_entropy(network(view[i]), y[i])) for i in SORTS["clean"]) / 10
        generalized = [(1 - float(network(view[i]).softmax(0)[y[i]]) ** 0.7) / 0.7 for i in SORTS["hard"]]
        total += 0.5 * sum(generalized) / 10
        for place, i in enumerate(kept):
            other = kept[place - 1]
            z = network(0.7 * view[i] + 0.3 * view[other])
            labels = [torch.tensor(target[i]), torch.tensor(target[other])]
            total += (0.7 * float(cross_entropy(z, labels[0])) + 0.3 * float(cross_entropy(z, labels[1]))) / len(kept)
    assert float(trained.losses[0]) == pytest.approx(total, rel=1e-5)
    (selection,) = selections.found
    assert isinstance(selection, Selection)
    assert selection.index[selection.kept].tolist() == kept
    assert selection.target.tolist() == target


def test_samples_not_seen_yet_count_as_clean(linear, module, random_data, fit):
    trained, callback = module(linear()), DISC(0, strong=STRONG)
    selections = Selections(callback)
    fit(trained, random_data(), callback, selections)
    assert all(selection.kept.all() for selection in selections.found)
    assert not torch.equal(trained.model[0].weight, linear()[0].weight)


def test_a_network_called_by_keyword_is_refused_in_one_sentence(linear, module, random_data, fit):
    class ByKeyword(module):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(input=batch["image"]), batch["target"])

    with pytest.raises(UserError, match=r"ByKeyword gives its network no positional argument, so DISC .*model\(images"):
        fit(ByKeyword(nn.Linear(5, 3)), random_data(), DISC(0, strong=STRONG))


def test_what_both_views_say_is_remembered(linear, module, random_data, fit):
    trained, data, callback = module(linear()), random_data(10, 10), Sorted(0, strong=STRONG)
    fit(trained, data, callback)
    x = data.columns["image"]
    torch.testing.assert_close(callback.memory["weak"], linear()(x).softmax(1).detach())
    torch.testing.assert_close(callback.memory["strong"], linear()(STRONG(x)).softmax(1).detach())
    assert torch.equal(callback.memory["label"], data.columns["target"])


def test_the_second_view_is_that_of_the_batch(linear, module, random_data, fit):
    x = random_data().columns["image"]
    views = torch.stack([x, STRONG(x)], dim=1)
    losses = []
    for data, options in ((random_data(views=views), {}), (random_data(), {"strong": STRONG})):
        trained = module(linear())
        fit(trained, data, Sorted(0, **options))
        losses.append(trained.losses)
    torch.testing.assert_close(losses[0], losses[1])
    with pytest.raises(UserError, match="DISC needs a second view of each image"):
        fit(module(linear()), random_data(), DISC())


@pytest.mark.parametrize("rows", [{}, {"clean": [3]}, {"purified": [3]}], ids=["none", "one", "one corrected"])
def test_a_batch_of_which_nothing_or_one_sample_is_kept(module, random_data, fit, rows):
    class Few(DISC):
        def begin_epoch(self, trainer, pl_module):
            for name, places in rows.items():
                self.memory[name][places] = True
            self.memory["corrected"].zero_()

    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    trained = module(network)
    fit(trained, random_data(), Few(0, strong=STRONG), epochs=2)
    assert all(p.isfinite().all() for p in trained.parameters())
    assert sum(float(loss) == 0 for loss in trained.losses) == (4 if rows else 6)


def test_a_sample_kept_alone_is_not_mixed_with_one_that_is_not(linear, module, random_data, fit):
    class One(DISC):
        def begin_epoch(self, trainer, pl_module):
            self.memory["purified"][3] = True
            self.memory["corrected"].fill_(2)

    trained, data = module(linear()), random_data(10, 10)
    fit(trained, data, One(0, strong=STRONG))
    x, label = data.columns["image"][3], torch.tensor(2)
    expected = cross_entropy(linear()(x), label) + cross_entropy(linear()(STRONG(x)), label)
    torch.testing.assert_close(trained.losses[0], expected.detach())


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy, noisy_blobs, jitter):
    callback = DISC(start_epoch=2, sigma=0.3, momentum=0.9, strong=jitter)  # thresholds that keep up with 30 epochs
    assert accuracy(callback, epochs=30) > cross_entropy_accuracy + 0.15
    data, clean = noisy_blobs()
    is_clean = data.columns["target"] == clean
    assert is_clean[callback.memory["clean"]].float().mean() > 0.8
    corrected = callback.memory["purified"]
    assert (callback.memory["corrected"] == clean)[corrected].float().mean() > 0.8


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(num_classes=None), DISC(1, strong=STRONG, num_classes=3, criterion="functional"), epochs=3)
    fit(second, random_data(), DISC(1, strong=STRONG), epochs=3)
    torch.testing.assert_close(first.losses, second.losses)


def test_gradient_is_finite_under_bfloat16_one_logit_and_soft_targets(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["image"]), batch["target"][:, None].float())

    for trained, options, data in (
        (module(linear()), {"precision": "bf16-mixed"}, random_data()),
        (module(linear()), {}, random_data(image=torch.full((10, 5), 1e4))),
        (module(linear()), {}, random_data(target=torch.zeros(10, dtype=torch.int64))),
        (module(linear()), {}, random_data(target=torch.full((10, 3), 1 / 3))),
        (Binary(linear(1), nn.BCEWithLogitsLoss()), {}, random_data(target=torch.arange(10) % 2, num_classes=2)),
    ):
        fit(trained, data, Sorted(0, strong=STRONG), epochs=2, **options)
        assert all(p.isfinite().all() for p in trained.parameters())
    one = module(linear())
    fit(one, random_data(1), DISC(1, strong=STRONG), epochs=3)
    assert all(p.isfinite().all() for p in one.parameters())


@pytest.mark.parametrize("wrong", [{"start_epoch": -1}, {"momentum": 2}, {"alpha": 0}, {"q": 0}, {"sigma": -1}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DISC(**wrong)


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=rf"share must be in \(0, 1\], got {share}"):
        DISC(share=share)


def test_the_network_sees_the_share_of_the_strong_view_and_of_the_mixtures(linear, module, random_data, fit):
    network, sizes = linear(), []
    network.register_forward_hook(lambda network, inputs, output: sizes.append(len(output)))
    fit(module(network), random_data(10, 10), Sorted(0, strong=STRONG, share=0.3))
    assert sizes == [10, 3, 3, 3]  # of the seven samples kept 2.1, rounded up


@pytest.mark.parametrize("sorts", [SORTS, {"clean": [0, 5]}, {"purified": [2, 8, 9]}], ids=["seven", "two", "three"])
def test_the_expected_loss_of_a_share_is_that_of_all(linear, module, random_data, fit, sorts):
    losses = {}
    for share in (1.0, 0.3):
        trained, callback = module(linear(), lr=0.0), Sorted(0, hard_weight=0.5, strong=STRONG, share=share)
        callback.sorts = sorts
        fit(trained, random_data(10, 10), callback, epochs=400)
        losses[share] = torch.stack(trained.losses).double()
    error = torch.stack([values.var() / 400 for values in losses.values()]).sum().sqrt()
    assert error < 0.05 * losses[1.0].mean()
    assert abs(losses[0.3].mean() - losses[1.0].mean()) < 3 * error


def test_with_a_share_what_the_strong_view_says_is_kept_until_it_is_drawn_again(linear, module, random_data, fit):
    class Watched(DISC):
        def begin_epoch(self, trainer, pl_module):
            super().begin_epoch(trainer, pl_module)
            seen.append(self.memory["strong"].sum(1) > 0)
            clean.append(self.memory["clean"].clone())

    seen, clean = [], []
    trained, data = module(linear(), lr=0.0), random_data(10, 10)
    callback = Watched(0, sigma=1.0, momentum=0.5, strong=STRONG, share=0.3)
    fit(trained, data, callback, epochs=12)
    assert [int(drawn.sum()) for drawn in seen[:2]] == [0, 3]
    assert all(sorted_as[~drawn].all() for drawn, sorted_as in zip(seen, clean, strict=True))
    assert not clean[-1].all()
    everything = linear()(STRONG(data.columns["image"])).softmax(1).detach()
    drawn = callback.memory["strong"].any(1)
    assert drawn.sum() > 7
    torch.testing.assert_close(callback.memory["strong"][drawn], everything[drawn])


def test_a_share_learns_as_well_under_forty_percent_noise(accuracy, cross_entropy_accuracy, jitter):
    callback = DISC(start_epoch=2, sigma=0.3, momentum=0.9, strong=jitter, share=1 / 3)
    assert accuracy(callback, epochs=30) > cross_entropy_accuracy + 0.15
