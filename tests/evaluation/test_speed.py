import inspect
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from controls import Length
from dlmctl.cli.bench import bench
from dlmctl.cli.render import working
from dlmctl.evaluation import speed
from dlmctl.evaluation.speed import Case, compare, self_generated_cases, settings_for, speedup_over_paper
from dlmctl.recipe.presets import PRESETS, settings_of
from dlmctl.recipe.recipe import DEFAULT_MODEL
from tests.checkpoint.tiny_vendors import write_dream


@pytest.fixture
def quick(monkeypatch):
    """Presets of a few steps, so that what is measured is the measuring."""
    for name, settings in PRESETS.items():
        few = {**settings["sampler"], "steps": 6 if name == "paper" else 2}
        monkeypatch.setitem(settings, "sampler", few)


def test_every_preset_runs_on_every_case(pretrained, quick):
    control = Length(5)
    control.attach(pretrained)
    told = []
    cases = [Case("free", None, 2), Case("length", control, 3)]
    rows = list(compare(pretrained, cases, list(PRESETS), repeats=2, watch=told.append))
    assert [(row.case, row.preset) for row in rows] == [(c, p) for c in ("free", "length") for p in PRESETS]
    assert told[:5] == ["free, fast", "free, balanced", "free, quality", "free, paper", "free, fast"]
    assert all(0 < row.least <= row.seconds <= row.most for row in rows)
    assert {row.success for row in rows} == {None, 1.0}
    assert {speedup_over_paper(rows, row) for row in rows if row.preset == "paper"} == {1.0}


def test_the_paper_weighs_fluency_by_control():
    assert settings_for("paper", "pos").guidance.fluency == 1e-4
    assert settings_for("paper", "mine").guidance.fluency == 0.01
    assert settings_for("fast", "pos") == settings_of("fast")
    for preset in PRESETS:
        assert settings_for(preset, "pos", "masked") == settings_of(preset, "masked")


def test_bench_times_the_default_model_of_recipes():
    assert inspect.signature(bench).parameters["model"].default == DEFAULT_MODEL


def test_bench_reads_its_targets_off_the_models_own_texts(quick):
    from dlmctl.cli import app

    result = CliRunner().invoke(app, ["bench", "--model", "e2e", "-n", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert not result.stderr
    rows = json.loads(result.stdout)
    assert {row["case"] for row in rows} == {"free", "pos", "syntax_tree"}
    assert all(row["lm_score"] > 0 for row in rows)
    assert {row["times_paper"] for row in rows if row["preset"] == "paper"} == {1.0}
    assert all((row["success"] is None) == (row["case"] == "free") for row in rows)


def test_in_a_pipe_it_is_said_what_runs(capsys):
    with working(quiet=False) as watch:
        watch("pos, fast")
    assert capsys.readouterr() == ("", "pos, fast\n")


def test_an_empty_text_is_no_target(pretrained, monkeypatch):
    drawn = [SimpleNamespace(words=["a", "pub"]), SimpleNamespace(words=[])]
    monkeypatch.setattr(speed, "generate", lambda **_: drawn)
    monkeypatch.setattr(speed, "find_control_folder", lambda folder, model, name: folder if name == "length" else None)
    assert [case.name for case in self_generated_cases(pretrained, 2)] == ["free", "length"]
    del drawn[0]
    assert [case.name for case in self_generated_cases(pretrained, 1)] == ["free"]


def test_bench_takes_settings(tmp_path, quick):
    from dlmctl.cli import app

    folder = write_dream(tmp_path / "m")
    options = ["bench", "--model", str(folder), "-n", "2", "--json", "--set", "sampler.new_tokens=2"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    refused = CliRunner().invoke(app, [*options, "--set", "sampler.new_token=2"])
    assert refused.exit_code == 2
    assert "new_tokens" in refused.stderr
