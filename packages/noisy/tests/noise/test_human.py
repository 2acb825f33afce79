import warnings

import numpy as np
import pytest
import torch

from medbolt.core.errors import UserError
from medbolt.noisy.noise.human import HumanNoise
from medbolt.noisy.noise.report import noise_report

CSV = "image,ann,bob,cem\na,mel,nv,nv\nb,nv,,mel\nc,,bkl,-1\n"
NAMES = ["bkl", "mel", "nv"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reads.csv"
    path.write_text(CSV)
    return path


def votes(table, choice, names="abc", targets=(1, 2, 0), seeds=range(1)):
    noise = HumanNoise(table, ["ann", "bob", "cem"], id="image", choice=choice, class_names=NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [noise(torch.tensor(targets), 3, seed, list(names)).tolist() for seed in seeds]


def test_the_first_rater_who_labelled_a_sample_counts(table):
    assert votes(table, "first") == [[1, 2, 0]]
    assert votes(table, "first", "ca", (0, 1)) == [[0, 1]]


def test_the_majority_counts_and_ties_are_drawn(table):
    drawn = votes(table, "majority", seeds=range(40))
    assert {labels[0] for labels in drawn} == {2}
    assert {labels[1] for labels in drawn} == {1, 2}
    assert {labels[2] for labels in drawn} == {0}


def test_a_random_rater_is_as_frequent_as_the_others(table):
    drawn = votes(table, "random", seeds=range(400))
    assert np.mean([labels[0] == 2 for labels in drawn]) == pytest.approx(2 / 3, abs=0.08)


def test_arrays_are_numbered_by_row_or_named(tmp_path):
    path = tmp_path / "labels.npz"
    np.savez(path, ann=np.array([[0], [1], [1]], dtype=np.uint8), names=np.array(["x", "y", "z"]))
    assert HumanNoise(path, ["ann"])(torch.tensor([1]), 2, ids=["2"]).tolist() == [1]
    assert HumanNoise(path, ["ann"], id="names")(torch.tensor([0]), 2, ids=["x"]).tolist() == [0]


@pytest.mark.parametrize(
    ("options", "names", "message"),
    [
        ({"raters": ["anna"]}, "a", "no column 'anna' .did you mean 'ann'"),
        ({}, "ax", "no labels of sample 'x'"),
        ({"raters": ["ann"]}, "c", "no rater of reads.csv labelled sample 'c'"),
        ({"class_names": ["mel", "bkl"]}, "a", "rater 'bob' of reads.csv gave the unknown label 'nv'"),
    ],
)
def test_names_what_is_wrong(table, options, names, message):
    noise = HumanNoise(table, **{"raters": ["ann", "bob"], "id": "image", "class_names": NAMES, **options})
    with pytest.raises(UserError, match=message):
        noise(torch.zeros(len(names), dtype=torch.int64), 3, ids=list(names))


def test_a_repeated_id_is_named(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("image,label\na,0\nb,1\na,1\n")
    with pytest.raises(
        UserError, match="several rows with the image 'a'; make one row a sample, with a column a rater"
    ):
        HumanNoise(path, ["label"], id="image")(torch.tensor([0, 1]), 2, ids=["a", "b"])


def test_class_indices_may_be_floats_with_gaps(tmp_path):
    text, arrays = tmp_path / "reads.csv", tmp_path / "reads.npz"
    text.write_text("ann,bob\n0.0,1.0\n,2.0\n-1.0,0\n")
    np.savez(arrays, ann=[0.0, np.nan, -1.0], bob=[1.0, 2.0, 0.0])
    for path in (text, arrays):
        noise = HumanNoise(path, ["ann", "bob"], choice="first")
        assert noise(torch.tensor([0, 2, 0]), 3).tolist() == [0, 2, 0]
    text.write_text("ann\n0.5\n")
    with pytest.raises(UserError, match=r"unknown label '0.5'"):
        HumanNoise(text, ["ann"])(torch.tensor([0]), 3)


def test_a_named_class_that_the_data_do_not_have_is_refused(tmp_path):
    path = tmp_path / "reads.csv"
    path.write_text("ann\nmel\nnv\n")
    noise = HumanNoise(path, ["ann"], class_names=NAMES)
    assert noise(torch.tensor([1]), 2, ids=["0"]).tolist() == [1]
    with pytest.raises(UserError, match="unknown label 'nv'; the classes are 'bkl', 'mel'"):
        noise(torch.tensor([1, 0]), 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ann": np.zeros((2, 3), dtype=int), "bob": np.zeros(2, dtype=int)}, r"array 'ann' .* has shape \(2, 3\)"),
        ({"ann": np.zeros(2, dtype=int), "bob": np.zeros(1, dtype=int)}, "array 'bob' .* as many rows as 'ann'"),
        ({"ann": np.array([0, None]), "bob": np.zeros(2, dtype=int)}, "array 'ann' .* holds pickled Python objects"),
        ({"ann": np.zeros(2, dtype=int)}, "has no array 'bob'"),
        (None, "no readable npz file"),
    ],
)
def test_arrays_that_do_not_serve_are_named(tmp_path, arrays, message):
    path = tmp_path / "reads.npz"
    path.write_text("ann,bob\n") if arrays is None else np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        HumanNoise(path, ["ann", "bob"])(torch.tensor([0, 1]), 2)


def test_refuses_arguments_that_make_no_sense(table):
    with pytest.raises(ValueError, match="choice"):
        HumanNoise(table, ["ann"], choice="last")
    with pytest.raises(ValueError, match="raters"):
        HumanNoise(table, [])


@pytest.mark.data
@pytest.mark.parametrize(
    ("rater", "clean", "percent"),
    [
        ("c10_aggre_label", "c10_clean_label", 9.01),
        ("c10_random_label1", "c10_clean_label", 17.23),
        ("c10_random_label2", "c10_clean_label", 18.12),
        ("c10_random_label3", "c10_clean_label", 17.64),
        ("c10_worse_label", "c10_clean_label", 40.21),
        ("c100_noisy_label", "c100_clean_label", 40.20),
        ("c100_noisy_coarse_label", "c100_clean_coarse_label", 26.40),
    ],
)
@pytest.mark.filterwarnings("ignore:HumanNoise labels")
def test_cifar_n_has_its_published_rates(shared_data, rater, clean, percent):
    path = shared_data / "cifar_n/cifar_n_labels.npz"
    targets = torch.from_numpy(np.load(path)[clean].astype(np.int64))
    classes = int(targets.max()) + 1
    report = noise_report(targets, HumanNoise(path, [rater])(targets, classes), classes)
    assert 100 * report.rate == pytest.approx(percent, abs=0.006)


@pytest.mark.data
def test_the_majority_of_three_raters_is_the_published_aggregate(shared_data):
    path, raters = shared_data / "cifar_n/cifar_n_labels.npz", [f"c10_random_label{i}" for i in (1, 2, 3)]
    arrays = np.load(path)
    targets = torch.from_numpy(arrays["c10_clean_label"].astype(np.int64))
    noisy = HumanNoise(path, raters, choice="majority")(targets, 10)
    first, second, third = (arrays[name] for name in raters)
    agreed = (
        (first == second) | (first == third) | (second == third)
    )  # else one of the three is drawn, by us as by them
    assert (noisy.numpy() == arrays["c10_aggre_label"])[agreed].all()
    assert 100 * noise_report(targets, noisy, 10).rate == pytest.approx(9.01, abs=0.3)
