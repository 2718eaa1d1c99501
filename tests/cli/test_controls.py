"""Third-party controls: installed with pip into a separate folder, then used by name."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.datasets.dataset import write_split
from dlmctl.text.tokenizer import WordTokenizer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
# What the packages need is here already, and the tests need no network.
LOCAL = ["--no-index", "--no-build-isolation"]


def run(*command: object, python: Path | str = sys.executable, cwd: Path | None = None, **environment: str):
    settings = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(
        [str(python), *map(str, command)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **settings}
    )


def dlmctl(*arguments: object, **options):
    return run("-c", "from dlmctl.cli import main; main()", *arguments, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> str:
    """A folder in which a working and a broken third-party package are installed."""
    folder = tmp_path_factory.mktemp("site")
    sources = tmp_path_factory.mktemp("sources")  # building leaves files beside the sources
    for name in ("third_party", "broken_package"):
        shutil.copytree(FIXTURES / name, sources / name)
    done = run(*PIP, "install", "--no-deps", *LOCAL, "--target", folder, *sources.iterdir())
    assert done.returncode == 0, done.stderr
    return str(folder)


@pytest.fixture
def run_here(site, monkeypatch):
    """Run a command in this process, in which the packages are installed meanwhile."""
    monkeypatch.syspath_prepend(site)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory) -> Path:
    """A copy of the tiny model, to save weights with."""
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("own") / "tiny"))


def write_recipe(path: Path, model: Path, controls: str) -> Path:
    path.write_text(f"model: {model}\nsamples: 3\nsampler: {{steps: 4}}\ncontrols:\n  - {controls}\n")
    return path


def test_the_list_has_every_control_and_says_which_fail(run_here, model):
    done = run_here("controls", "list", "--model", model)
    assert done.exit_code == 0, done.stderr
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()}
    origin = "wordplay-controls 1.2.0"
    assert rows["lipogram"] == [
        "No word has the letter in it, but for some exceptions.",
        origin,
        "no training",
        "none needed",
    ]
    assert rows["topic"] == ["The text is about one of three subjects.", origin, "trainable", "missing"]
    assert rows["pos"][2:] == ["trainable", "present"]
    fault = "fails to import: ModuleNotFoundError: No module named 'a_package_that_nobody_has'."
    assert rows["stumble"][:2] == [fault, "broken-controls 0.3.0"]


def test_show_has_parameters_examples_and_weights(site, model):
    done = dlmctl("controls", "show", "lipogram", "--model", model, PYTHONPATH=site)
    assert done.returncode == 0, done.stderr
    output = done.stdout
    assert output.startswith("lipogram, from wordplay-controls 1.2.0\n")
    assert "letter\tstring\trequired\tthe letter to do without\te\n" in output
    assert "exceptions\tlist of {word: string}\toptional\twords that may have it\t[{word: the}]\n" in output
    assert "- lipogram:\n    letter: e\n" in output
    assert "from wordplay.lipogram import Lipogram\n" in output
    assert "Weights\nnone needed" in output


@pytest.mark.parametrize(
    ("name", "model", "asked"),
    [
        ("contains", "everyday", "words: [children, river]"),
        ("classifier", "everyday", "classifier: {label: positive, name: sentiment}"),
        ("semantic", "e2e", "semantic: {area: riverside, food: Italian}"),
    ],
)
def test_the_example_is_of_a_bundled_model_that_can_draw_it(name, model, asked):
    shown = CliRunner().invoke(app, ["controls", "show", name]).stdout
    assert f"model: {model}\n" in shown
    assert f"dlmctl.load('{model}')" in shown
    assert asked in shown


OWN = """
from dlmctl import Check, Control, ControlParams

class Caps(Control):
    \"\"\"Says it with capitals.\"\"\"
    name, Params = "caps", ControlParams

    def check(self, params, words):
        return Check(1.0, True, "")
