# Signs of many scripts stand here on purpose.
# ruff: noqa: RUF001
"""File formats, including cases from public bug reports of similar tools, with the correct outcomes."""

import bz2
import gzip
import json
import lzma
import multiprocessing
import sys

import pytest

from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.lines import lines_of, parse_json, raw_lines
from dlmctl.datasets.meaning_representations import parse_mr
from dlmctl.datasets.prepare import prepare
from dlmctl.datasets.readers import Dropped, read_corpus, read_meanings, sniff
from dlmctl.datasets.tables import table_rows
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation.control_success import read_targets
from dlmctl.evaluation.source import Task, read_tasks
from dlmctl.metrics.text_files import read_hypotheses, read_references

CONLLU = (
    "# text = He can't swim\n1\tHe\t_\tPRON\t_\t_\t_\t_\t_\t_\n2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tca\t_\tAUX\t_\t_\t_\t_\t_\t_\n3\tn't\t_\tPART\t_\t_\t_\t_\t_\t_\n4\tswim\t_\tVERB\t_\t_\t_\t_\t_\t_\n\n"
    "1\tStop\t_\tVERB\t_\t_\t_\t_\t_\t_\n"
)


def records(path, **settings):
    return list(read_corpus(path, sniff(path), **settings))


def test_a_line_ends_at_a_line_feed_only(file, tmp_path):
    odd = "quiet\u2028corner\x0c of\x85 it"
    rows = [{"text": f"The mill {n} is open .", "note": odd} for n in range(8)]
    path = file("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    prepare(path, path, tmp_path / "set", min_count=1)
    split = load_split(tmp_path / "set", "train")
    assert [row["note"] for row in split.read_fields()] == [odd] * len(split)
    targets = file("t.jsonl", '{"words": ["a\u2028b", "mill"]}\n')
    assert read_targets("pos", targets)[1] == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_a_blank_last_line_are_accepted_alike(file, end):
    def written(name, *lines):
        return file(name, "\ufeff" + end.join([*lines, "", " ", ""]))

    assert read_targets("pos", written("t.jsonl", '{"words": ["A", "mill"]}'))[1] == 1
    assert read_hypotheses(written("h.jsonl", '"A mill"')) == [["A", "mill"]]
    assert read_references(written("r.jsonl", '["A mill"]')) == [[["A", "mill"]]]
    assert read_references(written("r.txt", "A mill", "B mill")) == [[["A", "mill"]], [["B", "mill"]]]
    assert len(records(written("c.conllu", *CONLLU.split("\n")))) == 2
    assert [line.text for line in lines_of(written("a.txt", "one"))] == ["one", "", ""]
    assert len(records(written("a.csv", "text,label", "A mill,x"))) == 1


def test_compressed_files_are_read_as_what_they_hold(file):
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        path = file(f"a.csv{suffix}", pack(b"text,label\nA mill,x\n"))
        assert [(record.words, record.fields) for record in records(path)] == [(["A", "mill"], {"label": "x"})]
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="is not a complete"):
            list(raw_lines(path))


def test_tables_with_a_text_column(file):
    quoted = 'label\ttext\n0\t"Go!" he said\n1\t"so ""good"""\n1\t"All."\n2\n'
    dropped = Dropped()
    read = records(file("a.tsv", quoted), dropped=dropped)
    assert [record.text for record in read] == ['"Go!" he said', 'so "good"', '"All."']
    assert read[0].fields == {"label": "0"}
    assert dropped.examples == {"unreadable": ["line 5: the number of columns differs from the header's"]}
    (record,) = records(file("b.csv", 'text;label\n"A; mill";\n'))
    assert (record.text, record.fields) == ("A; mill", None)
    with pytest.raises(
        DataError,
        match=r"the columns are a, b\..*or text; `dlmctl data prepare` takes texts from another",
    ):
        sniff(file("c.csv", "a,b\n1,2\n"))
    assert sniff(file("c.csv", "a,b\n1,2\n"), "b") == "csv"
    with pytest.raises(DataError, match="the column 'label' twice"):
        records(file("d.csv", "text,label,label\na,b,c\n"))
    with pytest.raises(DataError, match="in carriage returns alone"):
        list(table_rows(file("e.csv", "text\ra b\rc d\r"), ["text"]))


