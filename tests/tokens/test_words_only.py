"""What is about whole words is refused on models of tokens before anything is drawn."""

import pytest

from controls import Contains, Length
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.errors import ModelError, RecipeError
from dlmctl.generation.diagnose import examine
from dlmctl.generation.generate import generate
from dlmctl.recipe.load import read_recipe
from tests.checkpoint.tiny_vendors import write_llada
from tests.tokens.tokenizers_of_all_kinds import model_of

SAID = "is of words, and this model writes pieces of words"


def test_repair():
    drawn = []
    with pytest.raises(ModelError, match=f"what `until.repair` draws again {SAID}"):
        generate(
            Contains("river"),
            model=model_of("word pieces"),
            samples=1,
            until={"repair": True},
            progress=lambda done, total: drawn.append(done),
        )
    assert not drawn
    recipe, file = read_recipe("samples: 1\nuntil:\n  repair: true\n", "mine.yaml")
    with pytest.raises(RecipeError, match=rf"^mine\.yaml:3: .*`until.repair` draws again {SAID}"):
        examine(recipe, model_of("word pieces"), file)


def test_a_phrase_that_is_no_word_to_the_model():
    with pytest.raises(RecipeError, match=r"^'</s>' has no word\.$"):
        generate(Contains("</s>"), model=model_of("bytes"), samples=1)


def test_numbers_of_tokens_are_called_so(tmp_path):
    model = from_pretrained(write_llada(tmp_path / "m"))
    with pytest.raises(RecipeError, match=r"length: no text of up to 3 tokens, as sampler\.new_tokens allows"):
        generate(Length(30), model=model, samples=1, sampler={"new_tokens": 4})
