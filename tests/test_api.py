"""The names that Python code starts from: what there is, what it gives, and what it says where it is used wrongly."""

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import dlmctl
from controls import Avoid, Contains, Length, Pos
from dlmctl import Check, Control, ControlParams, Recipe, UserError
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.recipe import dump_recipe

QUICK = {"steps": 3}


class Bare(dlmctl.Prepared):
    def energy(self, state):
        return 0 * state.x.sum((1, 2))


class Even(Control[ControlParams]):
    """A control of a notebook: no package announces it."""

    name = "even"
    Params = ControlParams
    weight = 2.0

    def prepare(self, batch):
        return Bare()

    def check(self, params, words):
        return Check(1.0, len(words) % 2 == 0, f"<b>{len(words)}</b>\x1b words")


@pytest.fixture(scope="module")
def model(model_folder):
    return dlmctl.load(model_folder)


@pytest.fixture(scope="module")
def result(model):
    return model.generate(Even() & Length(words=4), samples=5, seed=1, sampler=QUICK)


# Names.


def test_every_public_name_is_shown_and_there():
    assert dir(dlmctl) == sorted([*dlmctl.__all__, "__version__"])
    assert all(getattr(dlmctl, name).__name__ == name for name in dlmctl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = dlmctl.lod


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(dlmctl.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    named = {f"{node.module}.{alias.name}" for node in block.body for alias in node.names if alias.asname == alias.name}
    homes = {**dlmctl._PUBLIC, **{name: home for name, (home, _) in dlmctl._DEPRECATED.items()}}
    assert named == {f"dlmctl.{home}.{name}" for name, home in homes.items()}


def test_importing_it_loads_no_torch():
    code = "import dlmctl, sys; dir(dlmctl); dlmctl.Recipe, dlmctl.All; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_old_names_work_for_one_more_version(model_folder):
    for name in ("from_pretrained", "generate", "run_recipe"):
        with pytest.warns(DeprecationWarning, match=rf"dlmctl\.{name} will be removed .* use dlmctl\.(load|run)"):
            found = getattr(dlmctl, name)
        assert found.__name__ == name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dlmctl.load(model_folder)


# A model, and what it gives.


def test_a_loaded_model_generates_is_shown_in_a_line_and_comes_back(model, tmp_path):
    texts = model.generate(samples=3, seed=7, preset="fast").texts
    assert repr(model) == f"Model({str(model.folder)!r}: gaussian, 0.03 M parameters, 24 words)"
    assert "\n" not in repr(model)
    model.save(tmp_path / "again")
    assert dlmctl.load(tmp_path / "again").generate(samples=3, seed=7, preset="fast").texts == texts


def test_results_are_a_sequence(result):
    assert len(result) == 5
    assert result[-1].index == 4
    part = result[1:3]
    assert isinstance(part, dlmctl.Generation)
    assert [sample.index for sample in part] == [1, 2]
    assert part.texts == result.texts[1:3] == [str(sample) for sample in part]
    assert result[2] in result
    assert result.to_dicts()[3] == {**result[3].to_dict(), **result.about}
    assert json.loads(json.dumps(result.to_dicts()))[0]["checks"]["length"]["score"] == 1.0


def test_results_are_shown_with_their_checks(result):
    lines = repr(result).splitlines()
    assert lines[0] == f"{result[0].text}\teven 100% pass\tlength 100% pass"
    assert lines[-1].startswith("5 texts in ")
    assert lines[-1].endswith("100% satisfy every control")
    assert repr(result[0]).splitlines()[1] == "  even: 100% pass, <b>4</b>\\x1b words"
    page = result._repr_html_()
    assert page.count("<tr>") == 6
    assert 'title="&lt;b&gt;4&lt;/b&gt;\\x1b words"' in page
    assert result[0]._repr_html_().count("<tr>") == 2


def test_a_long_result_is_shown_in_part(result):
    many = dlmctl.Generation(result.samples * 20, 1.0)
    assert repr(many).splitlines()[-1].endswith("; 50 of them not shown")
    assert many._repr_html_().count("<tr>") == 51


# Recipes.


def test_a_recipe_runs_by_name_as_a_dict_and_as_an_object(model, tmp_path):
    settings = {"model": str(model.folder), "samples": 2, "seed": 3, "sampler": QUICK, "controls": [{"length": 5}]}
    settings["controls"] = [{"length": {"words": 5}}]
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(settings), "utf-8")
    texts = dlmctl.run(path).texts
    assert all(len(sample.words) == 5 for sample in dlmctl.run(path))
    assert dlmctl.run(settings).texts == texts
    assert dlmctl.run(Recipe(**settings), model=model).texts == texts
    assert dlmctl.run({**settings, "controls": [Length(words=5)]}).texts == texts
    assert dlmctl.run(path, samples=1, seed=3, overrides=["sampler.steps=3"]).texts == texts[:1]


def test_a_recipe_made_in_python_can_be_run_with_another_model(model):
    """A `Recipe` knows what its preset means for its own model; another model was ignored, or got these settings."""
    settings = {"samples": 1, "preset": "fast", "sampler": {"patience": 1}, "controls": [Length(words=4)]}
    recipe = Recipe(model="everyday", **settings)
    assert recipe.sampler.steps is None
    texts = dlmctl.run({**settings, "model": str(model.folder)}).texts
    for other in (model, model.folder):
        result = dlmctl.run(recipe, model=other)
        assert result.about["model"] == str(model.folder)
        assert result.texts == texts
    moved = recipe.changed(model=str(model.folder))
    assert moved.sampler == settings_of("fast").sampler.model_copy(update={"patience": 1})
    assert moved.changed(model="everyday") == recipe
    with pytest.raises(UserError, match=r"one already loaded goes to `dlmctl\.run\(recipe, model=\.\.\.\)`"):
        Recipe(model=model)


def test_what_is_assigned_to_a_recipe_is_validated_and_takes_effect():
    recipe = Recipe(model="everyday", sampler={"min_p": 0.5}, controls=[Length(words=4)])
    before = recipe.model_copy()
    recipe.samples, recipe.preset = 3, "fast"
    assert recipe == before.changed(samples=3, preset="fast")
    assert (recipe.sampler.temperature, recipe.sampler.min_p) == (1.0, 0.5)
    assert before.sampler.temperature == 0.9
    recipe.sampler.steps = 7
    recipe.until = {"max_rounds": 2}
    assert (recipe.sampler.steps, recipe.until.max_rounds) == (7, 2)
    for change, message in [
        (lambda: setattr(recipe, "samples", -3), "samples: input should be greater than or equal to 1, not -3"),
        (lambda: setattr(recipe.sampler, "steps", "x"), "steps: input should be a valid integer, not 'x'"),
        (lambda: recipe.changed(sampels=3), "sampels: unknown key 'sampels'. Did you mean 'samples'?"),
    ]:
        with pytest.raises(dlmctl.SettingsError) as caught:
            change()
        assert str(caught.value).startswith(message)


def test_a_recipe_made_in_python_is_saved_for_the_command_line(tmp_path):
    path = tmp_path / "mine.yaml"
    control = 0.5 * Contains("pub") & ~Length(8) | Length.each([5, 7])
    recipe = Recipe(model="everyday", preset="fast", sampler={"min_p": 0.1}, controls=[control], quota=True)
    dlmctl.save_recipe(recipe, path)
    assert "temperature" not in path.read_text("utf-8")  # follows from the preset
    assert dlmctl.load_recipe(str(path))[0].model_dump() == recipe.model_dump()
    for odd, message in [
        (Recipe(controls=[Even()]), "would not be read back: there is no control 'even'."),
        (
            Recipe(controls=[{"check": len}]),
            "would not be read back: controls.0.check.function: a function is named as",
        ),
        ("pos", "recipe: 'str' is not a recipe."),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            dlmctl.save_recipe(odd, tmp_path / "odd.yaml")
    with pytest.raises(UserError, match=r"mine\.yaml: cannot be written: "):
        dlmctl.save_recipe(recipe, path / "mine.yaml")
    assert sorted(tmp_path.iterdir()) == [path]


def test_settings_to_override_may_be_a_dict(model, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"model": str(model.folder), "samples": 2}), "utf-8")
    plain = dlmctl.run(path, overrides=["seed=3", "sampler.steps=2"]).texts
    for overrides in ({"seed": 3, "sampler.steps": 2}, {"seed": np.int64(3), "sampler": {"steps": 2}}):
        assert dlmctl.run(path, overrides=overrides).texts == plain
    assert len(dlmctl.run(path, overrides="samples=1")) == 1
    assert dlmctl.run(dlmctl.load_recipe(str(path), ["sampler.steps=2"]), seed=3).texts == plain
    for overrides, message in [
        (5, 'overrides: must be a dict of settings, not 5. E.g. {"sampler.steps": 20}.'),
        (["nix"], "overrides: 'nix' is not key=value."),
        ({"sampler": {"stepz": 2}}, "sampler.stepz: unknown key 'stepz'. Did you mean 'steps'?"),
        ({"controls": [Length(words=4)]}, "overrides: controls: a recipe file cannot hold [Length("),
        ({"model": "nix"}, "model: nix: there is no such model."),
    ]:
        with pytest.raises(UserError) as caught:
            dlmctl.run(path, overrides=overrides)
        assert str(caught.value).startswith(message)


