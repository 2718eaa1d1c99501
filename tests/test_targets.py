"""Tables of targets: rows become controls, share batches, and fail alone."""

from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

import dlmctl
from controls import Contains, Length, Predicate
from controls.contains import ContainsParams
from controls.length import LengthParams
from dlmctl import ModelError, UserError
from dlmctl.cli import app
from dlmctl.control import registry
from dlmctl.control.registry import offered_controls
from dlmctl.datasets import target_table
from dlmctl.datasets.target_table import open_table, plain_cells, table_of
from dlmctl.generation.bulk import generate_shards
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.cells import fill_params, read_params
from dlmctl.recipe.load import load_recipe, read_recipe
from dlmctl.recipe.placeholders import fill_placeholders, placeholders_in, quote_placeholders
from dlmctl.sampling import draw

ALONE = "sampler: {steps: 2, deterministic: true}\n"
RECIPE = """
samples: 2
targets: t.csv
controls:
  - length: {words: {n}, tolerance: {off}}
  - contains: {words: ["{word}"]}
"""
TABLE = "\ufeffword;n;off;\r\nbread;4;;\r\n;5;1;\r\n;;;\r\ngarden;;;\r\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_here(here, model_folder, text=RECIPE, table=TABLE):
    (here / "t.csv").write_bytes(table.encode())
    (here / "r.yaml").write_text(f"model: {model_folder}\n{ALONE}{text}", "utf-8")
    return load_recipe("r.yaml")


# Tables.


def rows_of(table):
    return [dict(row.cells) for row in table.rows(range(len(table)))]


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.csv", '\ufeffa,b\r\n1,"x\ny"\r\n,\r\n 2 ,\r\n', [{"a": "1", "b": "x\ny"}, {"a": "2"}]),
        ("a.csv", "a;b;;\n1;2;;\n", [{"a": "1", "b": "2"}]),
        ("a.tsv", "a\tb\n1\tx, y\n", [{"a": "1", "b": "x, y"}]),
        ("a.tsv", 'a\tb\tc\n1\t2\t"x\ny"\n', [{"a": "1", "b": "2", "c": "x\ny"}]),
        ("a.tsv", 'a\tb\n"x\n\n""y"""\t1\n2\t3\n', [{"a": 'x\n\n"y"', "b": "1"}, {"a": "2", "b": "3"}]),
        ("a.tsv", 'a\tb\n"x\ty"\t1\n', [{"a": "x\ty", "b": "1"}]),
        ("a.tsv", 'a\tb\tc\n"x\ny"\tm\t"p\nq"\n', [{"a": "x\ny", "b": "m", "c": "p\nq"}]),
        ("a.tsv", 'a\tb\n1\t"Go\n2\tnow"\n"3"\n', [{"a": "1", "b": '"Go'}, {"a": "2", "b": 'now"'}, {"a": '"3"'}]),
        ("a.tsv", 'a\tb\n1\t"Go\n2\n3\tx\n', [{"a": "1", "b": '"Go'}, {"a": "2"}, {"a": "3", "b": "x"}]),
        ("a.tsv", 'a\tb\n"x\ty\n', [{"a": '"x', "b": "y"}]),
        ("a.tsv", 'a\n"One.\nTwo."\n', [{"a": '"One.'}, {"a": 'Two."'}]),
        ("a.csv", '"a, or b";n\nx;1\n', [{"a, or b": "x", "n": "1"}]),
        ("a.csv", "sep=;\r\na,b;n\r\nx;1\r\n", [{"a,b": "x", "n": "1"}]),
        ("a.csv", "sep=\t\na,b\tn\nx\t1\n", [{"a,b": "x", "n": "1"}]),
        ("a.jsonl", '{"a": 1, "b": [2]}\n\n{"b": null, "c": true}\n', [{"a": 1, "b": [2]}, {"c": True}]),
        ("a.jsonl", '{"a": null}\n{"a": 2}\n', [{}, {"a": 2}]),
        ("a.txt", "One ___ .\n\nTwo ___ .\n", [{"line": "One ___ ."}, {"line": "Two ___ ."}]),
    ],
)
def test_tables_of_every_format_are_read(tmp_path, name, text, rows):
    (tmp_path / name).write_bytes(text.encode())
    table = open_table(str(tmp_path / name))
    assert rows_of(table) == rows
    assert table.rows([len(rows) - 1])[0].number == len(rows)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.csv", b"a,b\n1,2,3\n", ":2: the row has more cells than there are columns: '3' is in none."),
        ("a.tsv", b"a\tb\n1\t2\t3\n", "'3' is in none. Put a cell with a tab in it in double quotes."),
        ("a.csv", b",a\n0,x\n", ":2: the column of '0' has no name in the header. Name it, or leave it out, as pandas"),
        ("a.csv", b",a,\n0,x,\n", "the column of '0' has no name"),
        ("a.csv", b'sep=,\na\n"x\n', ":3: is not CSV"),
        ("a.csv", b"Words of the week;;\nword;level;\nx;A1;\n", "Line 1 is the header; remove a title above it."),
        ("a.csv", b"Words of the week\nword,level\nx,A1\n", "Line 1 is the header; remove a title above it."),
        ("a.csv", b"a,a\n1,2\n", ":1: has the column 'a' twice."),
        ("a.csv", b"a\nx\n\xff\n", ":3: is not UTF-8 (byte 0xff)."),
        ("a.csv", b'a\n"x\n', ":2: is not CSV"),
        ("a.csv", b"a,b\n", ": holds no rows."),
        ("a.jsonl", b"[1]\n", ":1: a row must be a JSON object."),
        ("a.xlsx", b"", "the suffix '.xlsx' is not known for targets. Use .csv, "),
        ("none.csv", None, "no such file."),
    ],
)
def test_an_unreadable_table_is_refused_with_one_message(tmp_path, name, raw, message):
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError) as caught:
        open_table(str(tmp_path / name))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_endless_table_is_refused_at_a_limit(monkeypatch):
    monkeypatch.setattr(target_table, "MAX_ROWS", 3)
    with pytest.raises(UserError, match=r"targets:4: has more than 3 rows\. Split it\."):
        table_of({"a": at} for at in range(10**9))
    with pytest.raises(UserError, match="a row is a mapping of columns to cells, not 5"):
        table_of([5])


