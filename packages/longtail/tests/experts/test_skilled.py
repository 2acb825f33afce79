import pytest
import torch
import torch.nn.functional as F
from toys import trainer

from medbolt.core import ObjectiveCallback, RandomState, UserError
from medbolt.longtail import ExpertsClassifier, LogitAdjustedLoss, Remix, SkilledExperts
from medbolt.longtail.experts.skilled import log_inverse

COUNTS = [200, 20, 4]


class Kept(SkilledExperts):
    """Keeps what the experts said, targets and losses."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def objective(self, step):
        losses = super().objective(step)
        self.seen.append((step.features.detach(), step.target, losses.detach()))
        return losses


def fitted(module, data, add, **options):
    callback = Kept(**options)
    trainer(add(), callback, limit_val_batches=0).fit(module, datamodule=data)
    assert len(callback.seen) == 7
    return callback.seen


def test_the_loss_is_the_formula(kept, add, overlapping):
    tau, inverse = 1.5, [4, 20, 200]
    for experts, target, losses in fitted(kept(), overlapping(), add, tau=tau):
        for i, y in enumerate(target):
            total = 0.0
            for k, z in enumerate(experts[:, i].double()):
                prior = torch.tensor(COUNTS, dtype=torch.float64) / 224
                scores = z.exp() * (1 if k == 0 else prior)
                if k == 2:
                    scores = scores / (torch.tensor(inverse, dtype=torch.float64) / 224) ** tau
                total -= float((scores[y] / scores.sum()).log())
            assert float(losses[i]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_experts_of_an_exponential_tail_are_logit_adjusted(kept, add, overlapping, tau):
    counts = [100, 10, 1]
    criteria = [LogitAdjustedLoss(strength, counts, "none") for strength in (0.0, 1.0, 1 + tau)]
    for experts, target, losses in fitted(kept(), overlapping(), add, tau=tau, class_counts=counts):
        expected = sum(criterion(own, target) for criterion, own in zip(criteria, experts, strict=True))
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_with_equal_classes_all_experts_are_plain(kept, add, overlapping):
    for experts, target, losses in fitted(kept(), overlapping(), add, class_counts=[5, 5, 5]):
        expected = sum(F.cross_entropy(own, target, reduction="none") for own in experts)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_inverse_frequencies_follow_the_classes_and_ties_are_fair():
    counts = torch.tensor([7.0, 90.0, 0.0, 7.0, 1.0])
    order = torch.tensor([3, 0, 4, 2, 1])
    found = log_inverse(counts)
    torch.testing.assert_close(log_inverse(counts[order]), found[order])
    assert found[0] == found[3]
    assert found[2] == found[4]  # an empty class counts as one sample
    assert found[1] < found[0] < found[2]
    torch.testing.assert_close(found[1], (torch.tensor(1 / 106)).log())


def test_each_expert_has_its_skill_and_together_they_find_the_tail(task, add, overlapping):
    plain, module = task(), task()
    runs = [
        trainer(RandomState(), *callbacks, epochs=8, limit_val_batches=0)
        for callbacks in ((), (add(), SkilledExperts(1.0)))
    ]
    found = []
    for run, one in zip(runs, (plain, module), strict=True):
        run.fit(one, datamodule=overlapping())
        found.append(run.test(one, datamodule=overlapping(), verbose=False)[0])
    assert found[1]["test/recall/rare"] > found[0]["test/recall/rare"] + 0.3
    assert found[1]["test/balanced_accuracy"] > found[0]["test/balanced_accuracy"] + 0.1
    (batch,) = overlapping(180).test_dataloader()
    experts, target = module.model.eval().each(batch["image"]), batch["target"]
    common, rare = ([float((own.argmax(1) == c)[target == c].float().mean()) for own in experts] for c in (0, 2))
    assert common[0] > common[1] > common[2]
    assert rare[0] < rare[1] < rare[2]


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"limit_train_batches": 5}, {"accumulate_grad_batches": 2}]
)
def test_bfloat16_batches_of_one_and_accumulation(kept, add, overlapping, small, options):
    network = small()
    network.stem[2] = network.body[2] = torch.nn.Identity()
    module = kept(0.01, network=network)
    batch_size = 1 if "limit_train_batches" in options else 32
    trainer(add(), SkilledExperts(class_counts=[200, 20, 0]), **options).fit(module, datamodule=overlapping(batch_size))
    assert all(p.isfinite().all() for p in module.parameters())


def test_soft_targets_and_mixtures(kept, add, overlapping):
    for experts, target, losses in fitted(kept(), overlapping(soft=True), add, tau=0.0, class_counts=[5, 5, 5]):
        expected = sum(F.cross_entropy(own, target, reduction="none") for own in experts)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    module, mixed = kept(0.1), Kept()
    trainer(add(), mixed, Remix()).fit(module, datamodule=overlapping())
    assert len(mixed.seen) == 14  # asked once for each label of the mixtures
    assert all(p.isfinite().all() for p in module.parameters())


def test_other_objectives_stand_outside(kept, add, overlapping):
    class Doubled(ObjectiveCallback):
        def objective(self, step):
            return 2 * step.loss()

    one, two = kept(), kept()
    trainer(RandomState(), add(), SkilledExperts()).fit(one, datamodule=overlapping())
    trainer(RandomState(), add(), SkilledExperts(), Doubled()).fit(two, datamodule=overlapping())
    assert two.losses == pytest.approx([2 * loss for loss in one.losses], rel=1e-5)


def test_mistakes_are_named(kept, add, overlapping, small):
    with pytest.raises(UserError, match="SkilledExperts trains 3 experts, but 'model' of Kept has 2"):
        trainer(add(2), SkilledExperts()).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="SkilledExperts has 2 class_counts but the network gives 3 logits"):
        trainer(add(), SkilledExperts(class_counts=[3, 4])).fit(kept(), datamodule=overlapping())
    network = ExpertsClassifier(small(), 3, ["body"])
    with pytest.raises(UserError, match="SkilledExperts needs to know how many training samples"):
        trainer(SkilledExperts()).fit(kept(network=network), overlapping().train_dataloader())
    with pytest.raises(ValueError, match="tau must not be negative"):
        SkilledExperts(tau=-1.0)
