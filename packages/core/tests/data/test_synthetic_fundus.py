import pytest
import torch

from medbolt.core.data.prepare import prepare
from medbolt.core.data.synthetic_fundus import SyntheticFundusDataModule
from medbolt.core.errors import UserError
from medbolt.core.synthetic.fundus import SyntheticFundus


def small(**options) -> SyntheticFundusDataModule:
    return SyntheticFundusDataModule(**{"num_train": 9, "num_val": 5, "num_test": 6, "image_size": 32, **options})


def test_samples_are_those_of_the_data_set():
    data, fundus = small(seed=3, num_raters=2), SyntheticFundus(30, 32, seed=3, num_raters=2)
    for split, start in (("train", 0), ("val", 10), ("test", 16)):
        dataset = data.dataset(split)
        for row in (0, len(dataset) - 1):
            sample, expected = dataset[row], fundus[start + row]
            for key in ("image", "mask", "raters"):
                assert torch.equal(sample[key], expected[key])
            assert [int(sample["target"]), int(sample["domain"])] == [expected["target"], expected["domain"]]
            assert (sample["group"], sample["text"], sample["index"]) == (expected["group"], expected["text"], row)


@pytest.mark.parametrize("numbers", [{"num_train": 0}, {"num_val": -1}, {"num_test": -2}])
def test_numbers_of_samples_out_of_range_are_refused(numbers):
    with pytest.raises(UserError, match="num_train must be at least 1, num_val and num_test not negative, got"):
        small(**numbers)


def test_splits_have_different_patients():
    groups = [set(small().dataset(split).groups or ()) for split in ("train", "val", "test")]
    assert [len(names) for names in groups] == [5, 3, 3]
    assert len(set.union(*groups)) == 11


def test_counting_draws_nothing(monkeypatch):
    monkeypatch.setattr(SyntheticFundus, "__getitem__", lambda *_: pytest.fail("drew an image"))
    data = small(num_train=500, prevalence=[1, 1, 1, 1, 1])
    assert min(data.class_counts) > 70
    assert data.domain_names[0] == "tabletop"


def test_a_sample_is_drawn_once(monkeypatch):
    drawn = []
    draw = SyntheticFundus.__getitem__
    monkeypatch.setattr(SyntheticFundus, "__getitem__", lambda self, row: drawn.append(row) or draw(self, row))
    dataset = small().dataset("train")
    _ = dataset[3], dataset[4], dataset[3]
    assert drawn == [3, 4, 3]


def test_cameras_of_the_splits():
    data = small(train_domains=[0, 1], test_domains=[3])
    domains = {split: set(data.dataset(split).domains.tolist()) for split in ("train", "val", "test")}
    assert domains["train"] | domains["val"] == {0, 1}
    assert domains["test"] == {3}


def test_without_masks():
    assert "mask" not in small(masks=False).dataset("train")[0]


def test_what_is_drawn_can_be_changed():
    dataset = small().dataset("train")
    dataset[0]["image"].zero_()
    assert dataset[0]["image"].any()


def test_a_store_gives_the_same_and_fits_no_other_pictures(tmp_path):
    prepare(small(), tmp_path / "store", size=32, workers=2)
    drawn, stored = small(), small(store=tmp_path / "store")
    for key, value in stored.dataset("test")[2].items():
        assert torch.equal(value, drawn.dataset("test")[2][key]) if isinstance(value, torch.Tensor) else True
    for other in ({"seed": 1}, {"train_domains": [1]}, {"prevalence": [1, 1, 1, 1, 50]}, {"num_train": 20}):
        with pytest.raises(ValueError, match="the store .* lacks"):
            small(store=tmp_path / "store", **other).dataset("train")


def test_workers_draw_the_same():
    batches = [next(iter(small(num_workers=n, batch_size=9).train_dataloader())) for n in (0, 2)]
    assert torch.equal(batches[0]["image"], batches[1]["image"])
    assert torch.equal(batches[0]["mask"], batches[1]["mask"])
