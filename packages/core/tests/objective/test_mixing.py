import pytest
import torch
import torch.nn.functional as F

from medbolt.core import Mix, MixedInputs, ObjectiveCallback, RandomState, UserError


class Fixed(MixedInputs):
    """Mixes the four samples of each batch as told; targets by other weights than images."""

    partner, image_weight, target_weight = [2, 0, 3, 3], [0.9, 0.3, 0.5, 1.0], [1.0, 0.2, 0.5, 0.7]

    def draw(self, size, target, device):
        self.told = target
        return Mix(torch.tensor(self.partner), torch.tensor(self.image_weight), torch.tensor(self.target_weight))


class Random(MixedInputs):
    def draw(self, size, target, device):
        weight = torch.rand(size)
        return Mix(torch.randperm(size), weight, weight)


class Watcher(ObjectiveCallback):
    """Keeps what a step shows; changes nothing."""

    def objective(self, step):
        self.inputs, self.logits, self.batch = step.inputs[0], step.logits.detach(), step.batch
        return step.loss()


def mixed(x, callback):
    rows = zip(x, callback.partner, callback.image_weight, strict=True)
    return torch.stack([weight * row + (1 - weight) * x[partner] for row, partner, weight in rows])


@pytest.fixture
def one_batch(fitted, data):
    """Train on one batch of four."""
    return lambda make, *callbacks, **options: fitted(make, data(4), *callbacks, limit_val_batches=0, **options)


def test_the_base_class_changes_nothing(classifier, data, fitted):
    plain, same = fitted(classifier, data(), epochs=2), fitted(classifier, data(), MixedInputs(), epochs=2)
    torch.testing.assert_close(same.losses, plain.losses)


def test_the_loss_is_the_two_targets_weighted_sample_by_sample(classifier, one_batch):
    callback, watcher, start = Fixed(), Watcher(), {}

    class Kept(classifier):
        def on_train_start(self):
            start.update({name: value.clone() for name, value in self.state_dict().items()})

    module = one_batch(Kept, callback, watcher)
    x, y = watcher.batch
    fresh = classifier()
    fresh.load_state_dict(start)
    logits = fresh.model(mixed(x, callback))
    losses = [
        weight * float(F.cross_entropy(logits[i], y[i])) + (1 - weight) * float(F.cross_entropy(logits[i], y[partner]))
        for i, (partner, weight) in enumerate(zip(callback.partner, callback.target_weight, strict=True))
    ]
    assert module.losses == [pytest.approx(sum(losses) / 4, rel=1e-5)]


@pytest.mark.parametrize("order", [1, -1], ids=["inside", "outside"])
def test_the_step_of_any_callback_shows_the_mixtures(classifier, one_batch, order):
    callback, watcher = Fixed(), Watcher()
    one_batch(classifier, *[callback, watcher][::order])
    torch.testing.assert_close(watcher.inputs, mixed(watcher.batch[0], callback))


def test_mixtures_of_mixtures_keep_images_and_targets_together(classifier, one_batch):
    class First(Fixed):
        image_weight = target_weight = [0.25] * 4

    class Second(Fixed):
        image_weight = target_weight = [0.6] * 4
        partner = [1, 1, 3, 0]

    class Linear(classifier):
        """Predicts the target itself: the loss is 0 if targets are mixed as the images are."""

        def __init__(self):
            super().__init__(lambda prediction, y: y.float() - prediction[:, 0])
            self.model = torch.nn.Identity()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            y = batch[1]
            self.value = self.criterion(self.model(y[:, None].float()), y)
            return self.value.mean() + self.unused

    module = one_batch(Linear, First(), Second())
    torch.testing.assert_close(module.value, torch.zeros(4))


def test_validation_is_not_mixed(classifier, data, fitted):
    module = fitted(classifier, data(4), Fixed())
    x, y = next(iter(data(4).val_dataloader()))
    assert module.val_losses[-1] == pytest.approx(float(module.criterion(module.model(x), y)))


