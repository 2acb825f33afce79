import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from medbolt.core import ObjectiveCallback, UserError
from medbolt.noisy import EarlyLearningRegularization, GeneralizedCrossEntropyLoss, MixUp


def remembered(seen, size, classes=3, momentum=0.7):
    """Return the targets after batches of (logits, index), by a loop over samples."""
    targets = [[0.0] * classes for _ in range(size)]
    for logits, index in seen:
        for z, i in zip(logits.double(), index.tolist(), strict=True):
            p = (z.exp() / z.exp().sum()).clamp(1e-4, 1 - 1e-4)
            p = p / p.sum()
            targets[i] = [momentum * old + (1 - momentum) * float(new) for old, new in zip(targets[i], p, strict=True)]
    return torch.tensor(targets)


def test_equals_the_formula_sample_by_sample(linear, module, random_data, fit):
    trained, callback, data = module(linear(), lr=0.5), EarlyLearningRegularization(weight=2.0), random_data()
    fit(trained, data, callback, epochs=3)
    torch.testing.assert_close(callback.memory["target"], remembered(trained.seen, 10))
    targets = remembered(trained.seen, 10)
    logits, index = trained.seen[-1]  # no sample of the last batch was seen after it
    losses = []
    for z, i in zip(logits, index, strict=True):
        p = z.softmax(0).clamp(1e-4, 1 - 1e-4)
        losses.append(cross_entropy(z, data.columns["target"][i]) + 2 * torch.log(1 - (targets[i] * p).sum()))
    torch.testing.assert_close(trained.losses[-1], torch.stack(losses).mean())


def test_the_gradient_is_that_of_constant_targets(linear, module, random_data, fit):
    class Keeps(ObjectiveCallback):
        def objective(self, step):
            step.logits.retain_grad()
            self.logits, self.target = step.logits, step.target
            return step.loss()

    kept, callback = Keeps(), EarlyLearningRegularization()
    fit(module(linear()), random_data(4), callback, kept)
    z = kept.logits.detach().requires_grad_()
    p = z.softmax(1)
    constant = 0.3 * p.detach()  # after the first visit
    (cross_entropy(z, kept.target) + 3 * torch.log(1 - (constant * p).sum(1)).mean()).backward()
    torch.testing.assert_close(kept.logits.grad, z.grad)


def test_without_weight_it_is_the_inner_loss(linear, module, random_data, fit):
    plain, regularized = module(linear()), module(linear())
    fit(plain, random_data(), epochs=2)
    fit(regularized, random_data(), EarlyLearningRegularization(weight=0), epochs=2)
    torch.testing.assert_close(regularized.losses, plain.losses)


def test_goes_with_any_criterion_and_over_mixup(linear, module, random_data, fit):
    for criterion in (GeneralizedCrossEntropyLoss(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))):
        trained, callback = module(linear(), criterion), EarlyLearningRegularization()
        fit(trained, random_data(), MixUp(), callback, epochs=2)
        torch.testing.assert_close(callback.memory["target"], remembered(trained.seen, 10))


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(EarlyLearningRegularization()) > cross_entropy_accuracy + 0.2


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(num_classes=None), EarlyLearningRegularization(num_classes=3, criterion="functional"))
    fit(second, random_data(), EarlyLearningRegularization())
    torch.testing.assert_close(first.losses, second.losses)


def test_one_logit_tells_two_classes(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            logits = self.model(batch["image"]).flatten()
            self.seen.append((torch.stack([-logits / 2, logits / 2], 1).detach(), batch["index"]))
            return self.criterion(logits, batch["target"].float())

    trained = Binary(linear(1), nn.BCEWithLogitsLoss())
    callback = EarlyLearningRegularization()
    fit(trained, random_data(target=torch.arange(10) % 2, num_classes=2), callback)
    torch.testing.assert_close(callback.memory["target"], remembered(trained.seen, 10, classes=2))


def test_gradient_is_finite_under_bfloat16_extreme_logits_and_soft_targets(linear, module, random_data, fit):
    for options, data in (
        ({"precision": "bf16-mixed"}, random_data()),
        ({}, random_data(1)),
        ({}, random_data(image=torch.full((10, 5), 1e4))),
        ({}, random_data(target=torch.full((10, 3), 1 / 3))),
    ):
        trained = module(linear())
        fit(trained, data, EarlyLearningRegularization(), epochs=2, **options)
        assert all(p.isfinite().all() for p in trained.parameters())


def test_says_what_it_needs(linear, module, random_data, fit):
    with pytest.raises(UserError, match="needs the number of classes, .* give it num_classes"):
        fit(module(linear()), random_data(num_classes=None), EarlyLearningRegularization())
    with pytest.raises(UserError, match=r"remembers 5 classes of each sample, .* shape \(4, 3\)"):
        fit(module(linear()), random_data(), EarlyLearningRegularization(num_classes=5))
    with pytest.raises(ValueError, match="weight must not be negative"):
        EarlyLearningRegularization(weight=-1)
