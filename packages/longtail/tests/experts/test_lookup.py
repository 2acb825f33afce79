import pytest
import torch
from torch import nn
from toys import trainer

from medbolt.core import ClassificationTask, ObjectiveCallback, UserError
from medbolt.longtail import DiverseExperts, ExpertsClassifier, SkilledExperts
from medbolt.longtail.experts.lookup import expert_logits, find_experts


class Looks(ObjectiveCallback):
    """Keeps what the experts said of each batch."""

    def __init__(self):
        super().__init__(features="model.experts")
        self.seen = []

    def objective(self, step):
        self.seen.append(expert_logits(step))
        return step.loss()


def test_experts_are_found_and_counted(kept, small):
    module = kept(network=ExpertsClassifier(small(), 2, ["body"]))
    assert find_experts(module, "model", Looks()) is module.model
    assert find_experts(module, "model", Looks(), 2) is module.model
    with pytest.raises(UserError, match="Looks trains 3 experts, but 'model' of Kept has 2; make it one of 3"):
        find_experts(module, "model", Looks(), 3)
    with pytest.raises(UserError, match=r"'model' of Kept is a Small; put AddExperts\(2\) before Looks"):
        find_experts(kept(), "model", Looks(), 2)
    with pytest.raises(UserError, match="Kept has no network 'net'"):
        find_experts(module, "net", Looks())


def test_what_the_experts_said_has_gradients_and_the_mean_of_the_logits(kept, add, overlapping):
    module, looks = kept(), Looks()
    trainer(add(), looks).fit(module, datamodule=overlapping())
    assert len(looks.seen) == len(module.logits) == 7
    for experts, logits in zip(looks.seen, module.logits, strict=True):
        assert experts.requires_grad
        torch.testing.assert_close(experts.mean(0), logits)


def test_other_images_than_the_criterion_s_are_refused(kept, add, overlapping):
    class Half(kept):
        def training_step(self, batch, batch_idx):
            logits = self.model(batch["image"])
            self.model(batch["image"][:5])
            return self.criterion(logits, batch["target"])

    with pytest.raises(UserError, match="given 5 images last, but the criterion of Half got 32 targets"):
        trainer(add(), Looks()).fit(Half(), datamodule=overlapping())


@pytest.mark.parametrize("method", [DiverseExperts, SkilledExperts])
def test_one_output_for_two_classes_is_refused(small, add, overlapping, method):
    class Two(overlapping):
        class_names = ["common", "other"]

        def load(self, split):
            dataset = super().load(split)
            dataset.targets.clamp_(max=1)
            return dataset

    network = small()
    network.head = nn.Linear(8, 1)
    with pytest.raises(UserError, match=f"{method.__name__} compares classes, but the network has one output; .* two"):
        trainer(add(), method()).fit(ClassificationTask(network, 2, task="binary"), datamodule=Two())
