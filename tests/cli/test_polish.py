"""Output of the command line: completions, encodings, counts, and lines in a pipe."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pytest
from typer.testing import CliRunner

from dlmctl import __version__
from dlmctl.cli import _set_encodings, app, complete
from dlmctl.cli.render import drawn_in, figure

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(*arguments, **environment):
    command = [sys.executable, "-m", "dlmctl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**ENVIRONMENT, **environment})


def test_the_version_also_of_the_module():
    done = run("--version")
    assert (done.returncode, done.stdout.decode().strip(), done.stderr) == (0, f"dlmctl {__version__}", b"")


def test_what_stdout_does_not_have_is_replaced(tmp_path, model_folder):
    (tmp_path / "mine.yaml").write_text("description: a café\n", "utf-8")
    done = run("recipe", "show", tmp_path / "mine.yaml", PYTHONIOENCODING="cp932", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert b"description: a caf?" in done.stdout


@pytest.mark.parametrize(
    ("encoding", "is_terminal", "written"),
    [("cp1252", False, "café"), ("ascii", False, "café"), ("ascii", True, "caf?")],
)
def test_pipes_and_files_get_utf_8_whatever_the_locale(monkeypatch, encoding, is_terminal, written):
    stdout = TextIOWrapper(BytesIO(), encoding, "surrogateescape")
    monkeypatch.setattr(stdout, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    _set_encodings()
    print(written.replace("?", "é"), flush=True)
    assert stdout.buffer.getvalue() == (written + os.linesep).encode()


def test_a_recipe_from_stdin_is_utf_8_as_a_file_is():
    command = [sys.executable, "-m", "dlmctl", "generate", "--recipe", "-"]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, input="rank_by: [café]".encode(), capture_output=True, env=environment)
    assert done.returncode == 2
    assert "café" in done.stderr.decode("cp1252")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_is_no_fault(closed):
    command = f"{shlex.quote(sys.executable)} -m dlmctl recipe list {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (closed == "2>&-")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_recipe_from_a_closed_stdin_is_an_empty_one():
    command = f"{shlex.quote(sys.executable)} -m dlmctl generate --recipe - <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dlmctl: standard input: the recipe is empty.")


def test_names_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("mine.yaml", "mine/a.yaml", "mine/a.txt"):
        (tmp_path / name).touch()
    assert "e2e-pos" in complete.recipes("e2e-p")
    assert complete.recipes("min") == ["mine/", "mine.yaml"]
    assert complete.recipes("mine/") == ["mine/a.yaml"]
    assert "e2e" in complete.models("e")
    assert complete.models("min") == ["mine/"]
    assert complete.controls("syn") == ["syntax_tree"]
    assert "e2e" in complete.configurations("e2")
    assert complete.recipes("nowhere/") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dlmctl controls show syn", "syntax_tree"),
        ("dlmctl generate --recipe e2e-unt", "e2e-until"),
        ("dlmctl info e2", "e2e"),
        ("dlmctl train lm --config contr", "control"),
    ],
)
def test_the_shell_is_offered_names(words, offered):
    environment = {"_DLMCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner().invoke(app, [], prog_name="dlmctl", env=environment)
    assert offered in done.stdout.split()


@pytest.fixture
def trained(tmp_path, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    for place, values in {"semantic": {"area": ["centre", "hills"]}, "classifier/tone": {"tone": ["dry"]}}.items():
        (folder / "controls" / place).mkdir(parents=True)
        (folder / "controls" / place / "labels.json").write_text(json.dumps({"values": values}))
    return folder


def test_show_lists_what_a_models_weights_tell_apart(trained):
    shown = CliRunner().invoke(app, ["controls", "show", "semantic", "--model", str(trained)]).stdout
    assert f"Values in the model {trained}\narea: centre, hills\n" in shown
    shown = CliRunner().invoke(app, ["controls", "show", "classifier", "--model", str(trained)]).stdout
    assert "Values of the weights tone\ntone: dry\n" in shown
    (trained / "controls" / "semantic" / "labels.json").write_text("3")
    done = CliRunner().invoke(app, ["controls", "show", "semantic", "--model", str(trained)])
    assert done.exit_code == 2
    assert "labels.json: holds no labels." in done.stderr


def test_info_is_not_torn_in_a_pipe(tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = shutil.copytree(model_folder, tmp_path / ("long" * 30))
    line = "a line of the card that is wider than a terminal usually is, " * 3
    (folder / "README.md").write_text(f"{line}\n")
    lines = CliRunner().invoke(app, ["info", str(folder)]).stdout.splitlines()
    assert line.strip() in [one.strip() for one in lines]
    assert any(one.endswith(str(folder)) for one in lines)


def test_counts_are_printed_as_counts():
    assert [figure(8), figure(8.0), figure(0.25), figure(None)] == ["8", "8.0000", "0.2500", ""]


def test_the_mark_of_a_text_that_does_not_pass_is_explained(capsys):
    import numpy as np

    from dlmctl.cli.render_texts import print_generation
    from dlmctl.control.check import Check
    from dlmctl.generation.results import Generation, Sample

    for passed, shown in ((False, True), (True, False)):
        checks = {"pos": Check(0.5, passed, "word 2")}
        print_generation(Generation([Sample(0, ["x"], "x", checks, np.zeros((1, 1)))], 1))
        printed = capsys.readouterr()
        assert ("!" in printed.out, "A ! after a score" in printed.err) == (shown, shown)


@pytest.mark.parametrize(
    ("seconds", "pace"), [(0.5, "in 0.5 s (6.0 a second)"), (3.0, "(1.0 a second)"), (67.3, "in 67.3 s (22.4 s each)")]
)
def test_slow_texts_have_a_time_each_and_not_none_a_second(seconds, pace):
    assert drawn_in(3, 3, seconds).endswith(pace)
    assert drawn_in(1, 1, 2.0) == "1 text in 2.0 s"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_of_any_width_shows_the_texts_and_their_figures(capsys, monkeypatch, width):
    import numpy as np

    from dlmctl.cli.render_texts import print_generation
    from dlmctl.control.check import Check
    from dlmctl.generation.results import Generation, Sample
    from dlmctl.metrics.fluency import Fluency

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    checks = {name: Check(1.0, True, "") for name in ("length", "contains", "sentiment", "syntax_tree")}
    fluency = Fluency(3.25, "END", 7.75, None, 0.93)
    text = "The [old] man opened the window."
    print_generation(Generation([Sample(0, [], text, checks, np.zeros((1, 1)), fluency=fluency)], 1))
    printed = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    lines = [line.split("│") for line in plain.splitlines() if line.startswith("│")]
    assert text in " ".join(" ".join(cells[2].strip() for cells in lines).split())
    for shown in (*checks, "lm-score", "3.25", "(end of text)", "acceptability", "0.93"):
        assert shown in " ".join(re.sub("[│┃]", " ", plain).split())
    assert "1 text in 1.0 s" in plain


def test_what_a_package_prints_at_import_is_not_in_the_output(tmp_path, monkeypatch, capsys):
    from dlmctl.control.registry import find_control

    (tmp_path / "chatty.py").write_text("print('hello from chatty')\nfrom controls.length import Length as Loud\n")
    info = tmp_path / "chatty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dlmctl.controls]\nloud = chatty:Loud\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Exception, match="has name = 'length'"):
        find_control("loud")
    assert capsys.readouterr() == ("", "hello from chatty\n")


def test_a_terminal_said_to_have_no_columns_is_written_to():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "0"})
    assert "generate" in result.stdout