# Placeholders.


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "x\0y"}, "targets:2: the column 'a' holds the character NUL, which cannot be written to results."),
        ({"a": "1", "b": ["x", {"y": "\ud83d"}]}, "targets:2: the column 'b' holds half of a surrogate pair"),
        ({"a": "1", "x\0": ""}, "targets:2: the column 'x\\x00' holds the character NUL"),
    ],
)
def test_cells_that_results_cannot_store_are_refused(row, message):
    good = {"a": "\\u0000 😀 \\ud83d"}
    with pytest.raises(UserError) as caught:
        table_of([good, row])
    assert message in str(caught.value)
    assert rows_of(table_of([good])) == [good]


def test_missing_values_of_pandas_are_empty_cells(monkeypatch):
    pandas = SimpleNamespace(NA=object(), NaT=object())
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    row = {"a": pandas.NA, "b": pandas.NaT, "c": 1}
    assert plain_cells(row) == {"c": 1}
    assert rows_of(table_of([row])) == [{"c": 1}]


def test_cells_that_json_has_no_type_for_are_lists_and_text():
    row = {"a": {"tea", "cup"}, "b": "café".encode(), "c": np.array(["x", "y"]), "d": ("x", frozenset({2, 1}))}
    assert rows_of(table_of([row])) == [{"a": ["cup", "tea"], "b": "café", "c": ["x", "y"], "d": ["x", [1, 2]]}]


def test_closed_standard_input_has_no_rows(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match=r"standard input: holds no rows"):
        open_table("-")