def test_conllu_keeps_its_words_and_tags(file, tmp_path):
    path = file("a.conllu", CONLLU)
    first, second = records(path)
    assert (first.words, first.fields) == (
        ["He", "ca", "n't", "swim"],
        {"upos": ["PRON", "AUX", "PART", "VERB"]},
    )
    assert first.text == "He can't swim"
    assert second.line == 8
    assert sniff(file("a.txt", CONLLU)) == "conllu"
    prepare(path, path, tmp_path / "set", min_count=1)
    assert load_split(tmp_path / "set", "train").read_fields()[1] == {"upos": ["VERB"]}
    with pytest.raises(DataError, match=r"bad.conllu:1: is not a line of CoNLL-U"):
        records(file("bad.conllu", "He swims\n"))


def test_parquet_needs_pyarrow_and_says_so(file, monkeypatch):
    path = file("a.parquet", b"PAR1")
    assert sniff(path) == "parquet"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow.*dlmctl\[parquet\]"):
        records(path)


def test_parquet_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["A mill", None], "stars": [3, 4], "upos": [["DET", "NOUN"], []]}), path)
    dropped = Dropped()
    (record,) = records(path, dropped=dropped)
    assert record.fields == {"stars": 3, "upos": ["DET", "NOUN"]}
    assert dropped.counts == {"unreadable": 1}
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        records(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "text: a\n", r"\.yaml is not a known format of texts"),
        ("a.xlsx", "PK", r"a\.xlsx: is a spreadsheet\. Save its sheet as `CSV UTF-8`"),
        ("a.txt", b"a\0b\n", "is binary"),
        ("a.txt", "a mill\n".encode("utf-16"), r"is UTF-16.*iconv -f UTF-16 -t UTF-8"),
        ("a.txt", "a mill\n".encode("utf-32"), r"is UTF-32.*iconv -f UTF-32 -t UTF-8"),
        ("a.parquet.gz", b"", "is compressed Parquet"),
        ("testset.csv", 'MR\n"name[Mill]"\n', "meaning representations without texts"),
    ],
)
def test_what_is_no_form_of_texts_is_refused(file, name, content, message):
    with pytest.raises(DataError, match=message):
        sniff(file(name, content))


def test_lines_and_fields_of_any_length_are_read(file):
    long = "word " * 40_000
    path = file("a.jsonl", json.dumps({"text": long}) + '\n{"text": "A mill ."}\n')
    assert [len(record.words) for record in records(path)] == [40_000, 3]
    assert len(records(file("a.csv", f'text,label\n"{long}",x\n'))[0].words) == 40_000


