"""The jobs of docs/cookbook.md exactly as printed, with smaller counts, on the bundled models."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlmctl.cli import app

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "cookbook.md").read_text("utf-8")


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in re.findall(r"^<!-- file: (\S+) -->\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(title: str, *extra_options: str) -> None:
    """Run the first command of a section, with extra options that reduce its counts."""
    (section,) = re.findall(rf"^## {title}$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    (call,) = re.findall(r"^dlmctl (generate .*)$", section, re.MULTILINE)[:1]
    result = CliRunner().invoke(app, [*shlex.split(call), *extra_options, "--quiet"])
    assert result.exit_code == 0, result.stderr


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_classes_have_texts_that_pass_and_differ(files):
    run("Eight classes, 500 texts each", "-n", "2", "--steps", "5", "--set", "quota.attempts=2")
    rows = table(files / "classes-500.csv")
    assert Counter((row["food"], row["area"]) for row in rows).most_common()[-1][1] == 2
    assert len({(row["food"], row["area"]) for row in rows}) == 8
    for row in rows:
        states_food = row["food"].lower() in row["text"].lower()
        assert (row["semantic_passed"] == "0") or states_food
        assert float(row["lm_score"]) > 0
        assert row["worst_word"]
    passing = [row["text"] for row in rows if row["passed"] == "1"]
    assert len(set(passing)) == len(passing) > 4


def test_frames_have_their_tags_or_their_lengths(files):
    run("POS frames with exact lengths, from a list", "--set", "candidates=1")
    rows = table(files / "stimuli.csv")
    assert [row["row"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["length_why"] for row in rows] == ["", "", "", "9 words", "7 words"]
    assert [bool(row["pos_score"]) for row in rows] == [True, True, True, False, False]


def test_templates_are_filled(files):
    run("Cloze templates from a file", "--set", "candidates=1")
    rows = [json.loads(line) for line in (files / "cloze.jsonl").read_text("utf-8").splitlines()]
    assert [row["row"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(row["checks"]["infill"]["passed"] for row in rows)
    assert all(row["text"].startswith(("She opened the", "My brother", "Nobody")) for row in rows)
    passing = [row["text"] for row in rows if row["passed"]]
    assert len(set(passing)) == len(passing)


def test_lines_have_their_syllables_and_a_word(files):
    run("Lines of a poem, subtitles", "--set", "candidates=2")
    rows = table(files / "fives.csv")
    assert [row["line"] for row in rows] == ["snow", "snow", "river", "river", "garden", "garden"]
    assert {row["syllables_why"] for row in rows} == {"5 syllables"}
    assert all(row["line"] in row["text"] for row in rows)


def test_words_are_expected_or_not(files):
    run("Cloze sentences that are easy, or hard, to guess", "--set", "candidates=6", "--set", "until.max_rounds=1")
    rows = table(files / "guess-texts.csv")
    assert [row["word"] for row in rows] == ["umbrella", "umbrella", "letter", "letter"]
    for row in rows:
        fits = float(row["least"]) <= float(row["surprisal_nats"]) <= float(row["most"])
        assert row["surprisal_passed"] == str(int(fits))
    assert sum(row["surprisal_passed"] == "1" for row in rows) >= 3


def test_sentences_that_are_there_are_checked(files):
    run("Checks of sentences that you have")
    rows = table(files / "own.csv")
    assert [row["text"] for row in rows] == [row["line"] for row in rows]
    assert [row["classifier_passed"] for row in rows] == ["1", "1", "0"]
    assert all(float(row["acceptability"]) > 0 < float(row["surprisal_nats"]) for row in rows)


def test_a_word_is_put_in(files):
    run("A word put in where it fits")
    rows = table(files / "inserted.csv")
    assert [row["passed"] for row in rows] == ["1", "1", "1"]
    for row in rows:
        assert row["word"] in row["text"].split()
        assert abs(len(row["text"].split()) - len(row["sentence"].split())) <= 1


def test_word_pairs_are_put_into_one_sentence(files, capsys):
    (section,) = re.findall(r"^## Word pairs of your own$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    exec(program.replace('"candidates": 8', '"candidates": 1'), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line, (first, second) in zip(lines, [("doctor", "dentist"), ("train", "plane"), ("soup", "cake")], strict=True):
        frame, _, other = line.partition(f" {first}. ")
        assert other.strip() == f"{frame} {second}."