def test_a_full_temporary_folder_is_named(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(27, "File too large")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(UserError, match=r"targets: its rows cannot be stored in \S+: File too large\. Set TMPDIR"):
        table_of([{"a": 1}])


def test_placeholders_are_distinguished_from_blanks_and_patterns():
    value = {"template": "The {food} ___{1,3} .", "match": "<any>{2}", "n": ["{n}"]}
    assert list(placeholders_in(value)) == [("food", ("template",)), ("n", ("n", 0))]
    assert quote_placeholders({"words": {"n": None}, "other": {}}) == {"words": "{n}", "other": {}}


def test_whole_values_keep_their_type_and_empty_cells_are_left_out():
    value = {"a": "{n}", "b": ["{x}", "{y}"], "c": "{x} and {n}", "d": "{x} or {y}"}
    found = fill_placeholders(value, {"n": 3, "x": "cat"})
    assert found.value == {"a": 3, "b": ["cat"], "c": "cat and 3"}
    assert found.cells == {("b", 0)}
    assert found.left_out
    with pytest.raises(UserError, match="cannot be part of a text"):
        fill_placeholders("a {x}", {"x": [1]})


@pytest.mark.parametrize(
    ("cell", "text"), [(1_250_000.0, "1250000"), (1234567.5, "1234567.5"), (0.1, "0.1"), (3, "3"), (True, "true")]
)
def test_numbers_in_texts_keep_all_their_digits(cell, text):
    assert fill_placeholders("It costs {n} pounds.", {"n": cell}).value == f"It costs {text} pounds."


@pytest.mark.parametrize("written", ["{year}", ["{year}"]])
@pytest.mark.parametrize(("year", "word"), [(2019, "2019"), (2019.0, "2019"), (0.5, "0.5")])
def test_a_number_is_a_word_where_words_are_wanted(written, year, word):
    """In JSON lines and data frames, whose numbers cannot be put in quotes."""
    params = read_params(ContainsParams, fill_params(ContainsParams, {"words": written}, {"year": year}))
    assert params == ContainsParams(words=[word])
    with pytest.raises(ValidationError):
        read_params(ContainsParams, fill_params(ContainsParams, {"words": written}, {"year": True}))


def test_a_cell_that_is_a_list_adds_its_items_to_a_list():
    value = {"words": ["{x}", "cup", "{y}"], "n": "{x}", "nats": ["{x}"]}
    found = fill_placeholders(value, {"x": ["tea", "pot"], "y": []}, lambda place: place == ("nats",))
    assert found.value == {"words": ["tea", "pot", "cup"], "n": ["tea", "pot"], "nats": [["tea", "pot"]]}


def test_a_cell_with_several_items_that_is_taken_as_one_has_a_warning(model_folder, caplog):
    run = {"model": str(model_folder), "samples": 1, "sampler": {"steps": 2}}
    for controls, rows, warned in [
        ([{"contains": {"words": "{w}"}}], [{"w": "bread; garden"}], 0),
        ([{"contains": "{w}"}], [{"w": "bread"}, {"w": ["bread", "garden"]}], 0),
        ([{"contains": "{w}"}], [{"w": "bread; garden"}, {"w": "garden, bread"}], 1),
    ]:
        result = dlmctl.run({**run, "controls": controls}, targets=rows)
        assert len(caplog.messages) == warned
    assert "column 'w': a cell with commas or semicolons is taken as one phrase" in caplog.text
    assert 'for several write `words: "{w}"`.' in caplog.text
    assert result.success == 0  # the model knows no semicolon


# Runs.


def test_rows_fill_controls_and_leave_them_out(here, model_folder):
    recipe, origin = recipe_here(here, model_folder)
    result = run_recipe(recipe, origin=origin)
    assert [(one.index, one.target.number) for one in result] == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)]
    assert [list(one.checks) for one in result[::2]] == [["length", "contains"], ["length"], ["contains"]]
    assert all(one.passed for one in result)
    assert all(len(one.words) == 4 and "bread" in one.words for one in result[:2])
    assert all(4 <= len(one.words) <= 6 for one in result[2:4])
    line = json.loads(json.dumps(result.to_dicts()))[0]
    assert line["columns"] == {"word": "bread", "n": 4}
    assert {"row", "seed", "model", "model_digest", "recipe_digest", "rounds", "problem"} < line.keys()


