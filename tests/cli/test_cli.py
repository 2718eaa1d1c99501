"""The command line from outside: what it prints, its exit codes, its messages."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.recipe.recipe import DEFAULT_MODEL

REPO = Path(__file__).resolve().parents[2]


def dlmctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as users do, in a process of its own, which spends most of its time on importing torch."""
    code = "from dlmctl.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=120,
        env=environment,
    )


def run_here(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"model: {model_folder}\nsamples: 3\nsampler: {{steps: 3}}\ncontrols:\n  - pos: {{tags: [DET, NOUN, VERB]}}\n"
    )
    return path


def test_help_does_not_load_torch():
    code = "import sys, dlmctl, dlmctl.cli, dlmctl.recipe.recipe; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    assert "generate" in dlmctl("--help").stdout


def test_drawing_does_not_load_what_only_compilers_need():
    """Importing sympy takes half a second; torch does so for many operations on the meta device."""
    code = """
import sys
from dlmctl.cli import main
sys.argv = "dlmctl generate --recipe pos -n 1 --steps 1 --quiet".split()
try:
    main()
finally:
    print("torch" in sys.modules, "sympy" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines()[1:] == ["True False"]


def test_piped_output_is_one_text_a_line(recipe):
    run = dlmctl("generate", "--recipe", recipe)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    assert all("\tpos=" in line for line in lines)
    assert "3 texts in" in run.stderr


@pytest.mark.parametrize(
    ("tags", "options", "said"),
    [
        ("[X, X, X]", [], True),
        ("[X, X, X]", ["--set", "until.max_rounds=1"], False),
        ("['*', '*', '*']", [], False),
    ],
)
def test_texts_that_fail_and_are_not_drawn_again_are_pointed_out(recipe, tags, options, said):
    printed = run_here("generate", "--recipe", recipe, "--set", f"controls.0.pos.tags={tags}", *options).stderr
    assert ("--quota draws until they pass" in printed) is said


def test_quiet_output_is_the_texts_alone(recipe, tmp_path):
    run = dlmctl("generate", "--recipe", recipe, "-q")
    run_here("generate", "--recipe", recipe, "-q", "--out", tmp_path / "texts.txt")
    assert run.stderr == ""
    assert run.stdout == (tmp_path / "texts.txt").read_text()


def test_json_holds_the_recipe_and_the_checks(recipe):
    run = run_here("generate", "--recipe", recipe, "--json", "-n", 2, "--set", "controls.0.pos.pass_at=0.0")
    result = json.loads(run.stdout)
    assert result["recipe"]["samples"] == 2
    assert [sample["checks"]["pos"]["passed"] for sample in result["samples"]] == [True, True]
    assert result["success"] == 1.0


def test_every_output_format_holds_the_same_texts(recipe, tmp_path):
    for ending in ("txt", "jsonl", "npz"):
        run = run_here("generate", "--recipe", recipe, "--quiet", "--out", tmp_path / f"out.{ending}")
        assert (run.exit_code, run.stdout) == (0, ""), run.exception
    texts = (tmp_path / "out.txt").read_text().splitlines()
    assert len(texts) == 3
    assert [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == texts
    arrays = np.load(tmp_path / "out.npz")
    assert arrays["texts"].tolist() == texts
    assert arrays["latents"].shape == (arrays["offsets"][-1], 8)


def test_dry_run_prints_the_resolved_recipe(recipe):
    run = run_here("generate", "--recipe", recipe, "--dry-run", "--steps", 9, "--seed", 4)
    assert "steps: 9" in run.stdout
    assert "seed: 4" in run.stdout


def test_free_texts_are_ranked_by_what_scores_them(model_folder):
    """By the model's own scorer, or by the one that is named."""
    assert not (model_folder / "scorer").exists()
    for model, given, candidates in (
        ("everyday", (), 6),
        (model_folder, (), 1),
        (model_folder, ("--set", "scorer=everyday"), 6),
        (model_folder, ("--set", "scorer=null"), 1),
    ):
        drawn = yaml.safe_load(run_here("generate", "--model", model, *given, "--dry-run").stdout)
        assert drawn["candidates"] == candidates
        assert ("fluency" in drawn["rank_by"]) == (candidates > 1)
    assert yaml.safe_load(run_here("generate", "--set", f"model={model_folder}", "--dry-run").stdout)["candidates"] == 1


def test_recipe_commands(recipe):
    assert "pos" in run_here("recipe", "list").stdout
    assert run_here("recipe", "validate", recipe).stdout.endswith("valid\n")
    assert json.loads(run_here("recipe", "schema").stdout)["properties"]["controls"]
    assert "guidance:" in run_here("recipe", "show", recipe).stdout


def test_info_names_the_controls_with_weights(model_folder):
    assert "controls" in run_here("info", model_folder).stdout
    assert f"# {DEFAULT_MODEL}" in run_here("info").stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("samples: 3", "sampels: 3"), ":2: unknown key 'sampels'. Did you mean 'samples'?"),
        (("[DET, NOUN, VERB]", "[DET, NUON]"), ":5: controls.0.pos.tags: there is no UPOS tag 'NUON'."),
        (("[DET, NOUN, VERB]", str(["NOUN"] * 40).replace("'", "")), "the model holds at most 30"),
        (("model: ", "model: /nowhere"), "/nowhere"),
        (("steps: 3", "steps: none"), ":3: sampler.steps: input should be a valid integer"),
        (("pos:", "poss:"), ":5: there is no control 'poss'. Did you mean 'pos'?"),
    ],
)
def test_bad_recipes_get_one_message_and_exit_code_2(recipe, change, said):
    recipe.write_text(recipe.read_text().replace(*change))
    run = run_here("generate", "--recipe", recipe)
    assert run.exit_code == 2, run.exception
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_damaged_model_is_named(recipe, model_folder, tmp_path):
    import shutil

    copy = tmp_path / "damaged"
    shutil.copytree(model_folder, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = dlmctl("generate", "--recipe", recipe, "--model", copy)
    assert run.returncode == 2
    assert "model.safetensors" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("out", ["texts.doc", "no/such/folder/texts.txt", "/proc/texts.txt"])
def test_a_target_that_cannot_be_written_is_found_before_sampling(recipe, tmp_path, out):
    started = time.perf_counter()
    run = run_here("generate", "--recipe", recipe, "--out", tmp_path / out, "--steps", 100_000)
    assert run.exit_code == 2, run.exception
    assert time.perf_counter() - started < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_message(tmp_path, pretrained, monkeypatch):
    from dlmctl.errors import UserError
    from dlmctl.generation.output import write
    from dlmctl.generation.results import Generation

    (tmp_path / ".texts.txt.partial").symlink_to("/dev/full")
    sample = pytest.importorskip("dlmctl.generation.results").Sample(0, ["a"], "a" * 100_000, {}, np.zeros((1, 1)))
    with pytest.raises(UserError, match="No space left"):
        write(Generation([sample], 0.1), tmp_path / "texts.txt")
    assert not (tmp_path / "texts.txt").exists()


def test_an_unreadable_recipe_is_one_message(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01" * 20)
    run = dlmctl("generate", "--recipe", tmp_path / "binary.yaml")
    assert run.returncode == 2
    assert "binary.yaml" in run.stderr
    assert "Traceback" not in run.stderr
