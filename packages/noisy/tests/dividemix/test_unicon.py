import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import trainer, weights

from medbolt.core import ClassificationTask, MultiView, RandomState, UserError
from medbolt.noisy import UNICON, DivideMix
from medbolt.noisy.dividemix.split import Split
from medbolt.noisy.dividemix.uniform_split import UniformSplit, divergence, uniform_selection


def adam(parameters):
    return torch.optim.Adam(parameters, 0.003)


def still(parameters):
    return torch.optim.SGD(parameters, 0.0)


def verdict(monkeypatch, kind, labelled):
    """Let all samples count as labelled, or none, or the even ones."""

    def update(self, *arguments):
        even = torch.arange(len(self.memory)) % 2 == 0
        chosen = even if labelled is None else torch.full_like(even, labelled)
        self.memory["clean"][:] = 0.7
        self.memory["labelled"][:] = chosen[:, None]

    monkeypatch.setattr(kind, "update", update)


def test_beats_cross_entropy_under_forty_percent_noise_with_a_rare_class(blobs, network):
    def accuracy(task):
        data = blobs((80, 80, 80, 24), wrong=0.4)
        run = trainer(RandomState(0), epochs=12, limit_val_batches=0)
        run.fit(task, data)
        return run.test(task, data, verbose=False)[0]["test/balanced_accuracy"], data

    baseline, _ = accuracy(ClassificationTask(network(), 4, optimizer=adam))
    task = UNICON(network(), 4, warmup_epochs=3, rampup_epochs=8, optimizer=adam)
    found, data = accuracy(task)
    assert found > baseline + 0.1
    target, labelled = data.dataset("train").targets, task.split.memory["labelled"][:, 0]
    right = target == torch.arange(4).repeat_interleave(torch.tensor(data.counts))
    assert right[labelled].float().mean() > right.float().mean() + 0.15
    counts = torch.bincount(target[labelled], minlength=4)
    assert counts.max() - counts.min() <= counts.max() // 2  # all equal, but for a class that has not as many


def test_selects_by_both_networks_without_augmentation_or_training_mode(blobs, network):
    data, model = blobs(wrong=0.4), network()
    model.insert(1, nn.Dropout(0.5))
    task = UNICON(model, 4, 0, high_divergence=0.3, optimizer=still)
    trainer(epochs=2).fit(task, data)
    batches = list(data.train_eval_dataloader())
    images, target = (torch.cat([batch[key] for batch in batches]) for key in ("image", "target"))
    task.eval()
    p = (task.model(images).softmax(1) + task.peer(images).softmax(1)) / 2
    d = divergence(p.gather(1, target[:, None]).squeeze(1))
    memory = task.split.memory
    torch.testing.assert_close(memory["clean"], torch.stack([1 - d, 1 - d], 1), rtol=1e-4, atol=1e-5)
    labelled = uniform_selection(d, target, 4, 0.3, 5.0)
    assert 0 < labelled.sum() < 128
    assert torch.equal(memory["labelled"], torch.stack([labelled, labelled], 1))


@pytest.mark.parametrize("labelled", [True, False, None])
def test_is_divide_mix_without_the_contrast_where_both_select_alike(labelled, blobs, network, monkeypatch):
    found = []
    for kind, make in ((UniformSplit, UNICON), (Split, DivideMix)):
        verdict(monkeypatch, kind, labelled)
        options = {"contrastive_weight": 0.0} if make is UNICON else {}
        task = make(network(), 4, 0, unlabelled_weight=9.0, rampup_epochs=1, optimizer=adam, **options)
        trainer(RandomState(2), epochs=2, limit_val_batches=0).fit(task, blobs())
        found.append(weights(task))
    assert torch.equal(*found)


def test_contrasts_the_views_of_unlabelled_images_only(blobs, network, monkeypatch):
    verdict(monkeypatch, UniformSplit, None)
    task = UNICON(network(), 4, 0, contrastive_weight=0.5)
    views = torch.randn(7, 2, 3, 4, 4)
    labelled = torch.tensor([1, 0, 0, 1, 0, 1, 1]).bool()
    for k, each in enumerate((task.model, task.peer)):
        features = [each[:-1](views[~labelled, v]) for v in range(2)]
        expected = 0.5 * task.contrastive[k](*features)
        torch.testing.assert_close(task.further_loss(k, views, labelled), expected)
        assert task.further_loss(k, views, torch.ones(7).bool()).item() == 0
        assert task.further_loss(k, views[:1], labelled[:1]).item() == 0