def test_no_samples_of_a_table_are_none(here, model_folder):
    recipe, _ = recipe_here(
        here, model_folder, "samples: 1\ntargets: t.csv\ncontrols: [{length: 6}]\n", "word\nbread\n"
    )
    assert len(run_recipe(recipe, samples=[])) == 0


def test_rows_of_the_same_shape_share_a_batch(here, model_folder, monkeypatch):
    text = 'samples: 1\ntargets: t.csv\ncontrols: [{length: 6}, {contains: ["{word}"]}]\n'
    recipe, _ = recipe_here(here, model_folder, text, "word\n" + "bread\ngarden\nriver\n" * 5)
    recipe.sampler.deterministic = False
    sizes = []
    whole = draw._draw_batch
    monkeypatch.setattr(
        draw, "_draw_batch", lambda plan, batch, *rest: sizes.append(len(batch)) or whole(plan, batch, *rest)
    )
    result = run_recipe(recipe)
    assert sizes == [15]
    assert all(one.target.cells["word"] in one.words for one in result)


def test_controls_are_not_looked_for_in_each_row(pretrained, monkeypatch):
    """To find one, the files of all installed packages are read, which takes longer than drawing a short text."""
    searches = []
    monkeypatch.setattr(registry, "offered_controls", lambda: searches.append(1) or offered_controls())
    recipe = {"controls": [{"any": [{"length": "{n}"}, {"contains": "{w}"}]}, {"pos": "DET"}], "sampler": {"steps": 2}}
    counts = []
    for rows in (1, 6):
        dlmctl.run({**recipe, "targets": [{"n": 4, "w": "the"}] * rows, "samples": 1}, model=pretrained)
        counts.append(len(searches))
        searches.clear()
    assert 0 < counts[0] == counts[1]


def test_a_row_that_cannot_be_met_is_reported_and_affects_no_other(here, model_folder):
    table = "word;n;off\nbread;4;\nunicorn;4;\n;four;\n;90;\ngarden;5;\n"
    recipe, origin = recipe_here(here, model_folder, table=table)
    result = run_recipe(recipe, origin=origin)
    assert [one.passed for one in result[::2]] == [True, False, False, False, True]
    whys = [one.unmet for one in result[::2] if one.unmet]
    assert repr(result).splitlines()[2] == f"(no text: {whys[0]})"
    assert f"({whys[1]})".replace("'", "&#x27;") in result._repr_html_()
    assert whys[0].startswith("t.csv:3: column 'word': contains: ")
    assert whys[1] == "t.csv:4: column 'n': controls.0.length.words: input should be a valid integer, not 'four'."
    assert whys[2].startswith("t.csv:5: ")
    assert all(one.words == [] and one.to_dict()["problem"] == one.unmet for one in result[2:4])
    with pytest.raises(UserError, match=r"^t\.csv:"):
        run_recipe(recipe, origin=origin, strict=True)


def test_a_missing_judge_named_by_a_row_affects_that_row_only(here, model_folder):
    text = "targets: t.csv\nsamples: 1\ncontrols: [{pos: {tags: '{tags}', judge: '{judge}'}}]\n"
    recipe, origin = recipe_here(here, model_folder, text, "tags,judge\nDET NOUN,\nDET NOUN,nowhere\nDET,\n")
    whys = [one.unmet for one in run_recipe(recipe, origin=origin)]
    assert whys[0] is whys[2] is None
    assert whys[1].startswith("t.csv:3: nowhere")
    literal, origin = recipe_here(here, model_folder, text.replace("'{judge}'", "nowhere"), "tags\nDET NOUN\nDET\n")
    with pytest.raises(ModelError, match="nowhere"):
        run_recipe(literal, origin=origin)


