"""Every recipe that ships runs as it stands on the bundled model; here with few steps, for the machinery's sake."""

import pytest

from dlmctl.checkpoint.bundled import bundled_names
from dlmctl.generation.matched import run_matched
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import load_recipe
from dlmctl.recipe.matched import MatchedRecipe


@pytest.mark.parametrize("name", bundled_names("recipes"))
def test_every_bundled_recipe_runs(name):
    recipe, _ = load_recipe(name, ["samples=2", "sampler.steps=3", "candidates=1"])
    if recipe.until is not None:
        recipe.until.max_rounds = 2
    if isinstance(recipe, MatchedRecipe):
        assert all(set(item.texts) == set(recipe.conditions) for item in run_matched(recipe).items)
        return
    result = run_recipe(recipe)
    assert len(result) == 2
    assert all(sample.words and sample.problem is None for sample in result)
    assert all(bool(sample.checks) == bool(recipe.controls) for sample in result)


def test_there_is_a_recipe_for_every_control_that_has_weights_or_needs_none():
    import yaml

    from dlmctl.checkpoint.bundled import bundled_path
    from dlmctl.control.registry import offered_controls

    texts = [bundled_path("recipes", name).read_text("utf-8") for name in bundled_names("recipes")]
    used = {key for text in texts for entry in yaml.safe_load(text).get("controls", []) for key in entry}
    # A function is the user's own.
    assert set(offered_controls()) - used == {"check"}