def test_two_views_one_after_the_other_are_mixed_alike(classifier, one_batch):
    class TwoViews(classifier):
        def training_step(self, batch, batch_idx):
            x, y = batch
            self.seen, loss = [], 0
            handle = self.model.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0]))
            for view in (x, -x):
                loss = loss + self.criterion(self.model(view), y)
            handle.remove()
            return loss

    module = one_batch(TwoViews, Random())
    assert torch.equal(module.seen[1], -module.seen[0])


def test_calls_without_gradient_and_by_objectives_are_left_alone(classifier, one_batch):
    class Calls(classifier):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                assert torch.equal(self.model(batch[0]), self.model.forward(batch[0]))
            return super().training_step(batch, batch_idx)

    class Again(ObjectiveCallback):
        def objective(self, step):
            x = step.batch[0]
            assert torch.equal(step.module.model(x), step.module.model.forward(x))
            assert not torch.allclose(step.logits, step.module.model.forward(x))
            return step.loss()

    one_batch(Calls, Fixed(), Again())


def test_a_batch_of_another_size_than_the_images_is_refused(classifier, one_batch):
    class Half(classifier):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self.model(x)[:2], y[:2])

    with pytest.raises(UserError, match=r"Fixed mixed no 2 images for the 2 targets .* 'model' of Half"):
        one_batch(Half, Fixed())


def test_the_targets_are_given_to_who_asks(classifier, one_batch):
    class Asks(Fixed):
        needs_target = True

    asks, watcher = Asks(), Watcher()
    one_batch(classifier, asks, watcher)
    assert torch.equal(asks.told, watcher.batch[1])
    modest = Fixed()
    one_batch(classifier, modest)
    assert modest.told is None


def test_targets_that_the_batch_does_not_tell_are_asked_for(classifier, one_batch):
    class Asks(Fixed):
        needs_target = True

    class Dicts(classifier):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return {"x": batch[0], "y": batch[1]}

        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["x"]), batch["y"])

    with pytest.raises(UserError, match="Asks needs the targets of the 4 images .* 'target' key"):
        one_batch(Dicts, Asks())


def test_a_network_that_does_not_exist_is_named(classifier, one_batch):
    with pytest.raises(UserError, match="Classifier has no network 'net' .* it has 'model', 'criterion'"):
        one_batch(classifier, Fixed(network="net"))


def test_the_module_itself_may_be_the_network(classifier, one_batch):
    class Forward(classifier):
        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, batch_idx):
            return self.criterion(self(batch[0]), batch[1])

    callback, watcher = Fixed(network="self"), Watcher(network="self")
    one_batch(Forward, callback, watcher)
    torch.testing.assert_close(watcher.inputs, mixed(watcher.batch[0], callback))


def test_images_of_integers_are_refused(classifier, one_batch):
    class Bytes(classifier):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch[0].to(torch.uint8)), batch[1])

    with pytest.raises(UserError, match="'model' was given torch.uint8; convert them to float"):
        one_batch(Bytes, Fixed())


def test_the_network_is_as_before_after_fit_and_after_an_exception(classifier, data, fitted):
    class Fails(Random):
        def objective(self, step):
            raise RuntimeError("boom")

    module = fitted(classifier, data(), Random())
    assert not module.model._forward_pre_hooks
    with pytest.raises(RuntimeError, match="boom"):
        fitted(lambda: module, data(), Fails())
    assert not module.model._forward_pre_hooks


def test_the_same_seed_mixes_the_same(classifier, data, fitted):
    first, second, other = (fitted(classifier, data(), Random(), RandomState(seed)) for seed in (3, 3, 4))
    assert first.losses == second.losses != other.losses


def test_gradient_is_finite_under_bfloat16_and_for_a_batch_of_one(classifier, data, fitted):
    for size, precision in ((12, "bf16-mixed"), (1, "32-true")):
        module = fitted(classifier, data(size), Random(), precision=precision)
        assert all(p.isfinite().all() for p in module.parameters())
