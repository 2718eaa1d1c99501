import json

import pytest

from dlmctl.datasets.readers import Dropped, parse_mr, read_corpus, read_sources, sniff
from dlmctl.errors import DataError

STORY = ["Ann went out.", "It rained.", "She ran.", "A bus came.", "She was home soon."]
ROC_HEADER = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n"


def records(path, format, **options):
    return list(read_corpus(path, format, **options))


def test_the_e2e_release(file):
    path = file(
        "e2e.csv",
        '\ufeffmr,ref\r\n"name[Blue Door], eatType[pub], priceRange[£20-25]",'
        '"Blue Door isn\u2019t far,\r\nnor dear."\r\n'
        '"name[Fern]",\r\n"Fern","Fern is open."\r\n',
    )
    dropped = Dropped()
    (result,) = records(path, "e2e-csv", dropped=dropped)
    assert result.words == "Blue Door isn 't far , nor dear .".split()
    assert result.text == "Blue Door isn\u2019t far, nor dear."
    assert result.fields == {"name": "Blue Door", "Type": "pub", "price": "£ 20 - 25"}
    assert result.line == 3
    assert dropped.counts == {"empty": 1, "unreadable": 1}
    assert dropped.examples["unreadable"] == ["line 5: not field[value] at 'Fern'"]


def test_the_tokenised_e2e_form(file):
    path = file("train.txt", "name : Fern | near : the quay||Fern is near the quay .\nno bars here\n||\n")
    dropped = Dropped()
    (result,) = records(path, "e2e", dropped=dropped)
    assert result.words == "Fern is near the quay .".split()
    assert result.text == "Fern is near the quay."
    assert result.fields == {"name": "Fern", "near": "the quay"}
    assert dropped.counts == {"unreadable": 2}


def test_stories_as_csv_and_as_json_lines(file):
    table = file(
        "roc.csv", ROC_HEADER + ",".join(["7", "Rain", *STORY]) + "\n" + ",".join(["8", "Half", *STORY[:3], "", ""])
    )
    dropped = Dropped()
    (result,) = records(table, "roc-csv", dropped=dropped)
    assert result.text == " ".join(STORY)
    assert result.fields["storytitle"] == "Rain"
    assert dropped.examples == {"unreadable": ["line 3: not five sentences"]}
    lines = [[" ".join(STORY)], STORY, {"sentences": STORY, "id": 3}, {"sentence1": "Only one."}, 5]
    path = file("roc.jsonl", "\n".join(map(json.dumps, lines)))
    dropped = Dropped()
    result = records(path, "roc-jsonl", dropped=dropped)
    assert [record.text for record in result] == [" ".join(STORY)] * 3
    assert result[2].fields["id"] == 3
    assert dropped.counts == {"unreadable": 2}


def test_json_lines(file):
    path = file(
        "a.jsonl", '{"text": "A small inn.", "stars": 3}\n\n{"text": 5}\n{"words": "x"}\n[1]\n{"text": " "}\n{\n'
    )
    dropped = Dropped()
    (result,) = records(path, "jsonl", dropped=dropped)
    assert (result.words, result.fields, result.line) == (["A", "small", "inn", "."], {"stars": 3}, 1)
    assert dropped.counts == {"empty": 2, "unreadable": 4}
    assert "line 4: no field 'text' among words" in dropped.examples["unreadable"]
    assert [record.text for record in records(path, "jsonl", text_field="words")] == ["x"]
    half = file("half.jsonl", '{"text": "\\ud800"}\n{"text": "whole"}\n')
    assert [record.text for record in records(half, "jsonl")] == ["whole"]


def test_plain_text_keeps_its_spelling_and_loses_its_spacing(file):
    (result,) = records(file("a.txt", "\n   The  inn's\tdoor \n \n"), "text")
    assert (result.words, result.text, result.fields, result.line) == (
        ["The", "inn", "'s", "door"],
        "The inn's door",
        None,
        2,
    )


def test_only_a_few_examples_of_each_reason_are_kept():
    dropped = Dropped()
    for line in range(20):
        dropped.add("empty", line)
    assert dropped.counts == {"empty": 20}
    assert dropped.examples == {"empty": [f"line {line}" for line in range(5)]}


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("x.csv", 'mr,ref\n"name[A]",A\n', "e2e-csv"),
        ("x.txt", "ref,mr\nA,name[A]\n", "e2e-csv"),
        ("x.csv", ROC_HEADER, "roc-csv"),
        ("x.txt", "name : A | near : B||A is near B .\n" * 3, "e2e"),
        ("x.txt", "A plain || line.\nAnother one.\n", "text"),
        ("x.txt", '\n\n{"text": "A"}\n', "jsonl"),
        ("x.jsonl", '["One. Two."]\n', "roc-jsonl"),
        ("x.json", json.dumps({"sentence1": "A"}), "roc-jsonl"),
    ],
)
def test_the_format_is_told_from_the_first_lines(file, name, content, format):
    assert sniff(file(name, content)) == format


