"""Folders of files, and running text cut into sentences."""

import json

import pytest

from dlmctl.datasets.prepare import prepare
from dlmctl.datasets.prose import sentences_of
from dlmctl.errors import DataError

PROSE = """Mrs. Hale keeps bees. She sells the honey
at 3 p.m. on Fridays. Is it sweet? asked Tom.

Nobody knew.
"""


def test_running_text_becomes_sentences_across_lines(tmp_path):
    (tmp_path / "a.txt").write_text(PROSE)
    assert list(sentences_of(tmp_path / "a.txt")) == [
        (2, "Mrs. Hale keeps bees."),
        (2, "She sells the honey at 3 p.m. on Fridays."),
        (2, "Is it sweet?"),
        (2, "asked Tom."),
        (4, "Nobody knew."),
    ]


def test_all_files_of_a_folder_are_one_data_set(tmp_path):
    source = tmp_path / "texts"
    (source / "more").mkdir(parents=True)
    (source / "b.txt").write_text("the cat sleeps .\n\n" * 4)
    (source / "more" / "a.txt").write_text("the dog barks .\n" * 4)
    (source / ".hidden.txt").write_text("never read .\n")
    (source / "notes.pdf").write_bytes(b"%PDF")
    report = prepare(source, None, tmp_path / "set", min_count=1)
    assert {name: split.texts for name, split in report.splits.items()} == {"train": 4, "valid": 4}
    assert report.splits["train"].dropped == {"empty": 4}
    assert report.splits["train"].examples["empty"][0] == "b.txt, line 2"
    words = json.loads((tmp_path / "set" / "vocab.json").read_text())
    assert len({"cat", "dog"} & set(words)) == 1  # the other one is held out
    assert "never" not in words


def test_files_of_a_folder_that_hold_nothing_are_left_out_with_a_note(tmp_path):
    (tmp_path / "texts").mkdir()
    for name, text in (("a.txt", ""), ("b.txt", "we met\nthey met\n"), ("c.txt", " \n\n")):
        (tmp_path / "texts" / name).write_text(text)
    report = prepare(tmp_path / "texts", None, tmp_path / "set", min_count=1, valid_share=0.5)
    assert sum(split.rows for split in report.splits.values()) == 2
    assert "2 empty files were left out: a.txt, c.txt" in report.notes
    (tmp_path / "texts" / "b.txt").write_text("")
    with pytest.raises(DataError, match=r"a.txt: is empty"):
        prepare(tmp_path / "texts", None, tmp_path / "other")


def test_a_folder_without_texts_is_said(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"is a folder without texts. Files in it must end in .txt"):
        prepare(tmp_path, None, tmp_path / "set")


def test_lines_that_hold_several_sentences_are_noted_and_prose_makes_them_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("The cat sleeps. The dog barks.\nA bird sings. It rains.\n")
    note, *_ = prepare(path, None, tmp_path / "lines", min_count=1, valid_share=0.5).notes[-1:]
    assert note.startswith("100% of the lines hold several sentences: --format prose")
    report = prepare(path, None, tmp_path / "prose", format="prose", min_count=1, valid_share=0.5)
    assert report.splits["train"].texts == report.splits["valid"].texts == 2
    assert not any("several sentences" in note for note in report.notes)
