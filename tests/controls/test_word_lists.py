"""Reading word lists and tables of word properties."""

import pytest

from controls import word_lists
from controls.word_bounds import word_filter
from controls.word_lists import read_table
from dlmctl.datasets.tables import table_rows
from dlmctl.errors import DataError


def test_a_file_with_a_fault_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, reads = tmp_path / "norms.csv", []
    path.write_text("word,conc\nbread,4\ncats,many\n")
    monkeypatch.setattr(word_lists, "table_rows", lambda *asked: reads.append(1) or table_rows(*asked))
    faults = []
    for _ in range(3):
        with pytest.raises(DataError, match=r"norms.csv:3: 'many' in the column 'conc' is not a number") as caught:
            read_table(str(path), "word", ["conc"], [])
        faults.append(caught.value)
    assert (len(reads), len(set(map(id, faults)))) == (1, 3)
    assert all(fault.__context__ is None for fault in faults)  # its frames would hold the rows
    path.write_text("word,conc\nbread,4\ncats,3\n")
    assert read_table(str(path), "word", ["conc"], []).rows["cats"] == {"conc": 3}


def test_a_row_with_an_unquoted_decimal_comma_is_refused(tmp_path):
    """It would be read as 4, and the cells after it as those of other columns."""
    path = tmp_path / "norms.csv"
    path.write_text("word,conc\nbread,3\ncats,4,85\n")
    with pytest.raises(DataError, match=r"norms.csv:3: the row has more cells than there are columns: '85'"):
        read_table(str(path), "word", ["conc"], [])
    path.write_text("word,conc\nbread,3,\n")  # as spreadsheets write empty columns
    assert read_table(str(path), "word", ["conc"], []).rows == {"bread": {"conc": 3}}


def test_apostrophes_and_accents_may_be_written_in_any_way(tmp_path):
    (tmp_path / "words.txt").write_text("O\u2019Clock\ncafe\u0301\n", "utf-8")
    (tmp_path / "norms.csv").write_text("word,conc\no\u2019clock,3\ncafe\u0301,5\n", "utf-8")
    table = str(tmp_path / "norms.csv"), "word"
    in_file = word_filter(None, str(tmp_path / "words.txt"), (None, "word"), {}, None)
    in_list = word_filter(["O\u2019Clock", "cafe\u0301"], None, (None, "word"), {}, None)
    in_table = word_filter(None, None, table, {"conc": (1.0, 5.0)}, None)
    for words in (in_file, in_list, in_table):
        assert [words.fault(word) for word in ("o'clock", "caf\u00e9")] == [None, None]
    assert in_list.missing_words(["o'clock", "caf\u00e9"], str.split) is None