def fault(read, *arguments):
    with pytest.raises(DataError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_cannot_be_used_are_said_with_their_line(file, tmp_path):
    assert "is empty" in fault(sniff, file("none.txt", "\n \n"))
    assert "x.csv:1: the columns are a, b. They should be mr,ref or storyid" in fault(
        sniff, file("x.csv", "a,b\n1,2\n")
    )
    assert "from another column with --text-field, such as --text-field Text." in fault(
        sniff, file("up.csv", "Text;Label\nHi.;x\n")
    )
    assert "x.jsonl:1: the first line is neither" in fault(sniff, file("x.jsonl", "hello\n"))
    assert "list.json: is a JSON array. Write one object per line" in fault(
        sniff, file("list.json", '[\n{"text": "A"}]')
    )
    message = fault(records, file("latin.txt", b"ok\ncaf\xe9\n"), "text")
    assert "latin.txt:2: is not UTF-8 (byte 0xe9)." in message
    # Windows programs write Windows-1252, whose quotation marks (0x93) are control codes in Latin-1.
    assert "Excel: `CSV UTF-8`" in message
    assert "iconv -f cp1252 -t UTF-8 latin.txt" in message
    assert "binary: is" not in fault(sniff, file("binary", b"\x00\xff\x00"))
    assert "open.csv:2: is not CSV" in fault(records, file("open.csv", 'mr,ref\n"name[A]","A\nB is here.\n'), "e2e-csv")
    assert "y.csv:1: the columns are mr. They should be mr,ref" in fault(records, file("y.csv", "mr\nx\n"), "e2e-csv")
    assert "is a folder" in fault(sniff, tmp_path)
    assert "Did you mean 'latin.txt'?" in fault(sniff, tmp_path / "latim.txt")
    assert "no such file. Check the path." in fault(sniff, tmp_path / "no" / "where.txt")


@pytest.mark.parametrize("mr", ["", "name", "name[A", "name[A] near[B]", "[A]", "name[A],, near[B]"])
def test_meaning_representations_that_are_none(mr):
    with pytest.raises(ValueError, match=r"not field|empty"):
        parse_mr(mr)


TALE = ["Mr. Lee ran.", 'He said "Wait!"', "The bus left.", "He sat down.", "It was cold."]


@pytest.mark.parametrize("form", ["one string", "five strings", "columns"])
def test_stories_become_middles_with_their_neighbours(tmp_path, form):
    path = tmp_path / ("stories.csv" if form == "columns" else "stories.jsonl")
    if form == "columns":
        row = ["id", "title", *('"' + text.replace('"', '""') + '"' for text in TALE)]
        path.write_text(ROC_HEADER + ",".join(row) + "\n", "utf-8")
    else:
        lines = [[" ".join(TALE)] if form == "one string" else TALE, ["One. Two."]]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    dropped = Dropped()
    result = records(path, "roc-infill", dropped=dropped)
    assert [record.text for record in result] == TALE[1:4]
    assert [record.fields for record in result] == [
        {"before": before, "after": after} for before, after in zip(TALE[:3], TALE[2:], strict=True)
    ]
    assert dropped.counts == ({} if form == "columns" else {"unreadable": 1})


ROWS = [{"name": "Blue Door", "area": "riverside"}, {"name": "The Mill"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e2e.csv", 'MR\r\n"name[Blue Door], area[riverside]"\r\nname[The Mill]\r\n'),
        ("refs.csv", 'mr,ref\n"name[Blue Door], area[riverside]",A pub .\nname[The Mill],A mill .\n'),
        ("plain.tsv", "\ufeffname\tarea\ttext\nBlue Door\triverside\tx\nThe Mill\t\ty\n\n"),
        ("rows.jsonl", '{"name": "Blue Door", "area": "riverside", "text": "x"}\n{"name": "The Mill", "area": null}\n'),
    ],
)
def test_rows_are_sources(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert read_sources(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x\n", "a.txt: .txt is not a table of sources. Use .csv, .tsv or .jsonl."),
        ("a.csv", "name,area\n", "a.csv: has no rows."),
        ("a.jsonl", '{"name": "x"}\n[1]\n', "a.jsonl:2: has no values to write a text from."),
        ("a.csv", "mr\nname\n", "a.csv:2: not field"),
    ],
)
def test_what_is_no_table_of_sources_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError) as caught:
        read_sources(tmp_path / name)
    assert message in str(caught.value)
