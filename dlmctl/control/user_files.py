"""Controls and functions in a user's own file, as ``mine.py:Formal``.

A file is imported only where a recipe, a command or a caller names it, with the rights of whoever started dlmctl. It
stands alone: files beside it are not imported, as a run follows from the file that is named, whose digest is kept.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

from dlmctl.errors import UserError, first_line, nearest

_NAMED = re.compile(r"(.{1,900}\.py):([A-Za-z_][A-Za-z0-9_]{0,99})", re.DOTALL)


class Named(NamedTuple):
    """Something in a file: ``mine.py:Formal``."""

    path: Path
    attribute: str


def named_in(text: str) -> Named | None:
    """What ``file.py:name`` names, None where a text has another form."""
    found = _NAMED.fullmatch(text)
    return Named(Path(found[1]), found[2]) if found else None


def seen_from(folder: Path, path: str, *, named: bool = False) -> str:
    """A path as seen from a folder, or as it is where only the current folder has it.

    Args:
        named: it may be a name instead, of the hub for example, and so stays as it is where neither has it.
    """
    there = folder / path
    kept = not os.path.lexists(there) and (named or os.path.lexists(path))
    return path if kept else str(there)


def beside(text: str, folder: Path) -> str:
    """``file.py:name`` with its path as ``seen_from`` a folder; any other text as it is."""
    named = named_in(text)
    return text if named is None else f"{seen_from(folder, str(named.path))}:{named.attribute}"


def load_named(named: Named) -> Any:
    """The class or function that is named.

    Raises:
        UserError: there is no such file, it fails to import, or has nothing of that name.
    """
    try:
        module = _imported(named.path.resolve())
    except (OSError, ValueError):  # a name that no file can have
        raise UserError("there is no such file.", where=str(named.path)) from None
    if named.attribute not in module:
        known = [name for name, value in module.items() if callable(value) and not name.startswith("_")]
        remedy = nearest(named.attribute, known) if known else None
        raise UserError(f"has no {named.attribute!r}.", where=str(named.path), remedy=remedy)
    return module[named.attribute]


@cache
def _imported(path: Path) -> dict[str, Any]:
    """What a file defines; it is imported once a process."""
    if not path.is_file():
        raise UserError("there is no such file.", where=str(path), remedy="Write it as file.py:name.")
    name = f"dlmctl_file_{abs(hash(path))}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # pydantic and dataclasses look the names of types up there
    try:
        with redirect_stdout(sys.stderr):  # what it prints at import is no part of what a command prints
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code may do
        del sys.modules[name]
        raise UserError(
            f"fails to import: {first_line(error)}.", where=str(path), remedy=_stands_alone(error)
        ) from error
    return vars(module)


def _stands_alone(error: BaseException) -> str | None:
    """What to say where a file asks for one that is not installed, such as its neighbour."""
    lacking = isinstance(error, ModuleNotFoundError)
    return "A file stands alone: it imports what is installed, and no file beside it." if lacking else None
