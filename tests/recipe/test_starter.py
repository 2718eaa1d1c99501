"""New recipes: commented, valid, known to editors; and recipes as programs."""

import json
import sys

import pytest
import yaml
from typer.testing import CliRunner

import dlmctl
from dlmctl.cli import app
from dlmctl.control.catalogue import installed
from dlmctl.errors import RecipeError
from dlmctl.recipe.as_code import python_code
from dlmctl.recipe.load import load_recipe, read_recipe
from dlmctl.recipe.starter import COMMENTED_OUT, read_entry, starter

# A control in a file of the user's own.
OWN = '''
from dlmctl import Check, Control, ControlParams

class Params(ControlParams):
    letters: int

class Short(Control[Params]):
    """Every word is short."""
    name = "short"
    Params = Params

    def check(self, params, words):
        return Check(1.0, all(len(word) <= params.letters for word in words), "")
'''


def run(*arguments, answers=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=answers)


def test_a_new_recipe_is_what_the_flags_say_and_editors_find_its_schema(tmp_path):
    file = tmp_path / "mine.yaml"
    flags = ["-c", "length: {words: 9}", "-c", "{not: {contains: {words: [cat]}}, weight: 2}", "-n", 3, "--seed", 5]
    said = run("recipe", "new", file, *flags, "--preset", "fast", "--description", "cats: none")
    assert said.exit_code == 0, said.output
    text = file.read_text("utf-8")
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    schema = json.loads((tmp_path / "recipe.schema.json").read_text("utf-8"))
    assert "control_length" in schema["$defs"]
    recipe, _ = load_recipe(str(file))
    assert (recipe.samples, recipe.seed, recipe.preset, recipe.description) == (3, 5, "fast", "cats: none")
    assert recipe.controls == [{"length": {"words": 9}}, {"not": {"contains": {"words": ["cat"]}}, "weight": 2}]
    assert "# tolerance: 0" in text
    nowhere = run("recipe", "new", file.parent / "no" / "mine.yaml")
    assert "the folder does not exist. Make it first." in nowhere.output
    refused = run("recipe", "new", file)
    assert refused.exit_code == 2
    assert "exists already" in refused.output
    assert run("recipe", "new", file, "--force").exit_code == 0
    assert load_recipe(str(file))[0].controls == []


def test_a_new_recipe_that_does_not_fit_is_named_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(path):
        path.write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlmctl.recipe.starter.write_schema", full)
    said = run("recipe", "new", tmp_path / "mine.yaml", "-n", 3)
    assert said.exit_code == 2
    assert "recipe.schema.json: cannot be written: No space left on device." in said.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("plugin", installed()[0], ids=lambda plugin: plugin.name)
def test_the_settings_left_out_can_be_uncommented(plugin):
    """What stands behind # is a setting with its default, so taking the # away changes nothing."""
    given = {"controls": [read_entry(plugin.name)]}
    text = starter(given, "a.yaml", None)
    lines = []
    for line in text.splitlines():
        bare = line.replace("# ", "", 1)
        is_setting = line.lstrip().startswith("# ") and bare.lstrip().split(":")[0].isidentifier()
        lines.append(
            bare if is_setting and not bare.lstrip().startswith(f"{plugin.name}: {plugin.summary[:8]}") else line
        )
    opened = "\n".join(lines)
    assert opened != text
    assert set(COMMENTED_OUT) <= set(yaml.safe_load(opened))
    (entry,) = yaml.safe_load(opened)["controls"]
    validate = plugin.kind.Params.model_validate
    assert validate(entry[plugin.name]).model_dump() == validate(given["controls"][0][plugin.name]).model_dump()
    assert read_recipe(opened, "opened")[0].candidates == 1


def test_in_a_terminal_it_asks_until_the_answers_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dlmctl.cli.recipe.sys", type("Terminal", (), {"stdin": type("In", (), {"isatty": lambda: True})})
    )
    answers = ["everyday", "lenght", "length", "many", "12", "contains", "[tea]", "", "4"]
    said = run("recipe", "new", tmp_path / "a.yaml", answers="\n".join(answers) + "\n")
    assert said.exit_code == 0, said.output
    assert "There is no control 'lenght'." in said.output
    assert "valid integer" in said.output
    recipe, _ = load_recipe(str(tmp_path / "a.yaml"))
    assert recipe.controls == [{"length": {"words": 12}}, {"contains": {"words": ["tea"]}}]
    assert recipe.samples == 4