def test_a_recipe_holds_controls_that_no_package_announces(model):
    recipe = Recipe(model=str(model.folder), samples=2, sampler=QUICK, controls=[Even(), Length(words=4)])
    assert list(dlmctl.run(recipe)[0].checks) == ["even", "length"]


def test_controls_in_a_recipe_are_written_as_in_yaml():
    many = Length.each([Length.Params(words=4), Length.Params(words=6)])
    controls = [Length(words=4) * 0.5, ~Avoid(words=["no"]), Contains("pub") | (many & Contains("bar")), Even() * 3]
    recipe = Recipe(controls=controls)
    entries = recipe.model_dump()["controls"]
    assert entries[0] == {"length": {"words": 4}, "weight": 0.5}
    assert list(entries[1]) == ["not"]
    assert [list(part) for part in entries[2]["any"]] == [["contains"], ["all"]]
    assert [params["words"] for params in entries[2]["any"][1]["all"][0]["length"]] == [4, 6]
    assert entries[3] == {"even": {}, "weight": 3.0}  # beside the weight of its own
    again, _ = read_recipe(dump_recipe(recipe.model_copy(update={"controls": controls[:3]})), "again")
    assert again.controls == entries[:3]


# What is wrong, and what would be right.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "fsat"}, "preset: there is no preset 'fsat'. Did you mean 'fast'?"),
        ({"preset": ["fast"]}, "preset: there is no preset ['fast']."),
        ({"control": "pos"}, "'pos' is not a control. A control is an object .* dlmctl.run('pos')"),
        ({"control": Length}, "is not a control. Give it its parameters: Length(...)."),
        ({"control": [Length(words=3)]}, "combine several with &, | and ~"),
        ({"samples": -1}, "samples: must be a whole number of 1 or more, not -1."),
        ({"samples": 2.0}, "samples: must be a whole number of 1 or more, not 2.0."),
        ({"samples": True}, "samples: must be a whole number of 1 or more, not True."),
        ({"samples": "8"}, "samples: must be a whole number of 1 or more, not '8'."),
        ({"samples": [0, -2]}, "samples: must be a whole number of 0 or more, not -2."),
        ({"seed": -1}, "seed: must be a whole number of 0 or more, not -1."),
        ({"candidates": 0}, "candidates: must be a whole number of 1 or more, not 0."),
        ({"batch_size": 0}, "batch_size: must be a whole number of 1 or more, not 0."),
        ({"sampler": {"stpes": 3}}, "sampler.stpes: unknown key 'stpes'. Did you mean 'steps'?"),
        ({"sampler": {"steps": "many"}}, "sampler.steps: input should be a valid integer, not 'many'"),
        ({"sampler": 5}, "sampler: must be SamplerSettings or a dict of its settings, not 5. Its settings are name, "),
        ({"guidance": dlmctl.Until()}, "guidance: must be Guidance or a dict of its settings"),
        ({"guidance": {"until": 0.5, "since": 0.2}}, "guidance: it ends at time 0.5"),
        ({"until": {"satisfied": "most"}}, "until.satisfied: "),
        ({"until": {"satisfied": 0.5}, "quota": True}, "until.satisfied: a quota draws until all texts pass"),
        ({"rank_by": "mbs"}, "rank_by: there is no criterion 'mbs'. Did you mean 'mbr'?"),
        ({"rank_by": ["lm_score", 3]}, "rank_by: there is no criterion 3."),
        ({"rank_by": []}, "rank_by: must be one or more of satisfaction, "),
        ({"rank_by": None}, "rank_by: must be one or more of satisfaction, "),
        ({"deterministic": "no"}, "deterministic: must be True or False, not 'no'."),
        ({"trace": [1, 9]}, "trace: there is no sample 9 in this run."),
        ({"device": "toaster"}, "toaster"),
        ({"device": "hpu"}, "device 'hpu' cannot be used. Use auto, cpu, cuda, cuda:1 or mps."),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_message(model, arguments, said):
    with pytest.raises(UserError) as caught:
        model.generate(**arguments)
    assert all(part in str(caught.value) for part in said.split(" .* "))


