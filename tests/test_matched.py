"""Matched sets on a masked model of random weights: frames that stay, words that differ, tables of them."""

import csv
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.control.kept import Kept
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.diagnose import validate_recipe
from dlmctl.generation.generate import generate
from dlmctl.generation.matched import run_matched
from dlmctl.generation.matched_table import FORMATS, columns_of, write_table
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


@pytest.fixture(scope="module")
def masked(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("models") / "masked"
    torch.manual_seed(0)
    sizes = LlamaConfig(hidden=16, layers=1, heads=2, inner=24, max_length=16)
    config = MaskedConfig.model_validate({"vocab_size": len(tokenizer), "length": 16, "denoiser": sizes})
    save_pretrained(MaskedLM(config), tokenizer, folder)
    save_counts(count_words(np.concatenate([tokenizer.encode(words) for words in SENTENCES]), tokenizer), folder)
    return from_pretrained(folder)


def sets_of(masked, text=RECIPE, *overrides):
    recipe, file = read_recipe(text.format(model=masked.folder), "mine.yaml", overrides)
    return run_matched(recipe, model=masked, origin=file)


def test_only_the_word_exchanged_differs_and_each_condition_holds(masked):
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
    assert [item.drawn for item in sets.items] == ["short", "long"] * 3
    assert len({tuple(item.texts["short"].words) for item in sets.items}) > 1


def test_the_same_seed_gives_the_same_items_and_another_others(masked):
    words = [[item.texts["long"].words for item in sets_of(masked, RECIPE, f"seed={seed}").items] for seed in (1, 1, 2)]
    assert words[0] == words[1] != words[2]


def test_an_item_that_fails_is_drawn_again_and_else_reported(masked):
    """Both conditions want the same word, so that no item can have two texts that differ."""
    text = RECIPE.replace("letters: [3, 4]", "words: [bread]").replace("letters: [6, null]", "words: [bread]")
    sets = sets_of(masked, text, "samples=2", "until={max_rounds: 3}")
    assert sets.success == 0.0
    assert all(item.why == "two conditions have the same words" for item in sets.items)
    assert all(item.rounds == 1 for item in sets.items)  # of equally bad tries the first is kept
    wide = text.replace("words: [bread]", "words: [bread, warm]")
    assert max(item.rounds for item in sets_of(masked, wide, "until={max_rounds: 30}").items) > 1
    assert sets_of(masked, wide, "until={max_rounds: 30}").success == 1.0


@pytest.mark.parametrize("until", ["{worst_word: 6}", "{acceptability: 0.9}", "{repair: true}"])
def test_what_says_nothing_of_whole_items_is_refused(masked, until):
    with pytest.raises(RecipeError, match="`satisfied` and `max_rounds` alone"):
        sets_of(masked, RECIPE, f"until={until}")


def test_words_kept_that_a_condition_forbids_are_the_items_fault_alone(masked):
    text = RECIPE.replace("  long:", "  other: [avoid: {{words: [bread, '.', the, a]}}]\n  long:")
    sets = sets_of(masked, text, "samples=40", "sampler.temperature=20.0", "until={max_rounds: 1}")
    whys = [item.why for item in sets.items]
    assert any(why.startswith("other: no text of 5 words is left") for why in whys)
    assert "" in whys


def test_the_table_has_a_row_an_item_and_a_column_a_condition(masked, tmp_path):
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
    assert first["conditions"]["long"]["checks"]["kept"]["passed"] is True
    for path, said in ((tmp_path / "items.xlsx", "is not known"), (tmp_path / "no" / "items.csv", "does not exist")):
        with pytest.raises(UserError, match=said):
            check_file(path, FORMATS)


def test_recipes_are_read_and_refused_with_their_line(masked, tmp_path):
    def fault(old, new):
        text = RECIPE.replace(old, new).format(model=masked.folder)
        with pytest.raises(RecipeError) as caught:
            validate_recipe(*read_recipe(text, "mine.yaml"))
        return str(caught.value)

    assert "mine.yaml:10: exchange: words are named by `tag` or by `place`" in fault("{{place: 3}}\n", "{{}}\n")
    assert "mine.yaml:9: conditions.long.0.lexicon" in fault("letters: [6, null]", "leters: 6")
    assert "mine.yaml:9: lexicon: no word is left" in fault("letters: [6, null]", "letters: [40, 50]")
    assert "cannot be called 'frame'" in fault("short:", "frame:")
    assert "begins like another one" in fault("short:", "long_word:")
    (tmp_path / "plain.yaml").write_text(f"model: {masked.folder}\n")
    with pytest.raises(RecipeError, match="has no `conditions`"):
        load_matched(str(tmp_path / "plain.yaml"))
    recipe, file = read_recipe(RECIPE.format(model=masked.folder), "mine.yaml")
    with pytest.raises(RecipeError, match=r"mine.yaml:7: .* Run it with `dlmctl matched"):
        run_recipe(recipe, origin=file)
    with pytest.raises(ValidationError, match="at least 2 items"):
        MatchedRecipe(conditions={"one": []}, exchange={"place": 1})


def test_words_kept_are_those_of_the_tokenizer(masked):
    control = Kept(words=["the", None, "bakery", "."])
    result = generate(control, model=masked, samples=4)
    assert all([sample.words[at] for at in (0, 2, 3)] == ["the", "bakery", "."] for sample in result)
    check = control(["the", "old", "bridge", "."])
    assert (check.passed, check.where, round(check.score, 2)) == (False, (2,), 0.67)
    assert not control(["the", "bakery"]).passed