def test_shards_of_a_table_equal_a_single_run_and_other_tables_are_refused(here, model_folder):
    recipe, origin = recipe_here(here, model_folder)
    whole = json.loads(json.dumps(run_recipe(recipe).to_dicts()))
    run = generate_shards(recipe, here / "run", shard_rows=3, origin=origin).run
    assert list(run.records()) == whole
    (here / "run" / "rows-000000003.jsonl").unlink()
    generate_shards(recipe, here / "run", shard_rows=3)
    assert list(run.records()) == whole
    for changed, message in [
        (recipe.model_copy(update={"samples": 3}), "samples_a_row was 2 and is 3"),
        (None, "other settings: the table of targets has changed"),
    ]:
        if changed is None:
            (here / "t.csv").write_text("word;n;off\nbread;4;\n")
        with pytest.raises(UserError, match=message):
            generate_shards(changed or recipe, here / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("controls: [{contains: ['{wrd}']}]", "r.yaml:3: t.csv has no column 'wrd'. Its columns are word, n, off"),
        ("sampler: {steps: {n}}", "r.yaml:3: sampler.steps: the placeholder {n} is not allowed here."),
        (
            "conditions: {}",
            "r.yaml:2: matched sets take no targets. Give a control a list of parameter sets, one for each",
        ),
    ],
)
def test_unfilled_placeholders_are_refused_with_one_message(here, model_folder, text, message):
    (here / "t.csv").write_text(TABLE)
    (here / "r.yaml").write_text(f"model: {model_folder}\ntargets: t.csv\n{text}\n")
    with pytest.raises(UserError) as caught:
        run_recipe(*[load_recipe("r.yaml")[0]], origin=load_recipe("r.yaml")[1])
    assert message in str(caught.value)
    with pytest.raises(UserError, match="is a placeholder, but the recipe has no targets"):
        read_recipe("controls: [{contains: ['{word}']}]", "mine.yaml")
    matched = "conditions: {a: [{contains: ['{word}']}], b: [length: 4]}\nexchange: {place: 1}\n"
    with pytest.raises(
        UserError, match=r"mine.yaml:1: \{word\} is a placeholder.* Matched sets take none. Give a control"
    ):
        read_recipe(matched, "mine.yaml")


def test_python_takes_rows_and_data_frames(model_folder, tmp_path):
    recipe = {"model": str(model_folder), "samples": 1, "sampler": {"steps": 2}}
    recipe["controls"] = [{"length": {"words": "{n}"}}, {"not": {"contains": ["{word}"]}}]
    rows = [{"n": 4, "word": "bread"}, {"n": 6.0, "word": float("nan")}]
    result = dlmctl.run(recipe, targets=rows)
    assert [len(one.words) for one in result] == [4, 6]
    assert [list(one.checks) for one in result] == [["length", "not"], ["length"]]

    class Frame:
        columns = ["n", "word"]

        def to_dict(self, how):
            return rows if how == "records" else None

    assert dlmctl.run(recipe, targets=Frame()).texts == result.texts
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert dlmctl.run(tmp_path / "r.yaml", targets=rows).texts == result.texts
    with pytest.raises(UserError, match="'int' is not a table"):
        dlmctl.run(recipe, targets=5)


