"""Settings that a model does not use are refused."""

import pytest

import dlmctl
from dlmctl.errors import RecipeError
from dlmctl.generation.diagnose import examine
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.presets import FAMILIES, settings_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.unused_settings import require_used
from tests.checkpoint.tiny_vendors import write_llada

# Families whose models are all checkpoints over tokens; of uniform models, some are.
OVER_TOKENS = ("tokens", "canvas")
# A family, a setting that it does not read, and a family that does.
CASES = [
    ("tokens", "rounding", "l2", "gaussian"),
    ("masked", "eta", 0.5, "gaussian"),
    ("uniform", "clamp", True, "gaussian"),
    ("canvas", "temperature", 1.0, "masked"),
    ("canvas", "min_p", 0.1, "masked"),
    ("canvas", "new_tokens", 64, "tokens"),
    ("tokens", "canvas", "full", "masked"),
    ("gaussian", "block", 8, "masked"),
    ("gaussian", "new_tokens", 3, "tokens"),
    ("masked", "new_tokens", 3, "tokens"),
    ("uniform", "new_tokens", 3, "tokens"),
]


@pytest.mark.parametrize(("family", "name", "value", "reads"), CASES)
def test_settings_that_a_family_does_not_use(family, name, value, reads):
    with pytest.raises(RecipeError, match=rf"^sampler\.{name}: has no meaning for a .*model"):
        require_used(SamplerSettings(**{name: value}), family, over_tokens=family in OVER_TOKENS)
    require_used(SamplerSettings(**{name: value}), reads, over_tokens=reads in OVER_TOKENS)


@pytest.mark.parametrize(
    ("name", "value", "beside"),
    [
        ("remask", 0.5, {"name": "remasking"}),
        ("reward", "score", {"particles": 2}),
        ("reward_scale", 3.0, {"particles": 2}),
        ("resample_every", 5, {"particles": 2}),
    ],
)
def test_settings_without_effect_next_to_the_others(name, value, beside):
    with pytest.raises(RecipeError, match=rf"^sampler\.{name}: has no meaning without .* Leave sampler\.{name} out"):
        require_used(SamplerSettings(**{name: value}), "masked", over_tokens=False)
    require_used(SamplerSettings(**{name: value}, **beside), "masked", over_tokens=False)


def test_uniform_models_over_tokens_have_new_tokens_and_no_canvas():
    require_used(SamplerSettings(new_tokens=3), "uniform", over_tokens=True)
    with pytest.raises(RecipeError, match=r"^sampler\.canvas: has no meaning for a model over tokens"):
        require_used(SamplerSettings(canvas="full"), "uniform", over_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_explicit_defaults_are_not_refused(family):
    require_used(SamplerSettings(**SamplerSettings().model_dump()), family, over_tokens=family in OVER_TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_of_presets_are_used(family):
    for preset in FAMILIES[family]:
        require_used(settings_of(preset, family).sampler, family, over_tokens=family in OVER_TOKENS)


def test_the_error_comes_before_drawing_and_has_a_line(tmp_path):
    model = dlmctl.load(write_llada(tmp_path / "m"))
    with pytest.raises(RecipeError, match=r"^sampler\.condition_scale: has no meaning"):
        model.generate(samples=1, sampler={"condition_scale": 2.0, "new_tokens": 4})
    text = f"model: {tmp_path / 'm'}\nsamples: 1\nsampler:\n  new_tokens: 4\n  eta: 0.5\n"
    recipe, file = read_recipe(text, "mine.yaml")
    with pytest.raises(RecipeError, match=r"^mine\.yaml:5: sampler\.eta: has no meaning"):
        examine(recipe, model, file)
