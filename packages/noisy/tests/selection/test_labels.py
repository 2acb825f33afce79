import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule
from toys import ToyImages

from medbolt.noisy.selection.labels import of_each_class, training_labels


def test_counts_the_chosen_samples_of_each_class():
    chosen = torch.tensor([True, False, True, True])
    assert of_each_class(chosen, torch.tensor([2, 0, 0, 2]), 3).tolist() == [1, 0, 2]


def test_data_modules_of_others_and_soft_labels_tell_no_labels():
    class Soft(ToyImages):
        def load(self, split):
            from dataclasses import replace

            dataset = super().load(split)
            return replace(dataset, targets=torch.nn.functional.one_hot(dataset.targets).float())

    assert training_labels(None) is None
    assert training_labels(BoringDataModule()) is None
    assert training_labels(Soft()) is None
    assert training_labels(ToyImages()).clean is None
