import pytest

from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.presets import PRESETS, settings_of
from dlmctl.recipe.settings import Guidance, SamplerSettings


def test_balanced_is_the_default_of_the_settings_themselves():
    assert settings_of("balanced") == (SamplerSettings(), Guidance())
    assert read_recipe("{}", "r.yaml")[0].preset == "balanced"


def test_paper_is_the_original_procedure():
    sampler, guidance = settings_of("paper")
    assert (sampler.name, sampler.steps, sampler.eta, sampler.clamp, sampler.canvas) == ("auto", 200, 1.0, True, "full")
    assert (guidance.method, guidance.updates, guidance.step_size) == ("langevin", 3, 0.1)


@pytest.mark.parametrize(("model", "family"), [("e2e", "gaussian"), ("everyday", "masked")])
@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_takes_its_preset_where_it_says_nothing(name, model, family):
    recipe, _ = read_recipe(f"preset: {name}\nmodel: {model}", "r.yaml")
    assert (recipe.sampler, recipe.guidance) == settings_of(name, family)


def test_what_a_recipe_says_itself_stands():
    recipe, _ = read_recipe("model: e2e\npreset: paper\nsampler: {steps: 7}", "r.yaml", ["guidance.updates=2"])
    assert (recipe.sampler.steps, recipe.sampler.clamp, recipe.guidance.updates) == (7, True, 2)


def test_a_resolved_recipe_resolves_to_itself():
    from dlmctl.recipe.recipe import dump_recipe

    recipe, _ = read_recipe("preset: fast\nsampler: {eta: 0.5}", "r.yaml")
    assert read_recipe(dump_recipe(recipe), "again.yaml")[0] == recipe


def test_an_unknown_preset_and_a_wrong_setting_beside_one_name_their_line():
    with pytest.raises(RecipeError, match=r"r\.yaml:1"):
        read_recipe("preset: quick", "r.yaml")
    with pytest.raises(RecipeError, match=r"r\.yaml:2.*stepz"):
        read_recipe("preset: paper\nsampler: {stepz: 7}", "r.yaml")


def test_full_canvas_draws_on_all_positions(pretrained):
    lengths = {
        canvas: {len(sample.latent) for sample in generate(model=pretrained, samples=3, sampler=sampler)}
        for canvas in ("fitted", "full")
        for sampler in [SamplerSettings(steps=2, canvas=canvas)]
    }
    assert lengths["full"] == {pretrained.model.config.length}
    assert max(lengths["fitted"]) <= pretrained.model.config.length


def test_generate_takes_a_preset(pretrained):
    seen = []
    generate(model=pretrained, samples=1, preset="fast", on_step=lambda step: seen.append(step.number) or None)
    assert len(seen) == settings_of("fast").sampler.steps
