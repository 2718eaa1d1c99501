import csv
import json

import numpy as np
import pytest

from dlmctl.control.check import Check
from dlmctl.datasets.target_table import open_table, table_of
from dlmctl.errors import UserError
from dlmctl.generation import output
from dlmctl.generation.flat import Columns
from dlmctl.generation.output import as_json, check_target, write
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.run_counts import RunCounts
from dlmctl.recipe.recipe import Recipe

RESULT = Generation(
    [
        Sample(0, ["the", "café", "."], "The café.", {"pos": Check(1.0, True, "all met")}, np.full((8, 2), 0.5)),
        Sample(1, ["a", "bar"], "A bar", {"pos": Check(0.5, False, "word 2", (1,))}, np.zeros((16, 2)), rounds=3),
    ],
    2.0,
)


def test_text_has_one_sample_per_line(tmp_path):
    write(RESULT, tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_bytes().decode() == "The café.\nA bar\n"


def test_json_lines_hold_words_and_verdicts(tmp_path):
    write(RESULT, tmp_path / "out.jsonl")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert (first["text"], first["words"], first["passed"]) == ("The café.", ["the", "café", "."], True)
    verdict = {"score": 0.5, "passed": False, "why": "word 2", "where": [1], "marks": [[1, 1, "", False]]}
    assert second["checks"] == {"pos": verdict}
    assert second["rounds"] == 3


def test_arrays_restore_each_latent(tmp_path):
    write(RESULT, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["texts"].tolist() == ["The café.", "A bar"]
        assert file["passed"].tolist() == [True, False]
        for at, sample in enumerate(RESULT):
            np.testing.assert_array_equal(file["latents"][slice(*file["offsets"][at : at + 2])], sample.latent)


def test_json_summarises_a_run():
    whole = json.loads(as_json(RESULT, Recipe(samples=2, seed=5)))
    assert whole["recipe"]["seed"] == 5
    assert (whole["success"], whole["seconds"], whole["samples_per_second"]) == (0.5, 2.0, 1.0)
    assert [sample["index"] for sample in whole["samples"]] == [0, 1]


def test_texts_with_a_problem_and_texts_that_could_not_be_drawn_are_counted_apart():
    drawn, other = RESULT.to_dicts()
    undrawn = {**other, "text": "", "words": [], "checks": {}, "passed": False, "problem": "row 1: no such word"}
    counts = RunCounts.of([drawn, *[{**other, "problem": "not settled"}] * 2, *[undrawn] * 3])
    assert counts.unmet == {"row 1: no such word": 3}
    pos = {"pos": {"mean_score": 2 / 3, "passed": 1 / 3}}
    assert counts.figures() == {"samples": 6, "success": 1 / 6, "controls": pos, "problems": 2, "not_drawn": 3}
    assert counts.sentences()[1:] == ["Drawn in 3 rounds", "3 could not be drawn"]


@pytest.mark.parametrize("ending", ["txt", "jsonl", "npz"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_previous_file(tmp_path, monkeypatch, ending, error):
    path = tmp_path / f"out.{ending}"
    path.write_text("from before")

    def fail(*_arguments):
        raise error

    monkeypatch.setattr(output, "write_arrays" if ending == "npz" else "as_lines", fail)
    monkeypatch.setattr(Sample, "text", property(fail), raising=False)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write(RESULT, path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space left on device."
    assert path.read_text() == "from before"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.doc", "the ending '.doc' is not known. Use .txt, .jsonl, .csv, .tsv, .npz, .parquet."),
        ("out", "the ending '' is not known"),
        ("folder.txt", "is a folder; name a file in it."),
        ("none/out.txt", "the folder does not exist. Make it first."),
        ("file/out.txt", "the folder does not exist"),
    ],
)
def test_files_that_cannot_be_written_are_detected_before_sampling(tmp_path, name, message):
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        check_target(tmp_path / name)
    assert message in str(caught.value)
    check_target(tmp_path / "fine.txt")


def test_columns_keep_the_order_of_the_table_if_rows_omit_some():
    rows = [{"columns": columns, "checks": {}} for columns in ({"a": "1", "d": "2"}, {"b": "3", "c": "4", "d": "5"})]
    assert list(Columns.of(rows).targets) == ["a", "b", "c", "d"]


def test_every_column_of_a_table_gets_a_unique_name_and_remains_if_empty(tmp_path):
    row = {"text": "a", "target_text": "b", "target_target_text": "c", "row": "d"}
    (target,) = table_of([row]).rows([0])
    sample = Sample(0, ["x"], "x", {}, np.zeros((1, 2)), target=target)
    write(Generation([sample], 1.0, columns=[*row, "note"]), tmp_path / "out.tsv")
    (saved,) = csv.DictReader((tmp_path / "out.tsv").open(newline="", encoding="utf-8"), delimiter="\t")
    renamed = ["target_target_target_text", "target_text", "target_target_text", "target_row", "note"]
    assert list(saved)[2:7] == renamed
    assert not {"lm_score", "acceptability"} & set(saved)
    assert [saved[name] for name in renamed] == [*"abcd", ""]


def test_cells_with_quotes_tabs_and_line_breaks_survive_tab_separated_values(tmp_path):
    cells = ['a "b" c', "two\nlines", "a\ttab", '"', '"in\n\n\tall"', "plain"]
    rows = table_of([{"note": cell, "last": cell} for cell in cells]).rows(range(len(cells)))
    samples = [Sample(at, ["x"], "x", {}, np.zeros((1, 2)), target=row) for at, row in enumerate(rows)]
    write(Generation(samples, 1.0), tmp_path / "out.tsv")
    again = open_table(str(tmp_path / "out.tsv")).rows(range(len(cells)))
    assert [(row.cells["note"], row.cells["last"], row.cells["text"]) for row in again] == [(c, c, "x") for c in cells]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_cells_with_a_carriage_return_survive(tmp_path, ending):
    cells = ["a\rb", "a\r\nb", 'a "\r" b', "plain"]
    rows = table_of([{"note": cell, "last": cell} for cell in cells]).rows(range(len(cells)))
    samples = [Sample(at, ["x"], "x", {}, np.zeros((1, 2)), target=row) for at, row in enumerate(rows)]
    path = tmp_path / f"out.{ending}"
    write(Generation(samples, 1.0), path)
    assert path.read_bytes().splitlines()[0].startswith(b"index")
    assert b"plain\r\n" not in path.read_bytes()
    with path.open(newline="", encoding="utf-8") as file:
        notes = [row["note"] for row in csv.DictReader(file, delimiter="," if ending == "csv" else "\t")]
    again = open_table(str(path)).rows(range(len(cells)))
    assert notes == cells
    assert [(row.cells["note"], row.cells["last"], row.cells["text"]) for row in again] == [(c, c, "x") for c in cells]


def test_arrays_for_targets_have_row_numbers(tmp_path):
    rows = table_of([{"a": 1}, {"a": 2}]).rows([0, 1])
    samples = [Sample(at, ["x"], "x", {}, np.zeros((1, 2)), target=rows[at // 2]) for at in range(4)]
    write(Generation(samples, 1.0), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["rows"].tolist() == [1, 1, 2, 2]


def test_numeric_columns_are_numbers_and_text_columns_are_unchanged(tmp_path):
    (tmp_path / "t.csv").write_text("n,price,code,share,mixed\n4,9.50,007,0.5,1\n12,8.25,120,2,x\n-3,,5,,-0\n")
    rows = [row.values for row in open_table(str(tmp_path / "t.csv")).rows(range(3))]
    assert rows[0] == {"n": 4, "price": "9.50", "code": "007", "share": 0.5, "mixed": 1}
    records = [{"columns": row, "checks": {}} for row in rows]
    columns = Columns.of(records)
    rows = [columns.row(record) for record in records]
    own = {name: [row[name] for row in rows] for name in columns.targets}
    assert own["n"] == [4, 12, -3]
    assert own["price"] == [9.5, 8.25, None]
    assert own["share"] == [0.5, 2.0, None]
    assert own["code"] == ["007", "120", "5"]
    assert own["mixed"] == ["1", "x", "-0"]
    assert [columns.kinds[name] for name in columns.targets] == [int, float, str, float, str]
    assert columns.original_cells(records[0]) == {
        "n": "4",
        "price": "9.50",
        "code": "007",
        "share": "0.5",
        "mixed": "1",
    }
    # Where cells had a type before, it is theirs.
    (typed,) = table_of([{"zip": "12345", "big": 2**70, "yes": True}]).rows([0])
    columns = Columns.of([{"columns": typed.values, "checks": {}}])
    assert [columns.kinds[name] for name in columns.targets] == [str, str, bool]
