"""Matched sets whose exchanged words are matched on properties of words."""

import csv
import json

import pytest

from dlmctl.errors import RecipeError
from dlmctl.generation.control_for import ControlFor
from dlmctl.generation.diagnose import validate_recipe
from dlmctl.generation.matched_table import columns_of, write_table
from dlmctl.recipe.load import read_recipe
from dlmctl.text.syllables import syllables
from tests.test_matched import RECIPE, masked, sets_of

__all__ = ["masked"]  # the fixture

MATCHED = RECIPE + "control_for: {{letters: 2, zipf: 0.5}}\n"
ONE_ROUND = "until={max_rounds: 1}"
NORMS = (
    "word,valence,level\nwarm,7.25,A1\ncats,6,A1\ngrey,4,B1\nnear,NA,A1\n"
    "bakery,7,A1\ngarden,7.5,B1\npaints,5.9,A1\nbridge,,B1\n"
)
LEXICONS = (
    "lexicon: {{where: {{place: 3}}, letters: [3, 4]}}",
    "lexicon: {{where: {{place: 3}}, letters: [6, null]}}",
)


def words_of(sets, condition):
    return [word for item in sets.items for word in item.exchanged(condition)]


def test_exchanged_words_are_within_the_tolerances_in_the_first_round(masked):
    """Of the words of `short`, those with three letters have no counterpart, so no text is drawn with them."""
    assert 3 in map(len, words_of(sets_of(masked, RECIPE, "samples=12", ONE_ROUND), "short"))
    sets = sets_of(masked, MATCHED, "samples=12", ONE_ROUND)
    assert all(item.passed or item.why.startswith("the same texts as item") for item in sets.items)
    assert {len(word) for word in words_of(sets, "short")} == {4}
    assert all(item.differences["letters"] == 2 and item.differences["zipf"] <= 0.5 for item in sets.items)
    assert all("control_for" not in sample.checks for item in sets.items for sample in item.texts.values())