def test_four_views_are_two_to_guess_from_and_two_to_learn_from(blobs, network):
    task, views = UNICON(network(), 4), torch.randn(3, 5, 3, 4, 4)
    assert [part.shape[1] for part in task.divide_views(views)] == [2, 3]
    assert torch.equal(torch.cat(task.divide_views(views), 1), views)
    assert all(torch.equal(part, views[:, :3]) for part in task.divide_views(views[:, :3]))
    data = blobs()
    data.train_transform = MultiView([data.train_transform] * 4)
    trainer(limit_val_batches=0).fit(UNICON(network(), 4, 0), data)


def test_an_epoch_costs_the_passes_of_the_method_and_no_more(blobs, network, monkeypatch):
    verdict(monkeypatch, UniformSplit, None)
    images = {True: 0, False: 0}

    def count(layer, inputs, output):
        images[torch.is_grad_enabled()] += len(inputs[0])

    task = UNICON(network(), 4, 0)
    task.model.register_forward_hook(count)
    trainer(limit_val_batches=0).fit(task, blobs())
    assert images == {True: 2 * 128 + 2 * 64, False: 2 * 128}  # the pass to select is left out here


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_small_batches_all_or_none_of_them_labelled(labelled, batch_size, blobs, network, monkeypatch):
    verdict(monkeypatch, UniformSplit, labelled)
    task = UNICON(network(), 4, 0, rampup_epochs=0)
    trainer(limit_val_batches=0).fit(task, blobs((3, 2, 1, 1), batch_size=batch_size, drop_last=False))
    assert weights(task).isfinite().all()


def test_soft_labels_and_bfloat16_train_all_networks(blobs, network):
    class Soft(blobs):
        def load(self, split):
            dataset = super().load(split)
            soft = 0.8 * F.one_hot(dataset.targets, 4) + 0.05
            return type(dataset)(dataset.images, soft, dataset.ids)

    task = UNICON(network(), 4, 0, rampup_epochs=0, optimizer=adam)
    before = [p.detach().clone() for p in task.parameters()]
    trainer(precision="bf16-mixed").fit(task, Soft())
    assert all(p.isfinite().all() for p in task.parameters())
    assert not any(torch.equal(p, old) for p, old in zip(task.parameters(), before, strict=True))


def noisy_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 4)
    )


@pytest.mark.parametrize(
    "saves", [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 3}], ids=["epoch", "validation", "inside"]
)
def test_resumed_is_uninterrupted(saves, tmp_path, blobs):
    def fit(epochs, *callbacks, path=None):
        task = UNICON(noisy_network(), 4, 1, rampup_epochs=2, optimizer=adam)
        torch.manual_seed(99 if path else 0)
        run = trainer(RandomState(7), *callbacks, epochs=epochs, enable_checkpointing=bool(callbacks))
        run.fit(task, blobs(wrong=0.4), ckpt_path=path, weights_only=True)
        return task

    fit(2, ModelCheckpoint(tmp_path, save_last=True, **saves))
    resumed, whole = fit(4, path=tmp_path / "last.ckpt"), fit(4)
    assert torch.equal(weights(resumed), weights(whole))
    torch.testing.assert_close(resumed.split.memory.fields, whole.split.memory.fields, rtol=0, atol=0)


def test_a_checkpoint_loads_without_pickled_code(tmp_path, blobs, network):
    run, task = trainer(), UNICON(network(), 4, peer=network(width=32), optimizer=adam)
    run.fit(task, blobs())
    run.save_checkpoint(tmp_path / "last.ckpt")
    loaded = UNICON.load_from_checkpoint(
        tmp_path / "last.ckpt", model=network(), peer=network(width=32), weights_only=True
    )
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(loaded.eval()(images), task.eval()(images))


def test_says_what_it_needs(network):
    with pytest.raises(UserError, match="UNICON compares samples by the input of the network's classifier"):
        UNICON(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), 4, head="fc")
    for wrong in ({"contrastive_weight": -1}, {"contrastive_temperature": 0}, {"high_divergence": 2}, {"alpha": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            UNICON(network(), 4, **wrong)
