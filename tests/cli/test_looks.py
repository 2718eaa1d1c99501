"""``--report``, ``--trace``, ``--watch`` and ``dlmctl report``."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.cli.watch import view
from dlmctl.diffusion.noise import Draw
from dlmctl.sampling.trace import Frame

REPO = Path(__file__).resolve().parents[2]


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def quick(model_folder, tmp_path):
    recipe = tmp_path / "four.yaml"
    recipe.write_text(
        f"model: {model_folder}\nsamples: 4\nsampler: {{steps: 3}}\ncontrols: [{{length: {{words: 4}}}}]\n"
    )
    return ["generate", "--recipe", recipe]


def test_a_page_is_written_beside_the_texts(quick, tmp_path):
    call(*quick, "-q", "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "All 4 texts satisfy the control" in page
    assert page.count("How it came about") == 4


def test_traces_are_kept_in_json_and_in_lines_and_shown_from_there(quick, tmp_path):
    samples = json.loads(call(*quick, "--json", "--trace", 2))["samples"]
    assert ["trace" in sample for sample in samples] == [True, True, False, False]
    assert samples[0]["trace"]["words"][-1] == samples[0]["words"]
    call(*quick, "-q", "--out", tmp_path / "run.jsonl", "--trace", 1)
    assert "4 texts shown in" in call("report", tmp_path / "run.jsonl", "--recipe", quick[2])
    page = (tmp_path / "run.html").read_text("utf-8")
    assert page.count("How it came about") == 1
    assert "words: 4" in page


def test_a_page_shows_the_recipe_that_a_table_filled(quick, tmp_path):
    (tmp_path / "mine.csv").write_text("n\n4\n5\n")
    (tmp_path / "mine.yaml").write_text(quick[2].read_text().replace("words: 4", "words: '{n}'"))
    asked = ("--recipe", tmp_path / "mine.yaml", "--targets", tmp_path / "mine.csv")
    call("generate", *asked, "-q", "--out", tmp_path / "run.jsonl")
    call("report", tmp_path / "run.jsonl", *asked)
    assert "{words: &#39;{n}&#39;}" in (tmp_path / "run.html").read_text("utf-8")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "run.jsonl"), *map(str, asked[2:])])
    assert result.exit_code == 2
    assert "Name the recipe: --recipe." in result.output


def test_a_page_shows_no_recipe_that_did_not_make_the_texts(quick, tmp_path):
    call(*quick, "-q", "--out", tmp_path / "run.jsonl", "--set", "sampler.steps=2", "--seed", 3)
    (tmp_path / "run.json").write_text(call(*quick, "--json"))
    for name, message in [("run.jsonl", "run.jsonl:1 was drawn by another recipe"), ("run.json", "hold the recipe")]:
        result = CliRunner().invoke(app, ["report", str(tmp_path / name), "--recipe", str(quick[2])])
        assert result.exit_code == 2
        assert message in result.output
        assert not (tmp_path / "run.html").exists()
    (tmp_path / "asked.yaml").write_text(call(*quick, "--set", "sampler.steps=2", "--dry-run"))
    assert "4 texts" in call("report", tmp_path / "run.jsonl", "--recipe", tmp_path / "asked.yaml")


def test_a_folder_of_a_long_run_has_its_page_too(quick, tmp_path):
    call(*quick, "-q", "--out", f"{tmp_path / 'run'}/", "--report", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").count("How it came about") == 4
    call("report", tmp_path / "run")
    assert "All 4 texts" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "page.pdf"], "page.pdf: the ending '.pdf' is not known. Use .html, .htm."),
        (["--report", "a.html", "--out", "a.txt"], "--out a.txt: this format does not keep what the controls saw"),
        (["--watch", "--out", "a.jsonl"], "--watch: only shows texts printed to the terminal. Leave out --out."),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_drawn(quick, options, message):
    result = CliRunner().invoke(app, list(map(str, [*quick, *options])))
    assert result.exit_code == 2
    assert message in result.output


def test_nothing_is_watched_in_a_pipe(quick):
    plain, watched = (re.sub(r"in [\d.]+ s \([\d.]+ a", "", call(*quick, *more)) for more in ([], ["--watch"]))
    assert watched == plain


def test_words_settle_before_the_eyes_of_who_watches_in_a_terminal(quick):
    """In a real terminal: progress is shown first, and the texts at the end."""
    main, end = pty.openpty()
    code = "from dlmctl.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-c", code, *map(str, quick), "--watch"]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment) as run:
        os.close(end)
        shown = b""
        try:
            while some := os.read(main, 65536):
                shown += some
        except OSError:  # how a terminal says on Linux that the other side has gone
            pass
        os.close(main)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert run.returncode == 0, text
    assert "% done" in text
    assert "100% pass" in text


def test_a_view_fits_the_terminal_and_names_the_attempts():
    frame = Frame(0.25, ("a", "\x1bpub"), (True, False), {})
    table = view({Draw(0, sample, attempt): frame for sample in range(9) for attempt in range(2)}, 5)
    assert table.row_count == 5
    assert table.title == "75% done"
    assert list(table.columns[0].cells)[1] == "0.1"
    (first, *_) = table.columns[1].cells
    assert first.plain == "a \\x1bpub "
    assert [str(span.style) for span in first.spans] == ["bold", "dim italic"]