def test_words_are_matched_on_syllables(masked, tmp_path):
    text = MATCHED.replace("letters: 2, zipf: 0.5", "syllables: 1").replace("letters: [3, 4]", "letters: [4, 4]")
    sets = sets_of(masked, text, "samples=4")
    write_table(sets, tmp_path / "items.csv")
    with (tmp_path / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        counts = [syllables(row[f"{name}_word"]) for name in sets.conditions]
        assert [row[f"{name}_syllables"] for name in sets.conditions] == [str(count) for count in counts]
        assert row["difference_syllables"] == str(abs(counts[0] - counts[1]))


def test_every_two_of_three_conditions_are_within_the_tolerances(masked):
    """Words of four and of six letters are each within one of `five`, but not of each other."""
    text = MATCHED.replace("letters: [3, 4]", "letters: [3, 6]").replace("letters: [6, null]", "letters: [4, null]")
    text = text.replace("exchange:", "  five: [lexicon: {{where: {{place: -3}}, letters: 5}}]\nexchange:")
    text = text.replace("exchange: {{place: 3}}", "exchange: {{place: -3}}").replace("letters: 2,", "letters: 1,")
    items = sets_of(masked, text, "samples=12", "sampler.temperature=20.0", ONE_ROUND).items
    assert all(item.differences["letters"] <= 1 for item in items)
    letters = {tuple(len(item.exchanged(name)[0]) for name in ("short", "long", "five")) for item in items}
    assert len(letters) > 1


def test_words_are_matched_on_columns_of_a_table(masked, tmp_path):
    """Words without a value are not exchanged; names must be the same."""
    (tmp_path / "norms.csv").write_text(NORMS)
    bounds = "where: {{place: 3}}, valence: [1, 9], level: [A1, B1]"
    lexicon = f"  - lexicon: {{{{table: '{tmp_path / 'norms.csv'}', {bounds}}}}}"
    text = MATCHED.replace("conditions:", f"{lexicon}\nconditions:").replace("zipf: 0.5", "valence: 0.25, level: 0")
    sets = sets_of(masked, text, "samples=12", "sampler.temperature=20.0", ONE_ROUND)
    pairs = set(zip(words_of(sets, "short"), words_of(sets, "long"), strict=True))
    assert pairs == {("warm", "bakery"), ("cats", "paints")}
    assert {item.differences["valence"] for item in sets.items} == {0.25, 0.1}
    with pytest.raises(
        RecipeError, match=r"'level' has names, such as 'A1', which can only be the same. Write `level: 0`"
    ):
        sets_of(masked, text.replace("level: 0", "level: 1"))


def test_words_are_matched_in_syllables(masked, tmp_path):
    sets = sets_of(masked, RECIPE + "control_for: {{syllables: 1}}\n", "sampler.temperature=20.0", ONE_ROUND)
    write_table(sets, tmp_path / "items.csv")
    with (tmp_path / "items.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        short, long = (syllables(row[f"{name}_word"]) for name in sets.conditions)
        assert (row["short_syllables"], row["long_syllables"]) == (str(short), str(long))
        assert int(row["difference_syllables"]) == abs(long - short) <= 1


def test_words_exchanged_by_tag_are_within_the_tolerances(masked):
    text = MATCHED.replace("exchange: {{place: 3}}", "exchange: {{tag: NOUN}}").replace("letters: 2", "letters: 0")
    for old, new in zip(LEXICONS, ("avoid: the", "avoid: a"), strict=True):
        text = text.replace(old, new)
    items = [item for item in sets_of(masked, text, "samples=12", "sampler.temperature=9.0").items if item.places]
    within = [item.differences.get("letters") == 0 for item in items if len(item.texts) == 2]
    assert within
    assert all(within)


def test_an_item_whose_word_has_no_counterpart_is_reported(masked):
    """What a template has at the place is known only once it is drawn."""
    text = MATCHED.replace(LEXICONS[0], "infill: '___ ___ the ___ ___'")
    for item in sets_of(masked, text, "samples=2", ONE_ROUND).items:
        said = "long: control_for: no word is within the tolerances"
        assert item.why == said or item.drawn == "long"
        assert not item.passed


def test_words_are_looked_up_once(masked, monkeypatch):
    """In a large vocabulary that takes seconds, so the run uses what was looked up to check the recipe."""
    columns, looked_up = ControlFor._column, []
    monkeypatch.setattr(ControlFor, "_column", lambda self, *args: looked_up.append(args[0]) or columns(self, *args))
    assert sets_of(masked, MATCHED, "samples=2").items
    assert looked_up == ["letters", "zipf"]


def test_the_table_says_how_far_the_words_differ(masked, tmp_path):
    sets = sets_of(masked, MATCHED, "samples=2")
    write_table(sets, tmp_path / "items.csv")
    with (tmp_path / "items.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns_of(sets)
    for row in rows:
        zipf = [float(row[f"{name}_zipf"]) for name in sets.conditions]
        assert row["difference_letters"] == "2"
        assert float(row["difference_zipf"]) == pytest.approx(abs(zipf[0] - zipf[1]))
    write_table(sets, tmp_path / "items.jsonl")
    first = json.loads((tmp_path / "items.jsonl").read_text("utf-8").splitlines()[0])
    assert first["differences"]["letters"] == 2


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_syllables_are_numbers_in_tables(masked, tmp_path, ending):
    """Without a lexicon that bounds them."""
    sets = sets_of(masked, MATCHED.replace("letters: 2, zipf: 0.5", "syllables: 5"), "samples=2", ONE_ROUND)
    write_table(sets, tmp_path / f"t.{ending}")
    assert "syllables" in (tmp_path / f"t.{ending}").read_text()
    assert {type(item.properties["long"][0]["syllables"]) for item in sets.items} == {float}


@pytest.mark.parametrize(
    ("control_for", "message"),
    [
        ("{letters: 1}", r"control_for: no item can be within the tolerances: the 8 words of 'short' and the 4 of "
         "'long' differ by 2 or more in letters. Widen the tolerances, or the bounds of the conditions."),
        ("{leters: 1}", "nothing knows the property 'leters'. Did you mean 'letters'? Columns of a `table` are known"),
        ("{letters: -1}", "control_for.letters: input should be greater than or equal to 0, not -1."),
        ("{letters: true}", "control_for.letters: input should be a valid number"),
        ("{letters: .nan}", "control_for.letters: input should be a finite number, not nan."),
    ],
)  # fmt: skip
def test_tolerances_that_cannot_be_met_are_refused_with_numbers(masked, control_for, message):
    text = f"{RECIPE.format(model=masked.folder)}control_for: {control_for}\n"
    with pytest.raises(RecipeError) as caught:
        validate_recipe(*read_recipe(text, "mine.yaml"))
    assert str(caught.value).startswith("mine.yaml:11: ")
    assert message in str(caught.value)