@pytest.mark.parametrize(("mark", "comma"), [(";", True), (",", False)])
def test_numbers_of_tables_with_semicolons_have_decimal_commas(here, mark, comma):
    from controls.classifier import ClassifierParams
    from controls.lexicon import LexiconParams
    from dlmctl.recipe.cells import fill_params, read_params

    quote = "" if comma else '"'
    (here / "t.csv").write_text(f"p{mark}b\n{quote}0,9{quote}{mark}{quote}2,5{quote}\n")
    (row,) = open_table("t.csv").rows([0])
    assert row.decimal_comma is comma

    def read(kind, params):
        return read_params(kind, fill_params(kind, params, row.cells), decimal_comma=row.decimal_comma)

    places = read(LexiconParams, {"where": {"place": "{b}"}, "letters": 3}).where.places
    assert places == (2, 5)  # whole numbers alone can be meant
    if comma:
        assert read(ClassifierParams, {"label": "x", "pass_at": "{p}"}).pass_at == 0.9
        assert read(LexiconParams, {"letters": ["{b}", None]}).bounds == {"letters": (2.5, None)}
    else:
        with pytest.raises(ValueError, match="valid number"):
            read(ClassifierParams, {"label": "x", "pass_at": "{p}"})


def test_cells_of_spreadsheets_say_true_and_false_in_any_case():
    from dlmctl.control.base import ControlParams
    from dlmctl.recipe.cells import fill_params, read_params

    class Params(ControlParams):
        polite: bool

    def read(cell):
        return read_params(Params, fill_params(Params, {"polite": "{p}"}, {"p": cell})).polite

    assert [read(cell) for cell in ("TRUE", "False", "yes", "No ")] == [True, False, True, False]
    with pytest.raises(ValueError, match="boolean"):
        read("perhaps")


# Short ways in.


def command(*arguments, text=None):
    found = CliRunner().invoke(app, list(map(str, arguments)), input=text)
    return found.exit_code, found.stdout, found.stderr


def test_controls_from_the_command_line_standard_input_and_a_file_next_to_the_recipe(here, model_folder):
    (here / "sub").mkdir()
    (here / "sub" / "mine.py").write_text(
        "from dlmctl import Check, Control, ControlParams\n\n\ndef even(text):\n    return len(text) % 2 == 0\n\n\n"
        "class Any(Control[ControlParams]):\n    name = 'anything'\n    Params = ControlParams\n\n"
        "    def check(self, params, words):\n        return Check(1.0, True, 'fine')\n"
    )
    (here / "sub" / "r.yaml").write_text("controls:\n  - mine.py:Any: {}\n  - check: mine.py:even\n")
    basics = ("-n", 2, "--model", model_folder, "--steps", 2, "--json")
    code, out, _ = command("generate", "-r", "sub/r.yaml", "-c", "length: 5", *basics)
    assert code == 0
    samples = json.loads(out)["samples"]
    assert [list(one["checks"]) for one in samples] == [["anything", "check", "length"]] * 2
    assert all(len(one["words"]) == 5 for one in samples)
    code, out, _ = command("generate", "-r", "-", *basics, text="controls: [{contains: bread}]\n")
    assert all("bread" in one["words"] for one in json.loads(out)["samples"])
    code, _, output = command("generate", "-c", "check: sub/mine.py:odd", *basics)
    assert (code, output.strip()) == (2, "dlmctl: command line: sub/mine.py: has no 'odd'. Did you mean 'even'?") or (
        code == 2 and "has no 'odd'" in output
    )


def test_quiet_output_with_fewer_lines_than_rows_is_reported(here, model_folder):
    recipe_here(here, model_folder, table="word,n,off\nbread,4,\nbread,99,\n")
    run = CliRunner().invoke(app, ["generate", "-r", "r.yaml", "-q"])
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 2)
    assert run.stderr == "dlmctl: 2 of 4 texts could not be drawn and have no line; --json says why.\n"


def test_positional_arguments_and_short_values_are_the_first_parameters():
    from controls import Classifier, Pos

    assert Length(8).sets == Length(words=8).sets
    assert Pos(["DET", "NOUN"]).sets == Pos(tags="DET NOUN").sets
    assert Classifier("good").sets == Classifier(label="good").sets
    with pytest.raises(TypeError, match="'label' twice"):
        Classifier("good", label="bad")
    with pytest.raises(TypeError, match="at most"):
        Length(8, 1, 2, 3, 4)
    recipe, _ = read_recipe("controls: [{length: [3, 5]}, {contains: pub}, {pos: DET NOUN}]", "mine.yaml")
    assert [spec.params for spec in recipe.control_specs()] == [
        [{"words": 3}, {"words": 5}],
        [{"words": ["pub"]}],
        [{"tags": ["DET NOUN"]}],
    ]