@pytest.mark.parametrize(
    "arguments",
    [
        {"samples": -1},
        {"preset": "x"},
        {"control": "pos"},
        {"batch_size": 0},
        {"sampler": {"stepz": 1}},
        {"until": {"satisfied": "most"}},
        {"quota": {"attempts": 0}},
        {"quota": True, "until": {"satisfied": "any"}},
        {"trace": -1},
        {"trace": [4], "samples": 4},
        {"deterministic": "no"},
        {"rank_by": "mbs"},
    ],
    ids=str,
)
def test_a_stream_says_so_at_once(model, arguments):
    with pytest.raises(UserError):
        model.stream(**arguments)
    with pytest.raises(TypeError, match="smaples"):
        model.stream(smaples=3)


def test_the_texts_of_a_model_say_their_seed_and_their_model(model):
    result = model.generate(samples=2, sampler=QUICK, seed=np.int64(3))
    assert result.about == {"seed": 3, "model": str(model.folder)}
    assert [record["seed"] for record in result.to_dicts()] == [3, 3]


def test_samples_may_be_numbers_of_numpy(model):
    for some in (np.array([1, 3]), [np.int64(1), np.int32(3)]):
        assert [one.index for one in model.generate(samples=some, sampler=QUICK, trace=np.array([3]))] == [1, 3]
    for none in (np.array([0.5]), np.array(1.5), np.array([[1]])):
        with pytest.raises(UserError, match="samples: must be a whole number"):
            model.generate(samples=none)


