"""The documentation: examples run, commands and link targets exist, tables name every setting."""

import importlib
import itertools
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import MagicMock, create_autospec

import pytest
import typer
import yaml
from pydantic import BaseModel

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.cli import app
from dlmctl.control.catalogue import installed
from dlmctl.control.registry import find_control
from dlmctl.errors import UserError
from dlmctl.generation.diagnose import examine
from dlmctl.models import ARCHITECTURES
from dlmctl.recipe.load import load_recipe, read_recipe
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.settings import Guidance, SamplerSettings, Until
from dlmctl.training.config import LoopConfig, shipped_configs

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def examples(page: Path) -> dict[str, str]:
    """The blocks that are files, by file name: ``<!-- file: NAME -->`` precedes the fence."""
    files = re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return dict(files)


def python(*arguments: object, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of docs/controls.md, with entry points that are found if the folder is on the path."""
    folder = tmp_path_factory.mktemp("package")
    for name, text in examples(REPO / "docs" / "controls.md").items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (group, entry_points), *other_groups = project["entry-points"].items()
    assert not other_groups
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entry_points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_written_control_passes_its_own_test(package):
    run = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=package, path=package)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


def test_the_written_control_runs_from_a_recipe(package, model_folder):
    command = ["-c", "from dlmctl.cli import main; main()", "generate", "--recipe", "alliteration.yaml", "--json"]
    run = python(*command, "--model", model_folder, "--steps", 3, cwd=package, path=package)
    assert run.returncode == 0, run.stderr
    samples = json.loads(run.stdout)["samples"]
    assert len(samples) == 4
    assert all("'c'" in sample["checks"]["alliteration"]["why"] for sample in samples[::2])
    assert all("'b'" in sample["checks"]["alliteration"]["why"] for sample in samples[1::2])


def test_the_written_trainable_control_trains_and_guides(package, model_folder, tmp_path, monkeypatch):
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.datasets.existing_tokenizer import find_tokenizer
    from dlmctl.datasets.prepare import prepare
    from dlmctl.generation.generate import generate
    from dlmctl.training.classifier import train_control

    monkeypatch.syspath_prepend(package)
    control = importlib.import_module("dlmctl_sentences").Sentences
    halves = ("the bakery sells bread .", "a noisy garden hides two cats .", "the bridge .", "the small garden .")
    (tmp_path / "texts.txt").write_text("\n".join([*halves, *map(" ".join, itertools.combinations(halves, 2))] * 4))
    pretrained = from_pretrained(shutil.copytree(model_folder, tmp_path / "model"))
    vocabulary = find_tokenizer(str(pretrained.folder), None)
    prepare(tmp_path / "texts.txt", None, tmp_path / "data", tokenizer=vocabulary, valid_share=0.5)
    folder = train_control(
        control, pretrained, LoopConfig(steps=2, batch_positions=64), tmp_path / "data", tmp_path / "run"
    )
    assert folder == pretrained.folder / "controls" / "sentences"
    result = generate(control(count=2), model=pretrained, samples=2, device="cpu")
    assert all(sample.checks["sentences"].why.endswith("sentences") for sample in result)


def snippet(page: str) -> object:
    snippets = [block for block in blocks(REPO / page, "python") if "print(sample.text" in block]
    assert len(snippets) == 1
    return compile(snippets[0], page, "exec")


def test_the_readme_snippet_runs_as_it_stands(capsys):
    exec(snippet("README.md"), {})
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_what_the_page_of_training_calls_from_python_exists(monkeypatch):
    (snippet,) = (block for block in blocks(REPO / "docs/training.md", "python") if "train_control" in block)
    calls = []
    for name in ("dlmctl.datasets.prepare.prepare", "dlmctl.training.classifier.train_control"):
        real = create_autospec(pkgutil.resolve_name(name))
        monkeypatch.setattr(name, lambda *given, real=real, **named: calls.append(real(*given, **named)))
    monkeypatch.setattr("dlmctl.load", lambda _: MagicMock())
    exec(compile(snippet, "docs/training.md", "exec"), {})
    assert len(calls) == 2


def test_the_plugin_snippet_runs(package, monkeypatch, capsys):
    monkeypatch.syspath_prepend(package)
    exec(snippet("docs/controls.md"), {})
    assert len(capsys.readouterr().out.splitlines()) == 4


def commands() -> list[tuple[str, str]]:
    """Every call of dlmctl in the shell blocks, with its page, without the commands before and after it."""
    calls = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                call = re.search(r"(?:^|[ /])dlmctl ([a-z].*)", line.split(" | ")[0])
                if call:
                    calls.append((page.name, call[1].split(" && ")[0]))
    return calls


@pytest.mark.parametrize(("page", "call"), commands())
def test_commands_exist_with_their_options(page, call):
    command, arguments = typer.main.get_command(app), shlex.split(call)
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, f"{page}: dlmctl {call}"
        command = command.commands[arguments.pop(0)]
    params = command.make_context(call, arguments).params
    if command.name in ("lm", "control", "scorer") and "config" in params and "--config" in call:
        assert params["config"] in shipped_configs()


# Models that were trained on from the bundled one, which they have everything from.
FINETUNED = [f"--model {call.split('--out ')[1]}/model" for _, call in commands() if "everyday-finetune" in call]
OWN_MODEL_CALLS = [
    (page, call)
    for page, call in commands()
    if "--recipe" in call and "--model runs/" in call and not any(model in call for model in FINETUNED)
]


@pytest.mark.parametrize(("page", "call"), OWN_MODEL_CALLS)
def test_recipes_for_models_trained_by_the_pages_need_nothing_that_these_lack(page, call):
    """A model trained from scratch by the pages has not learned acceptability, and a latent one has no order of
    writing."""
    command, arguments = typer.main.get_command(app).commands["generate"], shlex.split(call)[1:]
    params = command.make_context(call, arguments).params
    recipe, _ = load_recipe(params["recipe"], params["settings"] or [])
    bounds_acceptability = recipe.until is not None and recipe.until.acceptability is not None
    assert not bounds_acceptability
    assert "acceptability" not in recipe.rank_by or recipe.candidates == 1
    assert recipe.sampler.name in ("auto", "ancestral", "ddim")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_have_targets(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL))
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}"


@pytest.mark.parametrize("kind", [MatchedRecipe, SamplerSettings, Guidance, Until])
def test_recipes_page_names_every_setting(kind):
    assert not missing(kind, REPO / "docs" / "recipes.md")


def test_training_page_names_every_setting():
    from dlmctl.diffusion.masked import MaskedSettings
    from dlmctl.diffusion.model import LabelSettings, ModelSettings, SourceSettings
    from dlmctl.models.llama import LlamaConfig
    from dlmctl.training.checkpoint import CheckpointSettings, CheckpointTrainingConfig
    from dlmctl.training.lm import LanguageModelConfig
    from dlmctl.training.masked import MaskedTrainingConfig
    from dlmctl.training.scorer import ScorerConfig, ScorerSizes

    page = REPO / "docs" / "training.md"
    denoisers = [architecture.config for architecture in ARCHITECTURES.values()]
    for kind in (
        LoopConfig,
        ModelSettings,
        *denoisers,
        LanguageModelConfig,
        MaskedTrainingConfig,
        MaskedSettings,
        CheckpointTrainingConfig,
        CheckpointSettings,
        LlamaConfig,
        ScorerConfig,
        ScorerSizes,
        LabelSettings,
        SourceSettings,
    ):
        assert not missing(kind, page)
    assert not [name for name in shipped_configs() if f"`{name}`" not in page.read_text("utf-8")]


# Files and models that readers bring themselves.
READERS_OWN = ("runs/", "unit3.txt", "norms.csv", "me/my-classifier", "LLaDA")


def recipes_of(page: Path) -> list[dict[str, object]]:
    """The recipes in a page's YAML blocks; a control on its own becomes a recipe."""
    entries = []
    for block in blocks(page, "yaml"):
        value = yaml.safe_load(block)
        entries += value if isinstance(value, list) else [value]
    recipes = [entry if Recipe.model_fields.keys() & entry.keys() else {"controls": [entry]} for entry in entries]
    return [recipe for recipe in recipes if not any(own in yaml.safe_dump(recipe) for own in READERS_OWN)]


def test_recipes_in_the_docs_can_be_drawn_by_a_bundled_model():
    """By the model that they name, or by either if they name none."""
    models = {name: from_pretrained(name) for name in ("everyday", "e2e")}
    pages = [REPO / "README.md", REPO / "docs" / "recipes.md", REPO / "docs" / "classifiers.md"]
    for settings in [settings for page in pages for settings in recipes_of(page)]:
        errors = []
        for name in [str(settings["model"])] if "model" in settings else models:
            try:
                recipe, file = read_recipe(yaml.safe_dump({**settings, "model": name}), "docs")
                examine(recipe, models[name], file)
                break
            except UserError as error:
                errors.append(f"{name}: {error}")
        else:
            pytest.fail(f"{settings}: {errors}")


def missing(kind: type[BaseModel], page: Path) -> list[str]:
    return [name for name in kind.model_fields if f"`{name}`" not in page.read_text("utf-8")]


def test_the_figures_of_controls_in_the_docs_are_those_of_the_code():
    text = (REPO / "docs" / "recipes.md").read_text("utf-8")
    weights = {plugin.name: plugin.kind.weight for plugin in installed()[0] if plugin.origin.startswith("dlmctl ")}
    (documented,) = re.findall(r"control's own weight: (.*?), 1 for the others", text)
    documented_weights = {name: float(weight) for weight, name in re.findall(r"([\d.]+) for `(\w+)`", documented)}
    assert documented_weights == {name: weight for name, weight in weights.items() if weight != 1}
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    defaults_checked = 0
    for title, section in sections.items():
        fields = {} if title.split(",")[0] not in weights else find_control(title.split(",")[0]).Params.model_fields
        for name, default in re.findall(r"`(\w+)` \(([\d.]+)\)", section):
            assert float(default) == fields[name].default, f"{title}: {name}"
            defaults_checked += 1
    assert defaults_checked >= 3  # pass_at twice, tolerance


def test_the_defaults_of_recipes_in_the_docs_are_those_of_the_code():
    text = (REPO / "docs" / "recipes.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", text.split("\n## ")[0], re.MULTILINE))
    for name, field in Recipe.model_fields.items():
        documented, default = rows[name].strip(), field.get_default(call_default_factory=True)
        if not isinstance(default, BaseModel):
            shown = "none" if default is None or default == [] else str(default).replace("'", "")
            assert documented.strip("`") == {"False": "false", "True": "true"}.get(shown, shown), name


def test_the_glossary_is_in_order_and_has_the_words_of_results():
    terms = re.findall(r"^\| ([^|]+) \|", (REPO / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE)[1:]
    assert [term.lower() for term in terms] == sorted(term.lower() for term in terms)
    for term in ("nats", "reverse step", "latent", "UPOS", "mbr", "METEOR", "perplexity", "lm-score"):
        assert any(term in entry.split(", ") for entry in terms), term


@pytest.mark.parametrize(("title", "settings"), [("Sampler", SamplerSettings), ("Guidance", Guidance)])
def test_the_defaults_in_tables_of_settings_are_those_of_the_code(title, settings):
    text = (REPO / "docs" / "recipes.md").read_text("utf-8")
    table = re.search(rf"^## {title}\n(.*?)^##", text, re.MULTILINE | re.DOTALL)
    assert table
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table[1], re.MULTILINE)
    assert len(rows) >= 7
    for name, documented in rows:
        default = settings.model_fields[name].default
        if re.fullmatch(r"[\d.]+", documented):
            assert float(documented) == default, name
        elif documented.strip():
            assert {"none": None, "false": False, "true": True}.get(documented, documented.strip("`")) == default, name