def test_a_line_without_end_is_refused_before_it_fills_memory(file, monkeypatch):
    monkeypatch.setattr("dlmctl.datasets.lines.MAX_LINE_BYTES", 100)
    with pytest.raises(DataError, match=r"a.txt:2: the line has more than 100 bytes"):
        list(raw_lines(file("a.txt", "short\n" + "x" * 101)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('["\\ud800"]', "surrogate"),
        ("{", "not JSON"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


def test_odd_values_of_fields_are_said(file, tmp_path):
    labels = ["NEG", "neg", "POS", [], "nan", "NA", 1, 1.0]
    rows = [{"text": f"The mill {n} .", "label": label} for n, label in enumerate(labels)]
    lines = [*map(json.dumps, rows), '{"text": "The inn .", "label": NaN}']
    path = file("a.jsonl", "\n".join(lines))
    notes = " | ".join(prepare(path, path, tmp_path / "set", min_count=1).notes)
    assert "'label' has 'NEG' (2 rows) and 'neg' (2 rows), which count as one label" in notes
    assert "'label' has '1' (2 rows) and '1.0' (2 rows), which count as different values" in notes
    assert "'label' is NaN or infinite in 2 rows" in notes
    assert "'label' is empty or an object in 2 rows" in notes
    assert "'label' is 'nan' in 2 rows" in notes
    assert "'label' is 'NA' in 2 rows" in notes
    assert "NaN" not in (tmp_path / "set" / "train.fields.jsonl").read_text("utf-8")


def test_many_unknown_words_are_said_with_what_lowers_them(file, tmp_path):
    clauses = ["磨坊餐厅提供便宜的菜", "灯笼餐厅提供昂贵的菜"]
    path, other = (
        file(name, "\n".join(f"{clauses[n % 2]}，在河边{n}。" for n in numbers))
        for name, numbers in (("zh.txt", range(20)), ("other.txt", range(20, 40)))
    )
    (first, second) = prepare(path, other, tmp_path / "set", min_count=3).notes
    assert "25% of the words of train are unknown" in first
    assert "--min-count below 3" in first
    assert "--tokenizer" in first
    assert "of valid" in second
    assert not any("unknown" in note for note in prepare(path, path, tmp_path / "all", min_count=1).notes)


def test_a_meaning_representation_of_spaces_takes_no_time():
    with pytest.raises(ValueError, match="not field"):
        parse_mr("name[A], " + " " * 200_000 + "x")
    with pytest.raises(ValueError, match="'name' occurs twice"):
        parse_mr("name[A], name[B]")
    assert parse_mr("name[A] , near[B],") == {"name": "A", "near": "B"}


def test_the_e2e_release_with_and_without_texts(file):
    without = file("testset.csv", 'MR\n"name[The Mill], eatType[pub]"\n')
    both = file("testset_w_refs.csv", 'MR,ref\n"name[The Mill], eatType[pub]",The Mill is a pub.\n')
    fields = {"name": "The Mill", "Type": "pub"}
    assert read_meanings(without) == [(fields, "")]
    assert read_meanings(both) == [(fields, "The Mill is a pub.")]
    assert records(both)[0].fields == fields
    assert read_tasks(without, "valid", ["name"]) == [Task(fields, [])]
    assert read_tasks(both, "valid", ["name"]) == [Task(fields, ["The Mill is a pub."])]


def test_targets_of_the_original_lose_what_stands_around_the_words(file):
    words = ["START", "The", "Mill", "is", "cheap", ".", "\n", "END"]
    tags = ["START", "DET", "PROPN", "AUX", "ADJ", "PUNCT", "PROPN", "END"]
    (pos,) = read_targets("pos", file("pos.json", json.dumps({"pos": tags, "words_": words})))[0].sets
    assert len(pos.tags) == 5
    spans = {"words_": words, "spans": [[1, 2, "NP"], [0, 7, "S"]]}
    (tree,) = read_targets("syntax_tree", file("spans.json", json.dumps(spans)))[0].sets
    assert [(span.start, span.end, span.label) for span in tree.spans] == [(0, 1, "NP")]


def test_stories_are_cut_where_they_say(file):
    story = [
        "Ben met Prof. Adams at 3 p.m. He was late",
        "they talked.",
        "The ride was long! She slept.",
        "Then.",
        "No.",
    ]
    path = file("s.jsonl", json.dumps(story) + "\n")
    assert [record.text for record in read_corpus(path, "roc-infill")] == story[1:4]
    whole = file("w.jsonl", json.dumps(["One ran. Prof. Lee sat. It rained."]) + "\n")
    assert [record.text for record in read_corpus(whole, "roc-infill")] == ["Prof. Lee sat."]


def _prepared(path, out, results):
    try:
        prepare(path, path, out, min_count=1)
        results.put("done")
    except UserError as error:
        results.put(str(error))


def test_one_of_several_commands_makes_the_data_set(file, tmp_path):
    path = file("a.txt", "\n".join(f"The mill {n} ." for n in range(3000)))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_prepared, args=(path, tmp_path / "set", results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    outcomes = sorted(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    assert outcomes.count("done") == 1
    assert all(
        "another process is at work" in outcome or "exists already" in outcome
        for outcome in outcomes
        if outcome != "done"
    )
    assert len(load_split(tmp_path / "set", "train")) == 3000
    assert len(load_vocabulary(tmp_path / "set")) > 3000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "set"]
