import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from medbolt.noisy import SelfEnsembleLabelCorrection


def test_equals_the_formula_sample_by_sample(linear, module, random_data, fit):
    trained, callback, data = module(linear(), lr=0.5), SelfEnsembleLabelCorrection(1, momentum=0.6), random_data()
    fit(trained, data, callback, epochs=3)
    y = data.columns["target"]
    targets = one_hot(y, 3).double()
    for number, ((logits, index), loss) in enumerate(zip(trained.seen, trained.losses, strict=True)):
        losses = []
        for z, i in zip(logits.double(), index.tolist(), strict=True):
            if number >= 3:  # batches of an epoch
                targets[i] = 0.6 * targets[i] + 0.4 * z.exp() / z.exp().sum()
            losses.append(-(targets[i] * (z - z.exp().sum().log())).sum())
        torch.testing.assert_close(loss.double(), torch.stack(losses).mean())
    torch.testing.assert_close(callback.memory["target"].double(), targets)


def test_with_momentum_one_the_labels_stay(linear, module, random_data, fit):
    plain, corrected = module(linear()), module(linear())
    fit(plain, random_data(), epochs=2)
    fit(corrected, random_data(), SelfEnsembleLabelCorrection(0, momentum=1.0), epochs=2)
    torch.testing.assert_close(corrected.losses, plain.losses)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(SelfEnsembleLabelCorrection(2)) > cross_entropy_accuracy + 0.1


def test_one_logit_tells_two_classes(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            logits = self.model(batch["image"])
            self.seen.append((logits.detach(), batch["index"]))
            loss = self.criterion(logits, batch["target"][:, None].float())
            self.losses.append(loss.detach())
            return loss

    trained = Binary(linear(1), nn.BCEWithLogitsLoss())
    data = random_data(4, target=torch.tensor([0, 1, 1, 0]), num_classes=2)
    fit(trained, data, SelfEnsembleLabelCorrection(0))
    logits, index = trained.seen[0]
    p = logits.sigmoid()
    target = 0.9 * data.columns["target"][index][:, None] + 0.1 * p
    torch.testing.assert_close(trained.losses[0], nn.functional.binary_cross_entropy(p, target))


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(), SelfEnsembleLabelCorrection(0, criterion="functional"), epochs=2)
    fit(second, random_data(), SelfEnsembleLabelCorrection(0), epochs=2)
    torch.testing.assert_close(first.losses, second.losses)


def test_gradient_is_finite_under_bfloat16_a_batch_of_one_and_soft_targets(linear, module, random_data, fit):
    for options, data in (
        ({"precision": "bf16-mixed"}, random_data()),
        ({}, random_data(1)),
        ({}, random_data(image=torch.full((10, 5), 1e4))),
        ({}, random_data(target=torch.full((10, 3), 1 / 3))),
    ):
        trained = module(linear())
        fit(trained, data, SelfEnsembleLabelCorrection(0), epochs=2, **options)
        assert all(p.isfinite().all() for p in trained.parameters())


def test_soft_targets_begin_as_they_are(linear, module, random_data, fit):
    soft = torch.rand(4, 3).softmax(1)
    trained = module(linear())
    fit(trained, random_data(4, target=soft), SelfEnsembleLabelCorrection(0, momentum=1.0))
    logits, index = trained.seen[0]
    torch.testing.assert_close(trained.losses[0], cross_entropy(logits, soft[index]))


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="start_epoch must not be negative"):
        SelfEnsembleLabelCorrection(-1)
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\]"):
        SelfEnsembleLabelCorrection(1, momentum=2)
