import pytest

from dlmctl.errors import RecipeError
from dlmctl.recipe.load import load_recipe, read_recipe
from dlmctl.recipe.recipe import dump_recipe
from dlmctl.recipe.schema import recipe_schema


def fault(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        read_recipe(text, "mine.yaml", overrides)
    return str(caught.value)


def test_a_recipe_reads_back_from_its_dump():
    text = "samples: 3\ncontrols:\n  - pos: {tags: [DET, NOUN]}\n    weight: 0.5\n"
    recipe, _ = read_recipe(text, "mine.yaml")
    again, _ = read_recipe(dump_recipe(recipe), "again.yaml")
    assert again == recipe
    (spec,) = recipe.control_specs()
    assert (spec.name, spec.weight, spec.params) == ("pos", 0.5, [{"tags": ["DET", "NOUN"]}])


def test_nested_controls_are_taken_apart():
    text = """
controls:
  - any:
      - pos: {tags: [DET]}
      - not: {pos: {tags: [NOUN]}}
"""
    (spec,) = read_recipe(text, "mine.yaml")[0].control_specs()
    assert spec.name == "any"
    assert [part.name for part in spec.parts] == ["pos", "not"]
    assert spec.parts[1].parts[0].params == [{"tags": ["NOUN"]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("samples: 3\nsampels: 4\n", "mine.yaml:2: unknown key 'sampels'. Did you mean 'samples'?"),
        ("\nsampler:\n  stepz: 4\n", "mine.yaml:3: unknown key 'stepz'. Did you mean 'steps'?"),
        ("samples: many\n", "mine.yaml:1: samples: input should be a valid integer"),
        ("controls:\n  - poss: {tags: [DET]}\n", "mine.yaml:2: there is no control 'poss'. Did you mean 'pos'?"),
        (
            "controls:\n  - pos:\n      tags: [DET,\n        NUON]\n",
            "mine.yaml:3: controls.0.pos.tags: there is no UPOS tag 'NUON'. Did you mean 'NOUN'?",
        ),
        ("controls:\n  - pos:\n      tag: [DET]\n", "mine.yaml:"),
        ("controls:\n  - {pos: {tags: [DET]}, weight: heavy}\n", "mine.yaml:2: weight must be a number"),
        ("controls:\n  - weight: 1\n", "mine.yaml:2: each list item holds one control"),
        ("samples: 3\nsamples: 4\n", "mine.yaml:2: 'samples' stands twice."),
        ("samples: [3\n", "mine.yaml:2: not valid YAML"),
        ("- 3\n", "mine.yaml:1: a recipe is a mapping"),
    ],
)
def test_faults_name_file_and_line(text, said):
    assert fault(text).startswith(said)


def test_overrides_lie_over_the_file():
    text = "controls:\n  - pos: {tags: [DET]}\n"
    recipe, _ = read_recipe(text, "mine.yaml", ["sampler.steps=7", "controls.0.pos.tags=[NOUN]"])
    assert recipe.sampler.steps == 7
    assert recipe.control_specs()[0].params == [{"tags": ["NOUN"]}]


@pytest.mark.parametrize("override", ["steps", "controls.5.pos=1", "sampler.steps.more=1", "nothing=1"])
def test_bad_overrides_are_refused(override):
    assert fault("sampler: {steps: 4}\ncontrols:\n  - pos: {tags: [DET]}\n", override)


def test_a_missing_recipe_lists_the_bundled_ones():
    with pytest.raises(RecipeError, match="pos"):
        load_recipe("no-such-recipe.yaml")


def test_bundled_recipes_load_by_name_and_by_file_name():
    assert load_recipe("pos")[0] == load_recipe("pos.yaml")[0]


def test_the_schema_knows_the_controls():
    schema = recipe_schema()
    assert "tags" in schema["$defs"]["control_pos"]["properties"]
    assert set(schema["$defs"]["control"]["properties"]) >= {"pos", "any", "all", "not", "weight"}
