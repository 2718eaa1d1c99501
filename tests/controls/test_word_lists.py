"""Reading word lists and tables of word properties."""

import pytest

from controls import word_lists
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
