import torch
from lightning.pytorch import LightningDataModule

from medbolt.core import ImageDataModule, ImageDataset, UserError
from medbolt.core.report.card import data_card


class Data(ImageDataModule):
    class_names = ("healthy", "ill")  # pyright: ignore[reportAssignmentType]

    def load(self, split):
        if split == "val":
            raise UserError("there is no validation split")
        first, targets = {"train": (0, [0, 0, 1, 1]), "test": (3, [1, 0, 0])}[split]
        ids = [f"img{first + i}" for i in range(len(targets))]
        groups = [f"patient{(first + i) // 2}" for i in range(len(targets))]
        images = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * len(targets)
        return ImageDataset(images, torch.tensor(targets), ids, groups)


def test_counts_groups_and_leakage_come_from_the_splits():
    card = data_card(Data())
    assert card.counts == {"train": [2, 2], "test": [2, 1]}
    assert card.total("test") == 3
    assert card.groups == {"train": 2, "test": 2}
    assert card.shared_ids == 1  # img3
    assert card.shared_groups == 1  # patient1


def test_labels_are_counted_one_by_one():
    class Findings(Data):
        def load(self, split):
            images = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * 2
            return ImageDataset(images, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), [f"{split}0", f"{split}1"])

    card = data_card(Findings())
    assert card.counts["test"] == [1, 2]
    assert card.groups == {}
    assert (card.shared_ids, card.shared_groups) == (0, 0)


def test_a_foreign_data_module_tells_what_it_knows():
    class Foreign(LightningDataModule):
        class_names = ("a", "b")
        class_counts = torch.tensor([3, 4])

    assert data_card(Foreign()).counts == {"train": [3, 4]}
    assert data_card(LightningDataModule()) is None
    assert data_card(None) is None
