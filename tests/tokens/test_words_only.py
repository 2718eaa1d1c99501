"""What is about whole words is refused on models of tokens before anything is drawn."""

import pytest

from controls import Contains, Lexicon
from dlmctl.errors import ModelError, RecipeError
from dlmctl.generation.diagnose import examine
from dlmctl.generation.generate import generate
from dlmctl.recipe.load import read_recipe
from tests.tokens.tokenizers_of_all_kinds import model_of

SAID = "is of words, and this model writes pieces of words"


@pytest.mark.parametrize("params", [{"words": ["the", "river"]}, {"letters": [3, 5], "function_words": False}])
def test_a_lexicon(params):
    with pytest.raises(ModelError, match=f"what `lexicon` lets pass {SAID}.*contains"):
        generate(Lexicon(**params), model=model_of("word pieces"), samples=1)


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
