import pytest
import torch

from medbolt.core import MedMNISTDataModule, UserError
from medbolt.core.data.subset import Subset
from medbolt.core.data.synthetic_fundus import SyntheticFundusDataModule
from medbolt.noisy.noise.human import HumanNoise
from medbolt.noisy.noise.instance_dependent import InstanceDependentNoise
from medbolt.noisy.noise.noisy_labels import NoisyLabels
from medbolt.noisy.noise.ordinal import OrdinalNoise
from medbolt.noisy.noise.symmetric import SymmetricNoise


@pytest.fixture
def fundus():
    return SyntheticFundusDataModule(200, 60, 60, image_size=32, masks=False)


def test_training_and_validation_labels_are_noisy_and_test_labels_clean(fundus):
    data = NoisyLabels(fundus, SymmetricNoise(0.4))
    for split in ("train", "val"):
        assert 0.2 < data.report(split).rate < 0.6
    assert data.report("test").rate == 0
    assert NoisyLabels(fundus, SymmetricNoise(0.4), splits=["train"]).report("val").rate == 0


def test_everything_tells_of_the_noisy_labels(fundus):
    data = NoisyLabels(fundus, SymmetricNoise(0.4))
    noisy = data.train_targets
    assert data.class_counts == torch.bincount(noisy, minlength=5).tolist() != fundus.class_counts
    assert data.fingerprint != fundus.fingerprint
    assert (data.clean_targets() == fundus.train_targets).all()


def test_no_batch_holds_the_clean_labels(fundus):
    plain, data = fundus, NoisyLabels(fundus, SymmetricNoise(0.4))
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == next(iter(plain.train_dataloader())).keys()
    assert (batch["target"] == data.train_targets[batch["index"]]).all()
    assert (batch["target"] != data.clean_targets()[batch["index"]]).any()


@pytest.mark.parametrize("noise", [SymmetricNoise(0.4), InstanceDependentNoise(0.4, grid=8)])
def test_a_sample_has_the_same_label_in_any_subset(fundus, noise):
    whole = NoisyLabels(fundus, noise, seed=3).dataset("train")
    for data in (
        NoisyLabels(Subset(fundus, fraction=0.3), noise, seed=3),
        Subset(NoisyLabels(fundus, noise, seed=3), fraction=0.3),
    ):
        part = data.dataset("train")
        assert (part.targets == whole.targets[part.rows]).all()


def test_another_seed_draws_other_labels(fundus):
    first, second, again = (NoisyLabels(fundus, SymmetricNoise(0.4), seed).train_targets for seed in (0, 1, 0))
    assert (first != second).any()
    assert (first == again).all()


def test_samples_of_a_group_are_mislabelled_alike(fundus):
    data = NoisyLabels(fundus, SymmetricNoise(0.4), by_group=True)
    fate = {}
    for group, clean, noisy in zip(
        data.dataset("train").groups, data.clean_targets().tolist(), data.train_targets.tolist(), strict=True
    ):
        assert fate.setdefault((group, clean), noisy) == noisy
    assert len(fate) < 200


@pytest.mark.filterwarnings("ignore:HumanNoise")
def test_raters_are_found_by_sample_also_where_groups_share_a_draw(fundus, tmp_path):
    ids, groups = fundus.dataset("train").ids, fundus.dataset("train").groups
    rows = [f"{name},healthy,severe" for name in ids]
    (tmp_path / "reads.csv").write_text("\n".join(["id,ann,bob", *rows]) + "\n")
    raters = HumanNoise(tmp_path / "reads.csv", ["ann", "bob"], id="id", class_names=["healthy", *"bcd", "severe"])
    fate = {}
    for group, label in zip(groups, NoisyLabels(fundus, raters, by_group=True).train_targets.tolist(), strict=True):
        assert fate.setdefault(group, label) == label
    assert set(fate.values()) == {0, 4}


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:OrdinalNoise")
def test_real_grades_become_their_neighbours(shared_data):
    data = NoisyLabels(MedMNISTDataModule("retinamnist", shared_data / "medmnist"), OrdinalNoise(0.4))
    change = (data.train_targets - data.clean_targets()).abs()
    assert change.max() == 1
    assert data.report().rate == pytest.approx(0.4, abs=0.05)
    with pytest.raises(UserError, match="no groups"):
        NoisyLabels(data.data, OrdinalNoise(0.4), by_group=True).dataset("train")


def test_refuses_to_put_noise_into_the_test_split(fundus):
    with pytest.raises(ValueError, match="test"):
        NoisyLabels(fundus, SymmetricNoise(0.4), splits=["test"])