def test_a_dict_of_settings_lies_over_the_preset_and_a_criterion_may_stand_alone(model):
    steps = []
    model.generate(samples=1, preset="fast", sampler={"eta": 0.5, "patience": 1.0}, on_step=steps.append)
    assert steps[0].steps == settings_of("fast").sampler.steps
    chosen = model.generate(samples=2, sampler=QUICK, candidates=3, rank_by="mbr", until={"max_rounds": 2})
    assert len(chosen) == 2


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"controls": {"length": 9}}, "controls: should be a list, not a mapping of 'length'. Each has a dash"),
        ({"controls": [Length]}, "is not a control. Give it its parameters: Length(...)."),
        (
            {"controls": [len]},
            "controls.0: <built-in function len> is not a control. A function that judges texts is one as",
        ),
        ({"controls": ["length: 9"]}, "controls.0: a control is written `- name: parameters`, with a space after"),
        ("no-such", "no-such: there is no such recipe file."),
        (7, "recipe: 'int' is not a recipe."),
        ({"samples": 0}, "samples: input should be greater than or equal to 1"),
        ({"controls": ["pos"]}, "controls.0: "),
        ({"controls": [{"length": {"words": 3, "tolerence": 1}}]}, "unknown key 'tolerence'"),
        ({"smaples": 3}, "Did you mean 'samples'?"),
        ({"controls": [Length(words=4), ~Length(words=4)]}, "contradict"),
    ],
    ids=str,
)
def test_a_wrong_recipe_is_one_message(recipe, said):
    with pytest.raises(UserError) as caught:
        dlmctl.run(recipe)
    assert said in str(caught.value)
    assert "controls: controls" not in str(caught.value)


