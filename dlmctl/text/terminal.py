"""Whether output is shown on a terminal, and whether lines that are already there can be redrawn.

rich also takes a pipe or a file for a terminal where ``FORCE_COLOR`` is set, as it is by continuous integration, and by
every Jupyter kernel for the commands of its cells. Boxes and colours would then be written into files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console on stdout or stderr; it is a terminal only if the stream is one."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, quiet=quiet, force_terminal=stream.isatty())


def redraws(console: Console) -> bool:
    """Whether a bar or a view can be redrawn in place: on a terminal, unless it is the output of a notebook's cell.

    A cell runs ``!dlmctl ...`` on a terminal of its own, but keeps every line that was ever written to it.
    """
    return console.is_terminal and not is_in_cell()


def is_in_cell() -> bool:
    """Whether a Jupyter kernel started this command: its parent names itself, or plots are drawn into a notebook."""
    return "JPY_PARENT_PID" in os.environ or "backend_inline" in os.environ.get("MPLBACKEND", "")


@contextmanager
def spinning(activity: str) -> Iterator[None]:
    """A spinner on stderr beside ``activity``, where it can be redrawn."""
    console = make_console(stderr=True)
    if not redraws(console):
        yield
        return
    with console.status(activity):
        yield
