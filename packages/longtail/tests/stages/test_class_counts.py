import pytest
from lightning.pytorch import LightningDataModule
from torch import nn
from toys import ToyClassifier, ToyImages, trainer

from medbolt.core import UserError
from medbolt.longtail import BalancedSoftmaxLoss, ClassCounts, EqualizationLoss, LongTailed


class Combined(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = BalancedSoftmaxLoss()

    def forward(self, logits, target):
        return 2 * self.inner(logits, target)


def test_a_foreign_module_s_loss_is_told_what_is_given(foreign, foreign_loader):
    module, known = foreign(BalancedSoftmaxLoss()), foreign(BalancedSoftmaxLoss(class_counts=[9, 3, 1]))
    trainer(ClassCounts([9, 3, 1], criterion="loss_fn")).fit(module, foreign_loader)
    trainer().fit(known, foreign_loader)
    assert module.losses == known.losses


def test_or_what_the_data_module_says_however_deep_the_loss():
    module = ToyClassifier()
    module.criterion = Combined()
    trainer(ClassCounts()).fit(module, datamodule=ToyImages({"train": 25}))
    assert module.criterion.inner.class_counts.tolist() == [9, 8, 8]


@pytest.mark.parametrize(
    ("options", "data", "expected"),
    [
        ({}, ToyImages({"train": 24}), 24),
        ({}, LongTailed(ToyImages({"train": 24}), ratio=4), 14),  # 8, 4 and 2 of a base set of 24
        ({"num_samples": 50}, ToyImages({"train": 24}), 50),
        ({"class_counts": [9, 8, 8]}, ToyImages({"train": 24}), None),  # which may be of other data
        ({"class_counts": [9, 8, 8], "num_samples": 20}, ToyImages({"train": 24}), 20),
    ],
)
def test_the_number_of_samples_goes_with_the_counts(options, data, expected):
    module = ToyClassifier()
    module.criterion = EqualizationLoss()
    trainer(ClassCounts(**options)).fit(module, datamodule=data)
    assert module.criterion.num_samples == expected


def test_a_test_may_lack_the_training_data():
    class TestOnly(LightningDataModule):
        def test_dataloader(self):
            return ToyImages().test_dataloader()

    module = ToyClassifier()
    module.criterion = BalancedSoftmaxLoss()
    trainer(ClassCounts()).test(module, datamodule=TestOnly(), verbose=False)
    assert module.criterion.class_counts is None
    with pytest.raises(UserError, match="ClassCounts needs to know how many training samples"):
        trainer(ClassCounts()).fit(module, ToyImages().train_dataloader())


@pytest.mark.parametrize("name", ["criterion", "loss_fn", "fc"])
def test_a_criterion_that_does_not_ask_is_named(foreign, foreign_loader, name):
    with pytest.raises(UserError, match=f"'{name}' of Foreign asks for no class counts .nothing else does.; name"):
        trainer(ClassCounts([1, 1, 1], criterion=name)).fit(foreign(), foreign_loader)


def test_the_one_that_does_is_suggested(foreign, foreign_loader):
    with pytest.raises(UserError, match="'criterion' of Foreign asks for no class counts .'BalancedSoftmaxLoss' does."):
        trainer(ClassCounts([1, 1, 1])).fit(foreign(BalancedSoftmaxLoss()), foreign_loader)