@pytest.mark.parametrize("device", ["hpu", "meta", "xla", "vulkan", "", 5, "cuda:900"])
def test_a_device_to_load_to_is_checked_as_that_of_a_recipe(model, device):
    with pytest.raises(UserError, match=f"device {str(device)!r} cannot be used"):
        dlmctl.load(model.folder, device=device)


def test_a_model_is_loaded_to_a_device_by_name(model):
    assert dlmctl.load(model.folder, device="cpu").model.embedding_table.device.type == "cpu"
    assert len(dlmctl.load(model.folder, device="auto").generate(samples=1, sampler={"steps": 2})) == 1


def test_parameters_of_texts_that_are_not_drawn_have_a_warning(model, caplog):
    each = Length.each([4, 5, 6])
    for samples in (3, 4, [0, 2]):
        model.generate(each, samples=samples, sampler=QUICK)
    assert not caplog.messages
    model.generate(~Length(9) & each, samples=2, sampler=QUICK)
    assert "Length.each has parameters for 3 texts, of which 2 are drawn; samples=3 draws all." in caplog.text


def test_what_a_callback_returns_by_accident_is_no_state(model):
    with pytest.raises(
        UserError, match=r"on_step: must return None, or a state of the shape \[1, \d+, \d+\] .*, not True"
    ):
        model.generate(samples=1, sampler=QUICK, on_step=lambda step: True)  # as the update of a bar does
    assert model.generate(samples=1, sampler=QUICK, on_step=lambda step: step.x).texts


def test_other_wrong_calls_are_one_message(model):
    with pytest.raises(UserError, match="the name of a model"):
        dlmctl.load(model)
    with pytest.raises(UserError, match=r"samples: must be a whole number of 1 or more, not -1\."):
        dlmctl.run("pos", samples=-1)
    for call in (
        model.generate,
        lambda **options: dlmctl.run(Recipe(**options)),
        lambda **options: dlmctl.run(options),
    ):
        with pytest.raises(
            UserError, match=r"^samples: more than 100,000 texts and candidates do not fit into memory\."
        ):
            call(samples=60_000, candidates=2)
    with pytest.raises(UserError, match="label: the model 'e2e' takes no label"):
        dlmctl.run({"model": "e2e", "label": "x"})
    with pytest.raises(UserError, match="overrides: apply only to recipes given by name"):
        dlmctl.run(Recipe(), overrides=["seed=3"])
    with pytest.raises(UserError, match="is not a control"):
        dlmctl.All(["pos"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"length": {"wrds": 3}}, "controls.0.length.wrds: unknown key 'wrds'. Did you mean 'words'?"),
        ({"any": [{"length": [{"words": 3}, {"words": "x"}]}]}, "controls.0.any.0.length.1.words: input should be a "
         "valid integer, not 'x'."),
    ],
)  # fmt: skip
def test_wrong_parameters_in_a_recipe_made_in_python_are_one_message(model, entry, message):
    recipe = Recipe(samples=1, controls=[entry])
    rows = Recipe(samples=1, controls=[entry, {"contains": {"words": ["{word}"]}}], targets=[{"word": "the"}])
    for run in (lambda: dlmctl.run(recipe, model=model), lambda: dlmctl.run(rows, model=model, strict=True)):
        with pytest.raises(dlmctl.RecipeError) as caught:
            run()
        assert str(caught.value).removeprefix("targets:1: ") == message