def test_a_predicate_is_met_by_redrawing(pretrained):
    model = dlmctl.load(pretrained.folder)
    control = Predicate(lambda text: (text.startswith("t"), "it does not begin with t"))
    result = model.generate(control, samples=6, sampler={"steps": 2})
    assert max(one.rounds for one in result) > 1
    assert all(one.passed == one.text.startswith("t") for one in result)
    with pytest.raises(UserError, match="check failed: ZeroDivisionError"):
        model.generate(Predicate(lambda text: 1 / 0), samples=1, sampler={"steps": 2})


def test_control_objects_apply_to_every_row_beside_those_that_it_fills(pretrained):
    recipe = dlmctl.Recipe(
        model=str(pretrained.folder),
        samples=1,
        sampler={"steps": 2},
        targets=[{"word": "bread"}, {"word": "garden"}],
        controls=[Length.each([LengthParams(words=5), LengthParams(words=7)]), {"contains": ["{word}"]}],
    )
    assert [(len(one.words), one.passed) for one in dlmctl.run(recipe)] == [(5, True), (7, True)]


# Quotas, distinct texts, streams.


def test_a_quota_fills_rows_with_texts_that_differ_within_its_bound(here, model_folder):
    text = 'samples: 6\ntargets: t.csv\nquota: {attempts: 4}\ncontrols: [{infill: "{word} ___"}]\n'
    recipe, _ = recipe_here(here, model_folder, text, "word\nbread\ngarden\n")
    result = run_recipe(recipe)
    for row in (result[:6], result[6:]):
        passing = [one.text for one in row if one.passed]
        assert len(set(passing)) == len(passing) > 1
        assert all("the same text as sample" in one.checks["unique"].why for one in row if not one.passed)
    recipe.quota.attempts = 1
    assert all(one.rounds == 1 for one in run_recipe(recipe))


def test_unique_texts_over_shards_and_against_the_training_text(here, model_folder):
    import shutil

    from dlmctl.datasets.known_texts import FILE, known_texts, write_known_texts

    text = 'samples: 1\ntargets: t.csv\nunique: true\ncontrols: [{infill: "{word} ___ ."}]\n'
    table = "word\n" + "bread\n" * 12
    folder = shutil.copytree(model_folder, here / "model")
    recipe, _ = recipe_here(here, folder, text, table)
    plain = run_recipe(recipe.model_copy(update={"unique": False})).texts
    assert len(set(plain)) < 12
    write_known_texts(folder, plain[:1])
    known_texts.cache_clear()
    run = generate_shards(recipe, here / "run", shard_rows=4).run
    texts = [row["text"] for row in run.records() if row["passed"]]
    assert len(set(texts)) == len(texts)
    assert plain[0] not in texts
    (folder / FILE).write_bytes(pickle.dumps(["no numbers"]))
    known_texts.cache_clear()
    with pytest.raises(ModelError) as caught:
        known_texts(folder)
    assert "it is damaged, or holds something else. Delete it" in str(caught.value)
    assert "pickle" not in str(caught.value)


def test_a_stream_yields_the_texts_of_a_run(model_folder):
    model = dlmctl.load(model_folder)
    settings = {"sampler": {"steps": 2}, "deterministic": True, "seed": 3}
    whole = model.generate(Contains("bread") & Length(5), samples=5, **settings)
    some = model.stream(Contains("bread") & Length(5), samples=5, batch_size=2, **settings)
    assert [(one.index, one.text) for one in some] == [(one.index, one.text) for one in whole]
    traced = model.stream(samples=6, batch_size=2, trace=3, **settings)
    assert [one.index for one in traced if one.trace is not None] == [0, 1, 2]
    endless = model.stream(batch_size=2, **settings)
    assert [next(endless).index for _ in range(5)] == list(range(5))


