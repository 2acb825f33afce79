import io

import pytest
import torch
from processes import run
from toys import trainer

from medbolt.core import SampleMemory, UserError

NAN = float("nan")


def memory(size=6, **fields):
    return SampleMemory(size, **(fields or {"loss": torch.tensor(NAN), "probability": torch.zeros(2)}))


def saved(state):
    """Write a state as a checkpoint does and read it back the way Lightning reads checkpoints."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_rows_start_as_given_and_unseen():
    fresh = memory(3, loss=torch.tensor(NAN), label=torch.tensor(-1), flags=torch.tensor([True, False]))
    assert len(fresh) == 3
    assert fresh["loss"].isnan().all()
    assert fresh["label"].tolist() == [-1] * 3
    assert fresh["flags"].tolist() == [[True, False]] * 3
    assert not fresh.seen.any()


def test_rows_do_not_share_memory_with_each_other_or_with_the_first():
    first = torch.zeros(2, requires_grad=True)
    rows = memory(3, probability=first)
    rows.write(torch.tensor([1]), probability=torch.ones(1, 2))
    assert rows["probability"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert first.tolist() == [0, 0]


def test_writing_and_reading_a_batch():
    rows = memory()
    index = torch.tensor([4, 0])
    rows.write(index, loss=torch.tensor([1.0, 2.0]), probability=torch.tensor([[0.1, 0.9], [0.6, 0.4]]))
    torch.testing.assert_close(rows.read(index, "loss"), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(rows["probability"][4], torch.tensor([0.1, 0.9]))
    assert rows.seen.tolist() == [True, False, False, False, True, False]
    assert rows["loss"][[1, 2, 3, 5]].isnan().all()


def test_a_field_may_be_written_alone():
    rows = memory()
    rows.write(torch.tensor([1]), loss=torch.tensor([3.0]))
    rows.write(torch.tensor([1]), probability=torch.ones(1, 2))
    assert rows["loss"][1] == 3
    assert rows["probability"][1].tolist() == [1, 1]


def test_of_repeats_in_a_batch_the_last_wins():
    index = torch.tensor([2, 0, 2, 5, 2, 0])
    rows = memory(6, loss=torch.tensor(0.0), vector=torch.zeros(2))
    rows.write(index, loss=torch.arange(6.0), vector=torch.arange(12.0).view(6, 2))
    assert rows["loss"].tolist() == [5, 0, 4, 0, 0, 3]
    assert rows["vector"][2].tolist() == [8, 9]


def test_values_are_detached_and_cast():
    rows = memory(2, half=torch.zeros((), dtype=torch.float16), flag=torch.tensor(False))
    rows.write(torch.tensor([0]), half=torch.tensor([1 / 3], requires_grad=True), flag=torch.tensor([2.0]))
    assert rows["half"].dtype == torch.float16
    assert not rows["half"].requires_grad
    assert rows["flag"].tolist() == [True, False]


def test_an_empty_selection_writes_nothing():
    rows = memory()
    rows.write(torch.tensor([], dtype=torch.int64), loss=torch.tensor([]), probability=torch.zeros(0, 2))
    assert not rows.seen.any()


def test_what_does_not_fit_is_refused():
    rows = memory()
    with pytest.raises(KeyError, match="unknown"):
        rows.write(torch.tensor([0]), unknown=torch.zeros(1))
    with pytest.raises(IndexError):
        rows.write(torch.tensor([6]), loss=torch.zeros(1))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        SampleMemory(0)


def test_a_merge_on_one_process_changes_nothing():
    rows = memory()
    rows.write(torch.tensor([1]), loss=torch.tensor([3.0]))
    rows.merge(trainer().strategy)
    assert rows["loss"][1] == 3
    assert rows.seen.sum() == 1


def test_a_checkpoint_restores_rows_flags_and_dtypes():
    rows = memory(4, loss=torch.tensor(NAN), label=torch.tensor(-1), flag=torch.tensor(False))
    rows.write(torch.tensor([2, 3]), loss=torch.tensor([1.0, 2.0]), label=torch.tensor([5, 6]), flag=torch.ones(2))
    restored = memory(4, loss=torch.tensor(0.0), label=torch.tensor(0), flag=torch.tensor(True))
    restored.load_state_dict(saved(rows.state_dict()))
    torch.testing.assert_close(restored.fields, rows.fields, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(restored.seen, rows.seen)
    restored.write(torch.tensor([0]), loss=torch.tensor([9.0]))
    assert rows["loss"][0].isnan()


def test_the_state_is_little_more_than_the_rows():
    size, columns = 20_000, 10
    file = io.BytesIO()
    torch.save(memory(size, probability=torch.zeros(columns)).state_dict(), file)
    assert file.tell() <= 1.05 * size * columns * 4


@pytest.mark.parametrize(
    ("other", "fingerprint", "sentence"),
    [
        (
            {},
            "b" * 64,
            r"other training data \(6 samples, aaaaaaaa fingerprint; here 6 samples, bbbbbbbb fingerprint\)",
        ),
        ({"size": 7}, "a" * 64, r"other training data \(6 samples, .* here 7 samples"),
        ({"size": 7}, "", r"here 7 samples, no fingerprint"),
        (
            {"loss": torch.tensor(0.0)},
            "a" * 64,
            r"holds loss \(6,\), probability \(6, 2\), this method needs loss \(6,\);",
        ),
        (
            {"loss": torch.tensor(0), "probability": torch.zeros(2)},
            "a" * 64,
            "resume with the method it was trained with",
        ),
    ],
)
def test_a_memory_of_other_data_or_another_method_is_refused(other, fingerprint, sentence):
    rows = memory()
    rows.fingerprint = "a" * 64
    different = memory(**other)
    different.fingerprint = fingerprint
    with pytest.raises(UserError, match=sentence):
        different.load_state_dict(saved(rows.state_dict()))


def test_a_memory_without_a_fingerprint_is_taken_on_trust():
    rows, unknown = memory(), memory()
    rows.fingerprint = "a" * 64
    unknown.load_state_dict(saved(rows.state_dict()))


def merged():
    """Write on two processes and merge, twice; return what each process then holds."""
    strategy = trainer().strategy
    strategy.setup_environment()
    rank = strategy.global_rank
    rows = SampleMemory(
        8,
        loss=torch.tensor(NAN),
        vector=torch.zeros(2),
        label=torch.tensor(-1),
        flag=torch.tensor(False),
        byte=torch.tensor(0, dtype=torch.uint8),
        half=torch.tensor(0.0, dtype=torch.bfloat16),
    )

    def write(index, value):
        index = torch.tensor(index)
        values = torch.full((len(index),), float(value))
        rows.write(
            index,
            loss=values,
            vector=values[:, None].expand(-1, 2),
            label=values.long(),
            flag=values > 0,
            byte=values,
            half=values,
        )

    write([0, 2] if rank == 0 else [1, 3], 10 + rank)  # disjoint
    write([4] if rank == 0 else [], 20)  # nothing on process 1
    write([5], 30 + rank)  # the same step: process 0 wins
    write([2] if rank == 0 else [0], 40 + rank)  # newer than the other's
    rows.merge(strategy)
    first = {name: values.clone() for name, values in rows.fields.items()} | {"seen": rows.seen.clone()}
    write([] if rank == 0 else [6, 2], 200 + rank)  # after the merge anything is newer
    rows.merge(strategy)
    rows.merge(strategy)  # once more changes nothing
    return first, dict(rows.fields) | {"seen": rows.seen}


@pytest.mark.ddp
def test_a_merge_gives_all_processes_the_newest_rows():
    zero, one = run(merged)
    torch.testing.assert_close(zero, one, equal_nan=True, rtol=0, atol=0)
    first, second = zero
    expected = torch.tensor([41.0, 11.0, 40.0, 11.0, 20.0, 30.0, NAN, NAN])
    torch.testing.assert_close(first["loss"], expected, equal_nan=True)
    torch.testing.assert_close(first["vector"][:, 1], expected.nan_to_num(0))
    assert first["label"].tolist() == [41, 11, 40, 11, 20, 30, -1, -1]
    assert first["byte"].tolist() == [41, 11, 40, 11, 20, 30, 0, 0]
    assert first["half"].tolist() == [41, 11, 40, 11, 20, 30, 0, 0]
    assert first["flag"].tolist() == first["seen"].tolist() == [True] * 6 + [False] * 2
    assert {name: values.dtype for name, values in second.items()} == {
        "loss": torch.float32,
        "vector": torch.float32,
        "label": torch.int64,
        "flag": torch.bool,
        "byte": torch.uint8,
        "half": torch.bfloat16,
        "seen": torch.bool,
    }
    assert second["label"].tolist() == [41, 11, 201, 11, 20, 30, 201, -1]
