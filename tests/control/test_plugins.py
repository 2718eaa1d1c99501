"""Discovery and description of controls, and faulty packages."""

import logging
import os
import shutil
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from dlmctl.control.base import Control, ControlParams
from dlmctl.control.catalogue import Plugin, find_plugin, in_yaml, installed, type_name
from dlmctl.control.labels import Labels
from dlmctl.control.registry import find_control, offered_controls
from dlmctl.control.skeleton import write_skeleton
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.schema import recipe_schema

PLAIN = '''
from pydantic import BaseModel, ConfigDict, Field
from dlmctl.control.base import Control, ControlParams

class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    {field}: int = 0

class Params(ControlParams):
    places: list[Place] | None = Field(None, description="where")

class Plain(Control[Params]):
    """A control for the tests."""
    name = "{name}"
    Params = Params
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, control: str, code: str, attribute: str = "Plain", version: str = "1.0") -> None:
        module = f"{package}_{control}"  # of its own: a module stays imported
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[dlmctl.controls]\n{control} = {module}:{attribute}\n")

    return install


def plain(name: str, field: str = "start") -> str:
    return PLAIN.format(name=name, field=field)


def test_a_package_is_found_and_named(install):
    install("acme", "plain_one", plain("plain_one"), version="4.2")
    plugin = find_plugin("plain_one")
    assert (plugin.origin, plugin.summary) == ("acme 4.2", "A control for the tests.")
    assert plugin in installed()[0]


def test_what_is_installed_or_removed_later_is_noticed(install, tmp_path):
    """The files of packages are read again where a folder has changed."""
    os.utime(tmp_path, (0, 0))
    assert "plain_late" not in offered_controls()
    install("acme", "plain_late", plain("plain_late"))
    os.utime(tmp_path, (1, 1))
    assert find_plugin("plain_late").origin == "acme 1.0"
    shutil.rmtree(tmp_path / "acme-1.0.dist-info")
    assert "plain_late" not in offered_controls()


def test_dlmctls_own_control_is_not_displaced(install, caplog):
    install("aaa", "pos", plain("pos"))
    with caplog.at_level(logging.WARNING):
        assert find_control("pos").__module__ == "controls.pos"
        find_control("pos")
    (message,) = caplog.messages  # once a process
    assert "'pos'" in message
    assert "dlmctl " in message
    assert "not aaa 1.0" in message


def test_of_two_packages_the_first_by_name_is_taken(install):
    for package in ("zulu", "alpha"):  # whichever was installed first
        install(package, "plain_two", plain("plain_two"))
    assert [point.dist.name for point in offered_controls()["plain_two"] if point.dist] == ["alpha", "zulu"]
    assert find_plugin("plain_two").origin == "alpha 1.0"


FAULTS = {
    "no_module": ("import nothing_of_this_name", "fails to import: ModuleNotFoundError: No module named"),
    "syntax": ("def", "fails to import: SyntaxError: invalid syntax"),
    "exits": ("raise SystemExit('needs a licence.')", "fails to import: SystemExit: needs a licence."),
    "silent": ("raise RuntimeError", "fails to import: RuntimeError."),
    "no_class": ("", "fails to import: AttributeError: module"),
    "no_control": (
        "Plain = dict",
        "cannot be used: faulty_no_control:Plain is not a subclass of dlmctl.control.base.Control.",
    ),
    "renamed": (plain("other"), "cannot be used: faulty_renamed:Plain has name = 'other', but is registered as"),
    "weight": (plain("weight"), "cannot be used: faulty_weight:Plain has a name that is reserved in recipes"),
    "former": (
        plain("former") + "    def word_count(self, sample):\n        return 3, 3\n"
        "    def energy(self, state):\n        return state.x\n",
        "cannot be used: faulty_former:Plain was written for dlmctl 0.1 (it has energy, word_count); docs/controls.md, "
        "From 0.1, says what to change.",
    ),
    "moved": (
        "from dlmctl.control import Check, Control, Setting",
        "was written for another version of dlmctl (it needs something from dlmctl.control that is missing); "
        "docs/controls.md, From 0.1, says what to change.",
    ),
    "gone": (
        "from dlmctl.tokenizer import Tokenizer",
        "was written for another version of dlmctl (it needs something from dlmctl.tokenizer that is missing); ",
    ),
    "no_params": (
        "from dlmctl.control.base import Control\nclass Plain(Control):\n    name = 'no_params'",
        "cannot be used: faulty_no_params:Plain has no Params, a pydantic model.",
    ),
    "no_schema": (
        plain("no_schema") + "    class Params(ControlParams):\n        found: type(len) = len\n",
        "fails to import: PydanticSchemaGenerationError",
    ),
    "no_json": (
        "from collections.abc import Callable\n" + plain("no_json") + "    class Params(ControlParams):\n"
        "        found: Callable[[int], int]\n",
        "has Params without a JSON schema: PydanticInvalidForJsonSchema",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_package_is_named_and_does_not_break_the_others(install, caplog, name):
    code, said = FAULTS[name]
    install("faulty", name, code)
    install("sound", "plain_three", plain("plain_three"))
    plugins, broken = installed()
    assert "plain_three" in [plugin.name for plugin in plugins]
    (fault,) = [one for one in broken if one.name == name]
    assert fault.origin == "faulty 1.0"
    assert fault.fault.startswith(said)
    with pytest.raises(UserError, match=r"faulty 1\.0"):
        find_plugin(name)
    with caplog.at_level(logging.WARNING):
        definitions = recipe_schema()["$defs"]
    assert "control_plain_three" in definitions
    assert f"control_{name}" not in definitions
    assert any(f"{name!r} of faulty 1.0" in message for message in caplog.messages)
    read_recipe("controls: [{plain_three: {}}]", "sound.yaml")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"name": "mine", "Params": None}, "has no Params, a pydantic model."),
        ({"name": "mine"}, "has no Params, a pydantic model."),
        ({"Params": ControlParams}, "has no name."),
        ({"name": None, "Params": ControlParams}, "has name = None, and a name is a line of text."),
        ({"name": "", "Params": ControlParams}, "has name = '', and a name is a line of text."),
        ({"name": "a\x1b[31m\n", "Params": ControlParams}, "has name = 'a\\x1b[31m\\n', and a name is a line of text."),
        ({"name": "not", "Params": ControlParams}, "has a name that is reserved in recipes (all, any, not, weight)."),
    ],
    ids=str,
)
def test_a_class_that_cannot_be_a_control_is_one_message_where_it_is_made(members, said):
    kind = type("Mine", (Control,), members)
    with pytest.raises(UserError) as caught:
        kind()
    assert str(caught.value) == f"control class Mine ({kind.__module__}): {said}"


@pytest.mark.parametrize("line", ["name = ''", "name = None", "name = 'not'", ""])
def test_a_class_in_a_file_needs_a_name(tmp_path, line):
    (tmp_path / "mine.py").write_text(
        f"from dlmctl import Control, ControlParams\nclass Mine(Control):\n    Params = ControlParams\n    {line}\n"
    )
    with pytest.raises(UserError, match=r"mine\.py: cannot be used: Mine has (no |a )?name"):
        find_control(f"{tmp_path}/mine.py:Mine")


def test_a_recipe_that_names_a_faulty_control_gets_its_line(install):
    install("faulty", "stumbles", "import nothing_of_this_name")
    with pytest.raises(RecipeError, match=r"mine.yaml:3: control 'stumbles' of faulty 1.0: fails to import"):
        read_recipe("samples: 2\ncontrols:\n  - stumbles: {}\n", "mine.yaml")


def test_nested_models_of_one_name_keep_apart_in_the_schema(install):
    install("first", "plain_four", plain("plain_four", field="start"))
    install("second", "plain_five", plain("plain_five", field="finish"))
    definitions = recipe_schema()["$defs"]
    for name, field in (("plain_four", "start"), ("plain_five", "finish")):
        choices = definitions[f"control_{name}"]["properties"]["places"]["anyOf"]
        reference = next(choice["items"]["$ref"] for choice in choices if "items" in choice)
        assert list(definitions[reference.removeprefix("#/$defs/")]["properties"]) == [field]


def test_an_unknown_key_inside_a_list_of_models_is_explained(install):
    install("acme", "plain_six", plain("plain_six"))
    with pytest.raises(RecipeError, match=r"mine.yaml:4: unknown key 'stat'. Did you mean 'start'\?"):
        read_recipe("controls:\n  - plain_six:\n      places:\n        - stat: 1\n", "mine.yaml")


# What ships is described by the same means.


@pytest.mark.parametrize(
    "name", [name for name, points in offered_controls().items() if points[0].dist.name == "dlmctl"]
)
def test_the_examples_of_what_ships_are_valid(name):
    plugin = find_plugin(name)
    assert plugin.summary.endswith(".")
    recipe = plugin.recipe_example("e2e")
    assert recipe is not None, "its parameters need examples"
    read, _ = read_recipe(recipe, f"{name}.yaml")
    assert read.control_specs()[0].params == [plugin.example]
    code = plugin.python_example("e2e")
    assert code is not None
    scope: dict[str, Any] = {}
    exec(code[: code.index("for sample in")], scope)
    assert "dlmctl.load('e2e').generate(control, samples=4)" in code
    made = scope["control"]
    assert made.sets == (plugin.kind.Params.model_validate(plugin.example),)
    assert all(parameter.description for parameter in plugin.parameters())


# Descriptions.


def plugin_of(params: type[BaseModel], **attributes: Any) -> Plugin:
    kind = type("Kind", (Control,), {"name": "kind", "Params": params, **attributes})
    return Plugin("kind", "acme 1.0", "acme", "Kind", kind)


class Either(ControlParams):
    """One of two."""

    left: int | None = Field(None, examples=[3])
    right: int | None = Field(None, examples=[4])

    def model_post_init(self, context: Any) -> None:
        if (self.left is None) == (self.right is None):
            raise ValueError("left or right")


class Loose(ControlParams):
    words: list[str] = Field(min_length=1)


class Whole(ControlParams):
    """Keys of any name, and an example of the whole."""

    model_config = {"extra": "allow", "json_schema_extra": {"examples": [{"colour": "red"}]}}
    __pydantic_extra__: dict[str, str]


def test_the_example_is_the_first_that_is_valid():
    assert plugin_of(Either).example == {"left": 3}
    assert plugin_of(Whole).example == {"colour": "red"}


def test_without_examples_nothing_is_made_up():
    plugin = plugin_of(Loose)
    assert plugin.example is None
    assert plugin.recipe_example("e2e") is None
    assert plugin.python_example("e2e") is None


def test_parameters_in_words():
    rows = {one.name: one for one in plugin_of(Either).parameters()}
    assert (rows["left"].type, rows["left"].required, rows["left"].default) == ("integer or null", False, "null")
    assert rows["left"].examples == ["3"]
    (row,) = plugin_of(Whole).parameters()
    assert row[:3] == ("any other name", "string", False)
    (row,) = plugin_of(Loose).parameters()
    assert (row.type, row.required, row.default) == ("list of string", True, None)


class Tree(BaseModel):
    label: Literal["NP", "VP"]
    children: list["Tree"] = []


class Types(BaseModel):
    share: float = Field(ge=0, lt=1)
    tree: Tree
    costs: dict[str, int]
    settings: dict[str, Any]
    anything: Any
    pair: list[float | None] = Field(min_length=2, max_length=2)
    several: list[str] = Field(min_length=2)
    few: list[str] = Field(min_length=1, max_length=9)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("share", "number from 0 below 1"),
        ("tree", "{label: NP or VP, children: list of Tree}"),
        ("costs", "mapping to integer"),
        ("settings", "object"),
        ("anything", "anything"),
        ("pair", "list of 2 (number or null)"),
        ("several", "list of 2 or more string"),
        ("few", "list of 1 to 9 string"),
    ],
)
def test_types_in_words(field, name):
    schema = Types.model_json_schema()
    assert type_name(schema["properties"][field], schema["$defs"]) == name


@pytest.mark.parametrize("value", ["*", "no", 1.5, None, ["ADJ|NOUN", "*"], {"food": "Italian"}, "a: b", "x" * 300])
def test_values_are_written_as_a_recipe_reads_them(value):
    assert "\n" not in in_yaml(value)
    assert yaml.safe_load(in_yaml(value)) == value


def test_trainable_is_who_brings_labels():
    assert plugin_of(Loose, Labels=Labels).trainable
    assert not plugin_of(Loose).trainable


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ([], "missing"),
        (["model"], "present"),
        (["mood/model", "genre/model"], "present: genre, mood"),
        (["mood/"], "missing"),
    ],
)
def test_weights_are_looked_for_beside_the_model(tmp_path, beside, said):
    (tmp_path / "config.json").write_text("{}")
    for path in beside:
        file = tmp_path / "controls" / "kind" / f"{path}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            file.touch()
    trainable = plugin_of(Loose, Labels=Labels)
    assert trainable.weights(str(tmp_path)) == said
    assert f"{said} for the model" in trainable.training_notes(str(tmp_path))[0]
    assert plugin_of(Loose).weights(str(tmp_path)) == "none needed"


# A package of one's own; tests/cli/test_controls.py installs one.


@pytest.mark.parametrize("name", ["", "Rhyme", "2nd", "a-b", "a b", "a__b", "a_", "../a", "class!", "all", "weight"])
def test_names_that_cannot_be_a_controls_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"cannot be the name of a control|means something else"):
        write_skeleton(name, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["alliteration", "word_2_order", "control", "checks", "class", "batch"])
def test_the_files_of_a_new_package_are_whole(name, tmp_path):
    files = write_skeleton(name, tmp_path / "mine")
    module = next(tmp_path / "mine" / file for file in files if file.name == f"dlmctl_{name}.py")
    for file in files:
        assert "$" not in (tmp_path / "mine" / file).read_text()
    scope: dict[str, Any] = {"__name__": module.stem}
    exec(compile(module.read_text(), module, "exec"), scope)
    (kind,) = [one for one in scope.values() if isinstance(one, type) and getattr(one, "name", "") == name]
    long, short = kind(longest=4).verdicts([0, 1], [["a", "large", "owl"], ["an", "owl"]])
    assert (long.passed, short.passed) == (False, True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_skeleton("alliteration", tmp_path / "file" / "mine")