# Files.


def test_a_table_of_results_has_the_columns_of_targets_and_checks(here, model_folder):
    table = "word,n,off,text\nbread,4,,mine\nunicorn,,,\n"
    recipe_here(here, model_folder, table=table)
    code, _, output = command("generate", "-r", "r.yaml", "--out", "out.csv")
    assert code == 0
    assert "t.csv:3: column 'word': contains: " in output
    with (here / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["index", "row", "word", "n", "off", "target_text", "text", "passed"]
    assert (rows[0]["word"], rows[0]["target_text"], rows[0]["contains_passed"], rows[0]["row"]) == (
        "bread",
        "mine",
        "1",
        "1",
    )
    assert rows[2]["problem"].startswith("t.csv:3: ")
    assert command("generate", "-r", "r.yaml", "--strict", "--out", "strict.csv")[0] == 2
    code, _, _ = command("generate", "-r", "r.yaml", "--out", "out.txt")
    assert len((here / "out.txt").read_text("utf-8").splitlines()) == 2
    code, output, _ = command("generate", "-r", "r.yaml", "--out", "out.txt", "--force")
    assert "texts saved in out.txt; 2 of 4 have no line there" in output
    command("generate", "-r", "r.yaml", "--out", "out.npz")
    with np.load(here / "out.npz") as file:
        assert file["rows"].tolist() == [1, 1, 2, 2]
    code, _, output = command("generate", "-r", "r.yaml", "--out", "t.csv", "--force")
    assert (code, (here / "t.csv").read_text()) == (2, table)
    assert "t.csv: holds the targets of this run. Name another file." in output


def test_strict_exits_with_1_where_a_text_fails(here, model_folder):
    (here / "mine.py").write_text("def never(text):\n    return False\n")
    basics = ("generate", "-n", 1, "--model", model_folder, "--steps", 2, "-c", "check: mine.py:never")
    assert command(*basics)[0] == 0
    assert command(*basics, "--strict")[0] == 1
    assert command(*basics, "--strict", "--out", "out.jsonl")[0] == 1


def test_frames_say_what_to_install(model_folder, monkeypatch):
    import sys

    result = dlmctl.load(model_folder).generate(samples=1, sampler={"steps": 2})
    for name in ("pandas", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r'pip install "dlmctl\[pandas\]"'):
        result.to_pandas()
    with pytest.raises(UserError, match=r'pip install "dlmctl\[datasets\]"'):
        result.to_dataset()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("targets: [{n: 5}]\nsampler: {steps: 2, particles: 2, reward: lm_score}\n", 2),
        ("unique: true\nrank_by: [lm_score]\n", 2),
        ("rank_by: [lm_score]\ncontrols:\n  - any: [check: FOLDER/mine.py:accepts]\n", 1),
    ],
)
def test_a_missing_scorer_is_an_error_of_the_setting_that_needs_it(pretrained, tmp_path, text, line):
    (tmp_path / "mine.py").write_text("def accepts(words):\n    return True\n")
    recipe, file = read_recipe(text.replace("FOLDER", str(tmp_path)), "mine.yaml", [f"model={pretrained.folder}"])
    with pytest.raises(UserError, match=rf"mine.yaml:{line}: .*no scorer here"):
        run_recipe(recipe, model=pretrained, origin=file)


def test_no_scorer_is_asked_for_where_another_judge_is_missing(pretrained):
    recipe, file = read_recipe("candidates: 2\nrank_by: acceptability", "mine.yaml", [f"model={pretrained.folder}"])
    with pytest.raises(UserError, match=r"mine.yaml:2: .*has not learned which texts readers accept. Take `fluency`"):
        run_recipe(recipe, model=pretrained, origin=file)