def test_numbers_and_arrays_of_numpy_are_taken_as_pythons():
    assert Length(np.int64(8), tolerance=np.int32(1)).sets == Length(8, tolerance=1).sets
    assert Contains(np.array(["old", "river"])).sets == Contains("old", "river").sets
    assert Pos(tags=np.array(["DET", "NOUN"])).sets == Pos(tags=["DET", "NOUN"]).sets
    assert Length.each([{"words": np.int64(4)}]).sets[0].words == 4
    recipe = dlmctl.Recipe(samples=np.int64(2), sampler={"steps": np.int64(3)}, controls=[{"length": np.int64(6)}])
    assert (recipe.samples, recipe.sampler.steps, recipe.controls) == (2, 3, [{"length": 6}])
    assert dlmctl.SamplerSettings(temperature=np.float32(0.5), steps=np.int64(7)).steps == 7
    with pytest.raises(UserError, match="valid integer"):
        Length(np.float64(7.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(modle="e2e"), "modle: unknown key 'modle'. Did you mean 'model'?"),
        (lambda: Recipe(sampler={"stps": 3}), "sampler.stps: unknown key 'stps'. Did you mean 'steps'?"),
        (lambda: dlmctl.Guidance(scale="a"), "scale: input should be a valid number, not 'a'."),
        (lambda: Recipe.model_validate({"modle": "e2e"}), "modle: unknown key 'modle'. Did you mean 'model'?"),
        (lambda: Recipe.model_validate(3), "Recipe: should be a mapping, not 3."),
        (
            lambda: Recipe.model_validate_json('{"sampler": {"steps": "a"}}'),
            "sampler.steps: input should be a valid integer, not 'a'.",
        ),
        (
            lambda: Recipe.model_validate_json('{"samples"'),
            "Recipe: Invalid JSON: EOF while parsing an object at line 1 column 10.",
        ),
        (
            lambda: dlmctl.Until.model_validate({"max_rounds": 0}),
            "max_rounds: input should be greater than or equal to 1, not 0.",
        ),
    ],
)
def test_settings_that_do_not_validate_are_one_message_of_ours_and_a_value_error(make, message):
    for kind in (dlmctl.RecipeError, ValueError):
        with pytest.raises(kind) as caught:
            make()
        assert str(caught.value) == message


@pytest.mark.parametrize("name", [str, Path])
def test_a_recipe_runs_with_a_model_by_name(model_folder, name):
    settings = {"samples": 2, "sampler": {"steps": 2}}
    by_name = dlmctl.run(settings, model=name(model_folder))
    assert [text.text for text in by_name] == [
        text.text for text in dlmctl.run({**settings, "model": str(model_folder)})
    ]
    with pytest.raises(UserError, match="'int' is not a model"):
        dlmctl.run(settings, model=3)
    with pytest.raises(UserError, match="'int' is not a model"):
        dlmctl.matched("matched", model=3)


def test_a_bundled_model_has_its_name_in_results_and_any_other_its_folder(model_folder):
    """The folder of an installation means nothing to the readers of a table."""
    bundled = dlmctl.load("everyday")
    assert repr(bundled).startswith("Model('everyday': ")
    assert bundled.generate(samples=1, seed=1).to_dicts()[0]["model"] == "everyday"
    assert dlmctl.run("length", model=bundled, samples=1).to_dicts()[0]["model"] == "everyday"
    assert repr(dlmctl.load(model_folder)).startswith(f"Model('{model_folder}': ")
