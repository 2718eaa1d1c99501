"""Ctrl-C and SIGTERM at any moment of a command: one line at most, no traceback, nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

# Signals itself as soon as the given module is imported.
AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from dlmctl.__main__ import main
main()
"""

# Signals itself once the words are saved in the staging folder, and again when that folder is removed.
IN_PREPARE = """
import shutil, signal
import dlmctl.datasets.prepare
from dlmctl.__main__ import main

remove, written = shutil.rmtree, []

def write(*arguments):
    written.append(True)
    signal.raise_signal({first})
    raise ValueError("a fault of the code that was interrupted")

def clean_up(*arguments, **options):
    remove(*arguments, **options)
    if {second} and written:
        signal.raise_signal({second})

dlmctl.datasets.prepare.write_split = write
shutil.rmtree = clean_up
main()
"""


def run(code: str, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code and output of a command, which was not started with Ctrl-C ignored."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return done.returncode, done.stdout, done.stderr


def prepare(tmp_path: Path, first: int, second: int = 0, before: str = "") -> tuple[int, str, str]:
    (tmp_path / "texts.txt").write_text("".join(f"This is the text number {number} .\n" for number in range(40)))
    code = IN_PREPARE.format(first=int(first), second=int(second))
    return run(before + code, "data", "prepare", "texts.txt", "--out", "data", cwd=tmp_path)


@pytest.mark.parametrize("module", ["dlmctl.cli", "typer"])
def test_ctrl_c_during_the_first_imports_is_silent(tmp_path, module):
    assert run(AT_IMPORT.format(module=module), "controls", "list", cwd=tmp_path) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_told_to_end_cleans_up(tmp_path, number, code):
    assert prepare(tmp_path, number) == (code, "", "dlmctl: interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_clean_up_without_a_traceback(tmp_path, number):
    assert prepare(tmp_path, number, number) == (-number, "", "")


def test_sigterm_cleans_up_where_ctrl_c_is_ignored(tmp_path):
    """A shell starts commands in the background of a script so."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert prepare(tmp_path, signal.SIGTERM, before=ignoring) == (143, "", "dlmctl: interrupted.\n")
