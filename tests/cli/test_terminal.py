"""A pipe or a file is no terminal, whatever the environment says; the output of a notebook's cell cannot be redrawn."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dlmctl.cli.generate import generate
from dlmctl.cli.matched import matched
from dlmctl.cli.render import counting, working
from dlmctl.cli.render_texts import print_generation
from dlmctl.errors import UserError
from dlmctl.generation.results import Generation, Sample
from dlmctl.text.terminal import is_in_cell, make_console, redraws, spinning
from dlmctl.training.progress import TrainingProgress


@pytest.fixture
def forced(monkeypatch):
    """The environment of every command of a notebook's cell."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")


def use_terminal(monkeypatch) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-color")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced(forced, capsys):
    print_generation(Generation([Sample(0, ["Hello", "."], "Hello.", {}, np.zeros((1, 1)))], 1.0))
    assert capsys.readouterr().out == "Hello.\n"


def test_a_pipe_gets_no_bar_even_where_colours_are_forced(forced, capsys, tmp_path):
    with counting("texts", quiet=False) as advance, spinning("reading"):
        advance(1, 2)
    with working(quiet=False) as say:
        say("measuring")
    with TrainingProgress(10, 0, tmp_path, quiet=False) as progress:
        progress.log(1, {"loss": 2.0})
    printed = capsys.readouterr().err
    assert printed.startswith("measuring\nstep 1/10  loss 2")
    assert "\x1b" not in printed


def test_a_terminal_gets_colours_and_a_bar(monkeypatch, capsys):
    use_terminal(monkeypatch)
    assert redraws(make_console(stderr=True))
    with counting("texts", quiet=False) as advance:
        advance(1, 2)
    assert "1/2" in capsys.readouterr().err


@pytest.mark.parametrize("command", [generate, matched])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_that_a_command_has_started(monkeypatch, capsys, command, quiet):
    """The recipe is only looked up once torch is imported, which takes more than a second."""
    use_terminal(monkeypatch)
    with pytest.raises(UserError, match="there is no such recipe"):
        command(recipe="nowhere", quiet=quiet)
    assert ("starting" in capsys.readouterr().err) is not quiet


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JPY_PARENT_PID", "12"),
        ("MPLBACKEND", "module://matplotlib_inline.backend_inline"),
        ("MPLBACKEND", "module://ipykernel.pylab.backend_inline"),
    ],
)
def test_a_cell_keeps_every_line_so_it_gets_no_bar(monkeypatch, capsys, name, value):
    use_terminal(monkeypatch)
    monkeypatch.setenv(name, value)
    assert is_in_cell()
    assert make_console().is_terminal  # tables are drawn
    with counting("texts", quiet=False) as advance, spinning("reading"):
        advance(1, 2)
    assert capsys.readouterr().err == ""