def test_controls_that_cannot_be_are_said(tmp_path):
    assert "Did you mean 'length'" in run("recipe", "new", tmp_path / "a.yaml", "-c", "lenght").output
    assert run("recipe", "new", tmp_path / "a.yaml", "-c", "length: {words: 0}").exit_code == 2
    assert not (tmp_path / "a.yaml").exists()
    with pytest.raises(RecipeError, match=r"--control: a control is a name or"):
        read_entry("[1, 2]")


def test_the_schema_goes_to_a_file(tmp_path):
    assert run("recipe", "schema", "--out", tmp_path / "s.json").output == ""
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == json.loads(run("recipe", "schema").output)


def test_a_recipe_as_python_asks_for_the_same(tmp_path):
    settings = {
        "model": "e2e",
        "samples": 3,
        "sampler": {"steps": 7},
        "controls": [
            {"length": {"words": 9, "tolerance": 1}, "weight": 0.5},
            {"any": [{"contains": {"words": ["pub"]}}, {"not": {"contains": {"words": ["cheap"]}}}]},
            {"length": [{"words": 8}, {"words": 9}]},
        ],
    }
    code = python_code(read_recipe(yaml.safe_dump(settings), "r")[0])
    assert code.count("0.5 * ") == code.count(" * ") == 1
    asked = {}

    class Model:
        def generate(self, control, **arguments):
            asked.update(control=control, **arguments)
            return []

    program = code.replace("dlmctl.load('e2e')", "model")
    exec(program, {"model": Model(), "dlmctl": dlmctl})
    assert asked.pop("samples") == 3
    assert asked.pop("sampler")["steps"] == 7
    made = dlmctl.Recipe(controls=asked.pop("control").parts).model_dump()["controls"]
    assert made == settings["controls"]
    assert set(asked) <= {"guidance"}
    assert sys.modules["controls.length"]


def code_of(settings):
    return python_code(read_recipe(yaml.safe_dump(settings), "r")[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": {"temperature": 0.9, "name": "random"}}, "sampler={'name': 'random'}"),
        ({"sampler": {"temperature": 0.8}}, "sampler={'temperature': 0.8}"),
        ({"preset": "quality", "sampler": {"temperature": 0.9}}, "preset='quality', sampler={'temperature': 0.9}"),
        ({"preset": "quality"}, "preset='quality'"),
        ({"model": "e2e", "guidance": {"scale": 4.0}, "targets": None, "candidates": 1, "device": "auto"}, ""),
        ({"samples": 8, "until": {}}, "samples=8, until={}"),
    ],
)
def test_a_program_leaves_out_what_would_be_the_same_without_it(settings, said):
    assert f"in model.generate({said}):" in code_of(settings)


def test_a_program_has_parameters_whose_names_are_no_names_in_python(monkeypatch):
    fields = {"food": "Italian", "customer rating": "high", "class": "a"}
    sets = {"controls": [{"semantic": fields}, {"semantic": [fields, {"food": "French"}]}]}
    asked = []
    monkeypatch.setattr(
        "dlmctl.load", lambda _: type("Model", (), {"generate": lambda _, control: asked.append(control) or []})()
    )
    exec(code_of(sets), {})
    assert [[one.fields for one in part.sets] for part in asked[0].parts] == [[fields], [fields, {"food": "French"}]]


@pytest.mark.parametrize("own", [False, True], ids=["targets", "a control in a file"])
def test_what_control_objects_cannot_say_is_a_program_with_a_recipe(own, tmp_path, model_folder, capsys):
    settings = {"model": str(model_folder), "samples": 2, "sampler": {"steps": 3}}
    if own:
        (tmp_path / "own.py").write_text(OWN)
        settings["controls"] = [{"all": [{f"{tmp_path / 'own.py'}:Short": {"letters": 3}}]}]
    else:
        settings |= {"targets": [{"n": 4}, {"n": 6}], "controls": [{"length": {"words": "{n}"}}]}
    code = code_of(settings)
    assert "recipe = dlmctl.Recipe(" in code
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [f"{one.text} {one.passed}" for one in dlmctl.run(settings)]


def test_matched_sets_are_no_program():
    assert python_code(load_recipe("matched")[0]).startswith("# Matched sets are drawn by `dlmctl matched")


def test_a_new_recipe_says_at_once_which_model_has_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("recipe", "new", "mine.yaml", "-c", "semantic")
    assert said.exit_code == 0
    assert "Not yet: mine.yaml:" in said.stderr
    assert "the control 'semantic' has no weights for this model" in said.stderr
    assert "Bundled models with the weights: e2e. Give --model e2e." in said.stderr
    said = run("recipe", "new", "mine.yaml", "-c", "semantic", "--model", "e2e", "--force")
    assert (said.exit_code, said.stderr) == (0, "")