"""


def test_a_control_of_a_file_is_shown_as_recipes_name_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    shown = CliRunner().invoke(app, ["controls", "show", "own.py:Caps", "--model", "e2e"]).stdout
    assert shown.startswith("own.py:Caps, from own.py\nSays it with capitals.\n")
    assert "- own.py:Caps: {}\n" in shown
    assert "from own import Caps\n" in shown
    assert "Weights\nnone needed" in shown


def test_a_file_stands_alone(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("from own import Caps\n")
    (tmp_path / "elsewhere").mkdir()
    done = dlmctl("controls", "show", "../beside.py:Caps", cwd=tmp_path / "elsewhere")
    assert done.returncode == 2
    assert "No module named 'own'. Such a file can import installed packages only" in done.stderr


def test_show_json_is_the_schema_of_the_parameters(site):
    schema = json.loads(dlmctl("controls", "show", "lipogram", "--json", PYTHONPATH=site).stdout)
    assert schema["required"] == ["letter"]
    assert schema["properties"]["letter"]["pattern"] == "^[a-z]$"


def test_a_control_that_needs_no_torch_is_described_without_it(site):
    code = "import sys, dlmctl.control.catalogue as p; p.find_plugin('lipogram').parameters()"
    code += "; print('torch' in sys.modules)"
    assert run("-c", code, PYTHONPATH=site).stdout.strip() == "False"


def test_a_broken_control_is_one_message_wherever_it_is_named(run_here, model, tmp_path):
    recipe = write_recipe(tmp_path / "mine.yaml", model, "stumble: {}")
    named = "control 'stumble' of broken-controls 0.3.0: fails to import: ModuleNotFoundError"
    for command in (["controls", "show", "stumble"], ["recipe", "validate", recipe]):
        done = run_here(*command)
        assert done.exit_code == 2
        assert named in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert "mine.yaml:5: control 'stumble'" in done.stderr


def test_a_recipe_names_a_third_party_control(site, model, tmp_path):
    recipe = write_recipe(tmp_path / "mine.yaml", model, "lipogram: {letter: e}")
    done = dlmctl("generate", "--recipe", recipe, "--json", PYTHONPATH=site)
    assert done.returncode == 0, done.stderr
    for sample in json.loads(done.stdout)["samples"]:
        assert sample["checks"]["lipogram"]["passed"] == (not re.search("e", sample["text"], re.IGNORECASE))


def test_of_two_packages_with_one_name_the_first_is_taken_and_the_other_named(site, tmp_path):
    rival = shutil.copytree(Path(site) / "wordplay_controls-1.2.0.dist-info", tmp_path / "zebra-2.0.dist-info")
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: zebra\nVersion: 2.0\n")
    done = dlmctl("controls", "show", "lipogram", "--json", PYTHONPATH=f"{tmp_path}{os.pathsep}{site}")
    assert json.loads(done.stdout)["required"] == ["letter"]
    assert done.stderr.splitlines() == [
        "dlmctl: several packages offer a control 'lipogram': that of wordplay-controls 1.2.0 is used, not zebra 2.0."
    ]


def test_a_third_party_control_is_trained_and_then_guides(run_here, model, tokenizer: WordTokenizer, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    tokenizer.save(data)
    kinds = ["small", "warm", "noisy", "grey", "old"]
    texts = [f"the {kind} {subject} .".split() for kind in kinds for subject in ("bread", "garden", "river")]
    write_split(data, "train", [tokenizer.encode(text) for text in texts])
    write_split(data, "valid", [tokenizer.encode(["a", *text[1:]]) for text in texts])
    recipe = write_recipe(tmp_path / "mine.yaml", model, "topic: {about: river}")

    before = run_here("generate", "--recipe", recipe)
    assert before.exit_code == 2
    assert "the control 'topic' has no weights" in before.stderr

    settings = ["steps=300", "lr=0.02", "ema=0.5", "warmup=0", "batch_positions=256", "full_share=0", "precision=fp32"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    train = ["train", "control", "topic", "--model", model, "--data", data, "--out", tmp_path / "run", *overrides]
    done = run_here(*train)
    assert done.exit_code == 0, done.stderr
    card = json.loads((model / "controls" / "topic" / "card.json").read_text())
    assert card["validation"]["accuracy_x_t_0"] > 0.6  # by chance a third

    after = run_here("generate", "--recipe", recipe, "--json")
    assert after.exit_code == 0, after.stderr
    assert len(json.loads(after.stdout)["samples"]) == 3
    listed = json.loads(run_here("controls", "list", "--json", "--model", model).stdout)
    assert {"name": "topic", "weights": "present"}.items() <= next(r for r in listed if r["name"] == "topic").items()


def test_a_new_package_installs_passes_its_tests_and_generates(model_folder, tmp_path):
    folder = tmp_path / "mine"
    done = dlmctl("controls", "new", "plain_words", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "pyproject.toml",
        "README.md",
        "recipe.yaml",
        "dlmctl_plain_words.py",
        "tests/test_dlmctl_plain_words.py",
    }

    # An environment of its own that sees the packages of this one.
    venv.create(tmp_path / "venv")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in outer))
    python = tmp_path / "venv" / "bin" / "python"
    done = run(*PIP, "install", *LOCAL, "-e", ".", python=python, cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run("-m", "pytest", "-q", python=python, cwd=folder)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    recipe = ["generate", "--recipe", "recipe.yaml", "--model", model_folder, "--steps", 4, "--json"]
    done = dlmctl(*recipe, python=python, cwd=folder)
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout)["samples"]
    assert len(samples) == 4
    for sample in samples:
        assert sample["checks"]["plain_words"]["passed"] == all(len(word) <= 7 for word in sample["words"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300, "cannot be the name of a control."),
        ("Word-Order", "'Word-Order' cannot be the name of a control. Use lower-case letters"),
        ("any", "'any' means something else in recipes"),
        ("pos", "there is a control 'pos' already, from dlmctl "),
    ],
)
def test_new_refuses_bad_names(name, message, tmp_path):
    done = dlmctl("controls", "new", name, "--out", tmp_path / "mine")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "mine").exists()


def test_new_leaves_existing_folders_alone(tmp_path):
    done = dlmctl("controls", "new", "alliteration", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"dlmctl: {tmp_path}: already exists. Give another folder with --out.\n"
    assert not list(tmp_path.iterdir())


def test_descriptions_come_without_the_markup_of_docstrings():
    from dlmctl.control.catalogue import find_plugin, installed

    plugins, _ = installed()
    assert all("``" not in plugin.description for plugin in plugins)
    assert find_plugin("check").summary.endswith("up to `until.max_rounds` rounds.")
