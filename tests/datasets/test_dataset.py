from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dlmctl.datasets.dataset import (
    BatchPlan,
    Split,
    batch_stream,
    load_split,
    load_splits,
    pack_rows,
    padded_batch,
    write_split,
)
from dlmctl.errors import DataError
from dlmctl.text.tokenizer import WordTokenizer

ROWS = [[0, 5, 6, 1], [0, 7, 1], [0, 8, 9, 10, 11, 1]]


def many(count: int, seed: int = 0) -> Split:
    """Rows of 3 to 20 positions; each starts with its own number."""
    lengths = np.random.default_rng(seed).integers(3, 21, count)
    ids = np.concatenate([np.full(size, row) for row, size in enumerate(lengths)])
    return Split(ids, np.concatenate([[0], np.cumsum(lengths)]))


def test_written_rows_and_fields_come_back(tmp_path: Path) -> None:
    fields = [{"kind": "inn"}, {}, {"kind": "café", "stars": 3}]
    write_split(tmp_path, "train", ROWS, fields)
    split = load_split(tmp_path, "train")
    assert [split.row(at).tolist() for at in range(len(split))] == ROWS
    assert split.lengths.tolist() == [4, 3, 6]
    assert split.read_fields() == fields
    assert split.ids.dtype == np.uint16
    assert isinstance(split.ids, np.memmap)


def test_large_vocabularies_get_wider_ids(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [[0, 2**16, 1]])
    assert load_split(tmp_path, "train").row(0).tolist() == [0, 2**16, 1]


def test_a_split_without_fields_says_so(tmp_path: Path) -> None:
    write_split(tmp_path, "train", ROWS)
    with pytest.raises(DataError, match="without fields"):
        load_split(tmp_path, "train").read_fields()


def test_missing_and_damaged_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_split(tmp_path / "none", "train")
    write_split(tmp_path, "train", ROWS)
    with pytest.raises(DataError, match="holds no 'valid' split"):
        load_split(tmp_path, "valid")
    (tmp_path / "train.ids.npy").write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match="damaged"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["train.ids.npy", "train.offsets.npy"])
@pytest.mark.parametrize("damage", ["empty", "pipe", "floats", "table", "objects", "huge", "backwards", "cut"])
def test_arrays_that_are_no_rows_are_named(tmp_path: Path, name: str, damage: str) -> None:
    write_split(tmp_path, "train", ROWS)
    path = tmp_path / name
    whole, raw = np.load(path), path.read_bytes()
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage in ("empty", "huge"):
        path.write_bytes(raw.replace(b"'shape': (", b"'shape': (99999999") if damage == "huge" else b"")
    else:
        made = {
            "floats": whole.astype(float),
            "table": whole[None],
            "objects": np.array([{}], dtype=object),
            "backwards": whole[::-1] if "offsets" in name else whole[:-2],
            "cut": whole[:-1],
        }
        np.save(path, made[damage], allow_pickle=True)
    with pytest.raises(DataError, match=rf"{name}: .*Prepare it again|offsets.npy: .*does not fit"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize("line", ["3", "[]", "null", "", '{"kind": "inn"}\n{}\n{}'])
def test_fields_that_are_none_of_these_rows_are_named(tmp_path: Path, line: str) -> None:
    write_split(tmp_path, "train", ROWS, [{}, {}, {}])
    path = tmp_path / "train.fields.jsonl"
    path.write_text(f"{{}}\n{line}\n{{}}\n", "utf-8")
    with pytest.raises(DataError, match=r"train.fields.jsonl(:2: is not a JSON object|: holds the fields of \d rows)"):
        load_split(tmp_path, "train").read_fields()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is a pipe"):
        load_split(tmp_path, "train").read_fields()


def test_words_outside_the_vocabulary_of_a_set_are_damage(tmp_path: Path) -> None:
    vocabulary = WordTokenizer.from_corpus([["inn", "mill"]], min_count=1)
    vocabulary.save(tmp_path)
    for split, rows in (("train", [[0, 5, 1]]), ("valid", [[0, 6, 1]])):
        write_split(tmp_path, split, rows)
    with pytest.raises(DataError, match=r"valid.ids.npy: .* holds the word id 6, but the vocabulary has 6"):
        load_splits(tmp_path)
    assert len(load_split(tmp_path, "train", vocabulary)) == 1
    np.save(tmp_path / "train.ids.npy", np.array([0, -3, 1]))
    with pytest.raises(DataError, match="holds the word id -3"):
        load_splits(tmp_path)


def test_pad_packing_keeps_one_text_a_row() -> None:
    assert pack_rows(ROWS, "pad", 8) == ROWS


def test_block_packing_joins_and_cuts() -> None:
    assert pack_rows(ROWS, "block", 4) == [[0, 5, 6, 1], [0, 7, 1, 0], [8, 9, 10, 11]]
    assert pack_rows(ROWS, "block", 14) == []


def test_padded_cuts_and_fills() -> None:
    split = Split(np.concatenate(ROWS), np.array([0, 4, 7, 13]))
    assert padded_batch(split, np.array([1, 2]), 5, pad_id=3).tolist() == [[0, 7, 1, 3, 3], [0, 8, 9, 10, 11]]


def test_an_epoch_holds_every_row_once_on_a_canvas_that_fits() -> None:
    split, plan = many(200), BatchPlan(positions=128, length=24, bucket=8, full_share=0.0)
    batches = plan.epoch(split.lengths, epoch=3)
    assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(200))
    for rows, canvas in batches:
        assert len(rows) * canvas <= 128
        assert canvas - 8 < split.lengths[rows].min()
        assert split.lengths[rows].max() <= canvas


def test_the_plan_follows_from_seed_and_epoch_alone() -> None:
    lengths = many(60).lengths

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows, _ in BatchPlan(64, 24, seed=seed).epoch(lengths, epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_full_share_lays_rows_on_the_full_canvas() -> None:
    batches = BatchPlan(128, 24, full_share=1.0).epoch(many(50).lengths, 0)
    assert {canvas for _, canvas in batches} == {24}


def test_a_stream_resumes_where_it_was() -> None:
    split, plan = many(60), BatchPlan(64, 24)
    whole = batch_stream(split, plan)
    seen = [next(whole) for _ in range(120)]  # several epochs
    resumed = batch_stream(split, plan, skip=70)
    for rows, width in seen[70:]:
        rows_again, width_again = next(resumed)
        assert width == width_again
        assert np.array_equal(rows, rows_again)


def test_processes_share_an_epoch_without_overlap() -> None:
    split, plan = many(64), BatchPlan(96, 24, full_share=0.0)
    batches = len(plan.epoch(split.lengths, 0)) // 2
    streams = [batch_stream(split, plan, rank=rank, world=2) for rank in (0, 1)]
    rows = [row for one in streams for _ in range(batches) for row in next(one)[0].tolist()]
    assert len(set(rows)) == len(rows)
    assert len(rows) > 64 * 0.8


def test_an_empty_split_cannot_be_streamed() -> None:
    with pytest.raises(DataError, match="no rows"):
        next(batch_stream(Split(np.array([], np.int64), np.array([0])), BatchPlan(64, 24)))
