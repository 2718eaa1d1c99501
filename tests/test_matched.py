"""Matched sets on a masked model with random weights: kept frames, exchanged words, and their tables."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import dlmctl
from controls import Length, Lexicon, Predicate
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.cli import app
from dlmctl.control.kept_words import KeptWords
from dlmctl.control.properties import Exchanged, faults_of
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation import matched_table
from dlmctl.generation.diagnose import validate_recipe
from dlmctl.generation.generate import generate
from dlmctl.generation.matched import run_matched
from dlmctl.generation.matched_table import FORMATS, _cell, columns_of, write_table
from dlmctl.generation.output import check_file
from dlmctl.generation.run import run_recipe
from dlmctl.models.llama import LlamaConfig
from dlmctl.recipe.load import load_matched, read_recipe
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.text.word_counts import count_words, save_counts
from tests.conftest import SENTENCES

RECIPE = """
model: {model}
samples: 6
sampler: {{temperature: 3.0}}
controls:
  - length: {{words: 5}}
conditions:
  short: [lexicon: {{where: {{place: 3}}, letters: [3, 4]}}]
  long: [lexicon: {{where: {{place: 3}}, letters: [6, null]}}]
exchange: {{place: 3}}
"""
FITTING = {"short": {"warm", "cats"}, "long": {"bakery"}}


@pytest.fixture(scope="module")
def masked(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("models") / "masked"
    torch.manual_seed(0)
    sizes = LlamaConfig(hidden=16, layers=1, heads=2, inner=24, max_length=16)
    config = MaskedConfig.model_validate({"vocab_size": len(tokenizer), "length": 16, "denoiser": sizes})
    save_pretrained(MaskedLM(config), tokenizer, folder)
    save_counts(
        count_words(np.concatenate([tokenizer.encode(words) for words in SENTENCES]), tokenizer), tokenizer, folder
    )
    return from_pretrained(folder)


def sets_of(masked, text=RECIPE, *overrides):
    recipe, file = read_recipe(text.format(model=masked.folder), "mine.yaml", overrides)
    return run_matched(recipe, model=masked, origin=file)


def test_only_the_exchanged_word_differs_and_each_condition_holds(masked):
    sets = sets_of(masked)
    assert sets.success == 1.0
    assert sets.conditions == ("short", "long")
    for item in sets.items:
        short, long = item.texts["short"].words, item.texts["long"].words
        assert [at for at in range(5) if short[at] != long[at]] == [2]
        assert len(short[2]) in (3, 4)
        assert len(long[2]) >= 6
        assert item.properties["long"][0]["letters"] == len(long[2])
        assert item.properties["long"][0]["frequency"] > 0
    for bound in ("", ", frequency: [1, null]"):  # which is computed alike
        items = sets_of(masked, RECIPE.replace("letters: [6, null]", f"letters: [6, null]{bound}")).items
        assert items[0].properties["long"][0]["frequency"] == sets.items[0].properties["long"][0]["frequency"]
    assert [item.drawn for item in sets.items] == ["short", "long"] * 3
    assert len({tuple(item.texts["short"].words) for item in sets.items}) > 1


def test_a_condition_that_draws_no_item_still_judges_words(masked):
    """The item is drawn under `short`; a copy of the controls of `long` fills in its word."""
    text = RECIPE.replace("letters: [6, null]", "letters: [6, null], frequency: [0, null]")
    (item,) = sets_of(masked, text, "samples=1").items
    assert item.properties["short"][0]["frequency"] > 0


def test_items_are_drawn_under_the_condition_that_is_named(masked):
    assert {item.drawn for item in sets_of(masked, RECIPE + "drawn: long\n").items} == {"long"}
    assert {item.drawn for item in sets_of(masked).items} == {"long", "short"}


def test_items_are_determined_by_the_seed(masked):
    words = [[item.texts["long"].words for item in sets_of(masked, RECIPE, f"seed={seed}").items] for seed in (1, 1, 2)]
    assert words[0] == words[1] != words[2]


def test_a_failing_item_is_redrawn_and_then_reported(masked):
    """Both conditions want the same word, so no item can have two different texts."""
    text = RECIPE.replace("letters: [3, 4]", "words: [bread]").replace("letters: [6, null]", "words: [bread]")
    sets = sets_of(masked, text, "samples=2", "until={max_rounds: 3}")
    assert sets.success == 0.0
    assert all(item.why == "two conditions have the same words" for item in sets.items)
    assert all(item.rounds == 3 for item in sets.items)  # whichever attempt is kept
    wide = text.replace("words: [bread]", "words: [bread, warm]")
    assert max(item.rounds for item in sets_of(masked, wide, "until={max_rounds: 30}").items) > 1
    assert sets_of(masked, wide, "until={max_rounds: 30}").success == 1.0


def test_until_says_which_failed_checks_fail_an_item(masked):
    settings = yaml.safe_load(RECIPE.format(model=masked.folder))
    settings["controls"].append(Predicate(lambda text: False))
    for until, share in (({"satisfied": "any"}, 1.0), ({}, 0.0)):
        recipe = MatchedRecipe.model_validate({**settings, "until": {**until, "max_rounds": 1}})
        assert run_matched(recipe, model=masked).success == share


def test_an_exchanged_word_must_meet_its_condition_whatever_its_tag(masked):
    """Function words pass a list of all words, so a check alone would accept `the`."""
    text = RECIPE.replace("letters: [3, 4]", "words: [warm, cats]").replace("letters: [6, null]", "words: [bakery]")
    text = text.replace("where: {{place: 3}}, ", "")
    items = sets_of(masked, text, "samples=12", "sampler.temperature=20.0", "until={max_rounds: 1}").items
    for item in items:
        fits = all(item.exchanged(name)[0] in fitting for name, fitting in FITTING.items() if name in item.texts)
        assert fits or not item.passed
    assert any("is not in the list" in item.why for item in items)


def test_a_condition_on_a_tag_judges_the_exchanged_word():
    control = Lexicon(where={"tag": "NOUN"}, words=["bread"])
    for tags, place, found in ((["NOUN"], 1, ["is not in the list"]), ([], 1, [])):
        assert faults_of(control & Length(5), 0, Exchanged("very", place, 5, frozenset(tags))) == found
    at_place = Lexicon(where={"place": -4}, words=["bread"])
    assert [bool(faults_of(at_place, 0, Exchanged("very", place, 5, frozenset()))) for place in (1, 2)] == [True, False]


def test_a_duplicate_item_is_redrawn_and_then_reported(masked):
    text = RECIPE.replace("words: 5", "words: 3").replace("place: 3", "place: 2")
    text = text.replace("letters: [3, 4]", "words: [warm]").replace("letters: [6, null]", "words: [bread]")
    text = text.replace("conditions:", "  - lexicon: {{where: {{place: [1, 3]}}, words: [the, a]}}\nconditions:")
    items = sets_of(masked, text, "samples=6", "until={max_rounds: 30}").items
    passed = [tuple(sample.text for sample in item.texts.values()) for item in items if item.passed]
    assert len(set(passed)) == len(passed) == 4  # as many as there are
    assert {item.why for item in items if not item.passed} <= {f"the same texts as item {at}" for at in range(6)}
    assert max(item.rounds for item in items if item.passed) > 1


@pytest.mark.parametrize("more", ["", "control_for: {{letters: 2}}\n"])
def test_no_two_items_have_an_exchanged_word_in_common_under_unique(masked, more):
    text = RECIPE.replace("letters: [3, 4]", "words: [warm, cats]").replace(
        "letters: [6, null]", "words: [bakery, bread]"
    )
    items = sets_of(masked, text + more, "samples=5", "unique=true", "until={max_rounds: 8}").items
    words = [word for item in items if item.passed for name in item.texts for word in item.exchanged(name)]
    assert sorted(words) == ["bakery", "bread", "cats", "warm"]
    faults = [item.why for item in items if not item.passed]
    assert len(faults) == 3
    assert all(
        re.search("has '.*', too|unique: other items have all words|is within the tolerances", why) for why in faults
    )
    repeating = sets_of(masked, text + more, "samples=5", "until={max_rounds: 8}").items
    assert sum(item.passed for item in repeating) > 2


def test_quotas_do_not_apply_to_items(masked):
    with pytest.raises(RecipeError, match="`samples` says how many items are drawn"):
        sets_of(masked, RECIPE, "quota={attempts: 2}")


@pytest.mark.parametrize("until", ["{worst_word: 6}", "{acceptability: 0.9}", "{repair: true}"])
def test_until_settings_that_do_not_apply_to_items_are_refused(masked, until):
    with pytest.raises(RecipeError, match="only `satisfied` and `max_rounds`"):
        sets_of(masked, RECIPE, f"until={until}")


def test_kept_words_that_a_condition_forbids_fail_only_their_item(masked):
    text = RECIPE.replace("  long:", "  other: [avoid: {{words: [bread, '.', the, a]}}]\n  long:")
    sets = sets_of(masked, text, "samples=40", "sampler.temperature=20.0", "until={max_rounds: 1}")
    whys = [item.why for item in sets.items]
    assert any(why.startswith("other: no text of 5 words is left") for why in whys)
    assert "" in whys


def test_the_table_has_a_row_per_item_and_a_column_per_condition(masked, tmp_path):
    sets = sets_of(masked)
    for name, delimiter in (("items.csv", ","), ("items.tsv", "\t")):
        write_table(sets, tmp_path / name)
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
        assert list(rows[0]) == columns_of(sets)
        for row, item in zip(rows, sets.items, strict=True):
            assert row["long"] == item.texts["long"].text
            assert row["long_word"] == item.texts["long"].words[2]
            assert row["short_letters"] == str(len(row["short_word"]))
            assert row["frame"].split()[2] == "___"
            assert row["passed"] == "1"
    write_table(sets, tmp_path / "items.jsonl")
    first = json.loads((tmp_path / "items.jsonl").read_text("utf-8").splitlines()[0])
    assert first["conditions"]["short"]["exchanged"][0]["place"] == 3
    assert first["conditions"]["long"]["checks"]["frame"]["passed"] is True
    for path, message in ((tmp_path / "items.xlsx", "is not known"), (tmp_path / "no" / "items.csv", "does not exist")):
        with pytest.raises(UserError, match=message):
            check_file(path, FORMATS)


def test_a_long_table_has_a_row_for_each_text_with_its_condition(masked, tmp_path):
    sets = sets_of(masked, RECIPE + "control_for: {{zipf: 2}}\n")
    write_table(sets, tmp_path / "items.csv", long=True)
    with (tmp_path / "items.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns_of(sets, long=True)
    assert [(row["item"], row["condition"]) for row in rows[:3]] == [("0", "short"), ("0", "long"), ("1", "short")]
    for row in rows:
        item = sets[int(row["item"])]
        assert row["text"] == item.texts[row["condition"]].text
        assert row["letters"] == str(len(row["word"]))
        assert float(row["difference_zipf"]) == item.differences["zipf"]
    write_table(sets, tmp_path / "items.jsonl", long=True)
    first = json.loads((tmp_path / "items.jsonl").read_text("utf-8").splitlines()[0])
    assert first == sets.to_dicts(long=True)[0]
    assert first["condition"] == "short"
    assert first["letters"] == len(first["word"])


def test_columns_of_norms_do_not_replace_those_of_a_long_table(masked, tmp_path):
    (tmp_path / "norms.csv").write_text("word,text,place\nwarm,5,1\ncats,6,2\nbakery,7,3\n")
    bounds = f"lexicon: {{{{table: '{tmp_path / 'norms.csv'}', where: {{{{place: 3}}}}, text: [5, 7], place: [1, 3]}}}}"
    sets = sets_of(masked, RECIPE.replace("conditions:", f"  - {bounds}\nconditions:"))
    for row in sets.to_dicts(long=True):
        assert row["text"] == sets[row["item"]].texts[row["condition"]].text
        assert (row["word_text"], row["place"]) == {"warm": (5, 1), "cats": (6, 2), "bakery": (7, 3)}[row["word"]]
    assert len(set(columns_of(sets, long=True))) == len(columns_of(sets, long=True))
    write_table(sets, tmp_path / "items.jsonl")
    first = json.loads((tmp_path / "items.jsonl").read_text("utf-8").splitlines()[0])
    (exchanged,) = first["conditions"]["long"]["exchanged"]
    assert (exchanged["place"], exchanged["word"], exchanged["word_place"]) == (3, "bakery", 3)


def test_each_condition_may_have_norms_of_its_own_words(masked, tmp_path):
    (tmp_path / "short.csv").write_text("word,conc\nwarm,2\ncats,5\n")
    (tmp_path / "long.csv").write_text("word,conc\nbakery,4\n")
    text = RECIPE
    for name, bounds in (("short", "letters: [3, 4]"), ("long", "letters: [6, null]")):
        text = text.replace(bounds, f"table: '{tmp_path / name}.csv', conc: [1, 5]")
    for row in sets_of(masked, text).to_dicts():
        assert (row["short_conc"], row["long_conc"]) == ({"warm": 2, "cats": 5}[row["short_word"]], 4)


def test_the_frequencies_of_a_lexicon_are_rounded_too(masked):
    rows = sets_of(masked, RECIPE.replace("letters: [3, 4]", "zipf: [1, 9]")).to_dicts()
    assert all(row["short_zipf"] == round(row["short_zipf"], 2) for row in rows)


def test_python_and_the_command_line_draw_the_same_items(masked, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.format(model=masked.folder))
    by_name = dlmctl.matched(tmp_path / "mine.yaml", samples=2, overrides=["seed=3"])
    by_dict = dlmctl.matched(yaml.safe_load(RECIPE.format(model=masked.folder)), model=masked, samples=2, seed=3)
    assert isinstance(by_name, dlmctl.MatchedSets)
    texts = [
        [{name: sample.text for name, sample in item.texts.items()} for item in one.items] for one in (by_name, by_dict)
    ]
    assert texts[0] == texts[1]
    with pytest.raises(RecipeError, match=r"no `conditions`. `dlmctl.run` draws its texts"):
        dlmctl.matched({"model": str(masked.folder)})
    command = ["matched", "--recipe", str(tmp_path / "mine.yaml"), "-n", "1", "-q"]
    bread = "[lexicon: {where: {place: 3}, words: [bread]}]"
    same = ["--set", f"conditions={{a: {bread}, b: {bread}}}", "--set", "until.max_rounds=1"]
    codes = [CliRunner().invoke(app, [*command, *more]).exit_code for more in (["--strict"], same, [*same, "--strict"])]
    assert codes == [0, 0, 1]


def test_an_existing_table_is_kept_without_force(masked, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.format(model=masked.folder))
    out = tmp_path / "items.csv"
    out.write_text("mine")
    command = ["matched", "--recipe", str(tmp_path / "mine.yaml"), "-n", "1", "-q", "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert "already exists. Name another file, or give --force." in " ".join(refused.stderr.split())
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    assert out.read_text().startswith("item,")


def test_a_row_is_made_without_reading_all_other_items(masked, monkeypatch):
    read, sets = [], sets_of(masked)
    values_of = matched_table._values_of
    monkeypatch.setattr(matched_table, "_values_of", lambda sample: read.append(sample) or values_of(sample))
    assert len(list(matched_table.rows_of(sets))) == len(sets.items)
    assert len(read) == 2 * sum(len(item.texts) for item in sets.items)  # once for the columns, once for the rows


def test_numbers_in_a_table_keep_all_digits():
    assert [_cell(value) for value in (1234567.0, 1234568.0, 4.97, 0.1, None, "A1")] == [
        "1234567",
        "1234568",
        "4.97",
        "0.1",
        "",
        "A1",
    ]


def test_faults_of_recipes_are_reported_with_their_line(masked, tmp_path):
    def fault(old, new):
        text = RECIPE.replace(old, new).format(model=masked.folder)
        with pytest.raises(RecipeError) as caught:
            validate_recipe(*read_recipe(text, "mine.yaml"))
        return str(caught.value)

    assert "mine.yaml:10: exchange: words are named by either `tag` or `place`" in fault("{{place: 3}}\n", "{{}}\n")
    assert "mine.yaml:9: conditions.long.0.lexicon" in fault("letters: [6, null]", "leters: 6")
    assert "mine.yaml:9: lexicon: no word is left" in fault("letters: [6, null]", "letters: [40, 50]")
    assert "cannot be called 'frame'" in fault("short:", "frame:")
    assert "begins like other columns" in fault("short:", "long_word:")
    assert "`drawn` is no condition: 'lang'. Did you mean 'long'?" in fault("samples: 6", "samples: 6\ndrawn: lang")
    (tmp_path / "plain.yaml").write_text(f"model: {masked.folder}\n")
    with pytest.raises(RecipeError, match="has no `conditions`"):
        load_matched(str(tmp_path / "plain.yaml"))
    recipe, file = read_recipe(RECIPE.format(model=masked.folder), "mine.yaml")
    with pytest.raises(RecipeError, match=r"mine.yaml:7: .* Run it with `dlmctl matched .*`dlmctl.matched"):
        run_recipe(recipe, origin=file)
    with pytest.raises(RecipeError, match="at least 2 items"):
        MatchedRecipe(conditions={"one": []}, exchange={"place": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exchange: {{place: 3}}": "exchange: {{place: [6, 9]}}"}, "mine.yaml:10: exchange: no text has a word there"),
        (
            {"[lexicon: {{where: {{place: 3}}, letters: [3, 4]}}]": "[infill: 'the bakery ___ bread .']"}
            | {"[lexicon: {{where: {{place: 3}}, letters: [6, null]}}]": "[infill: 'the garden ___ bread .']"},
            "mine.yaml:10: exchange: word 2 is kept, and no word fits both conditions: 'short' wants 'bakery' and "
            "'long' wants 'garden'. Exchange that word, too",
        ),
        (
            {"exchange: {{place: 3}}": "exchange: {{place: 2}}"},
            "word 3 is kept, and no word fits both conditions: 'short' leaves",
        ),
        (
            {"  - length: {{words: 5}}\n": "  - avoid: {{words: old}}\n"}
            | {"short: [": "short: [length: 4, ", "long: [": "long: [length: 6, "},
            "mine.yaml:7: the texts of an item have the same number of words, and no number fits all conditions.",
        ),
    ],
)
def test_sets_without_any_possible_item_are_refused_before_drawing(masked, changes, message):
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for act in (validate_recipe, lambda recipe, file: run_matched(recipe, model=masked, origin=file)):
        with pytest.raises(RecipeError) as caught:
            act(*read_recipe(text.format(model=masked.folder), "mine.yaml"))
        assert message in str(caught.value)


def test_sets_with_some_possible_items_are_drawn(masked):
    """Every second item has templates that agree."""
    text = RECIPE.replace("  - length: {{words: 5}}\n", "  - avoid: {{words: old}}\n").replace(
        "place: 3}}\n", "place: 2}}\n"
    )
    text = text.replace(
        "lexicon: {{where: {{place: 3}}, letters: [3, 4]}}", "infill: ['the ___ warm .', 'the ___ bread .']"
    )
    text = text.replace("lexicon: {{where: {{place: 3}}, letters: [6, null]}}", "infill: 'the ___ warm .'")
    items = sets_of(masked, text, "samples=2", "until={max_rounds: 1}").items
    assert items[1].why.endswith("frame wants 'warm' there; infill wants 'bread' there.")
    assert len(items[0].texts) == 2


def test_kept_words_are_those_of_the_tokenizer(masked):
    control = KeptWords(words=["the", None, "bakery", "."])
    result = generate(control, model=masked, samples=4)
    assert all([sample.words[at] for at in (0, 2, 3)] == ["the", "bakery", "."] for sample in result)
    check = control(["the", "old", "bridge", "."])
    assert (check.passed, check.where, round(check.score, 2)) == (False, (2,), 0.67)
    assert not control(["the", "bakery"]).passed


def test_sets_are_a_sequence_with_a_table_in_notebooks(masked):
    sets = sets_of(masked)
    assert list(sets) == sets.items
    assert len(sets[:2]) == 2
    assert sets[1:2][0] is sets[1]
    first = sets[0]
    assert repr(first).splitlines()[1:] == [f"  {name}: {first.texts[name].text}" for name in ("short", "long")]
    assert repr(sets[:1]).startswith(f"{first!r}\n1 item in ")
    shown = sets._repr_html_()
    assert shown.count("<tr>") == 1 + len(sets)
    assert f'<b class="o" title="exchanged">{first.exchanged("long")[0]}</b>' in shown
    assert "of them complete" in shown


def test_sets_become_rows_with_numbers(masked):
    sets = sets_of(masked)
    rows = sets.to_dicts()
    assert list(rows[0]) == columns_of(sets)
    assert [row["passed"] for row in rows] == [item.passed for item in sets]
    assert rows[0]["long_letters"] == float(len(sets[0].exchanged("long")[0]))


def test_a_notebook_shows_a_bar_of_items(masked, kernel):
    recipe = {**yaml.safe_load(RECIPE.format(model=masked.folder)), "samples": 1}
    dlmctl.matched(recipe, model=masked)
    assert repr(kernel[1]) == "0 of 1 items"
    assert repr(kernel[-1]) == ""
    before = len(kernel)
    dlmctl.matched(recipe, progress=False)
    assert len(kernel) == before
