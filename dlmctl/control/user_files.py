"""Controls and functions in a user's own file, referred to as ``mine.py:Formal``.

A file is imported only if a recipe, a command or a caller names it, with the rights of whoever started dlmctl. It must
be self-contained: other files in its folder are not importable, because a run is identified by the digest of the named
file alone.
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

from dlmctl.errors import UserError, did_you_mean, typed_message

_REFERENCE = re.compile(r"(.{1,900}\.py):([A-Za-z_][A-Za-z0-9_]{0,99})", re.DOTALL)


class FileReference(NamedTuple):
    """A class or function in a file: ``mine.py:Formal``."""

    path: Path
    attribute: str


def parse_reference(text: str) -> FileReference | None:
    """Parse ``file.py:name``; None if the text has another form."""
    match = _REFERENCE.fullmatch(text)
    return FileReference(Path(match[1]), match[2]) if match else None


def seen_from(folder: Path, path: str, *, named: bool = False) -> str:
    """A path relative to a folder, or unchanged if only the current folder has it.

    Args:
        named: whether ``path`` may be a name instead, such as one of the hub; it is then unchanged if it exists in
            neither folder.
    """
    in_folder = folder / path
    is_unchanged = not os.path.lexists(in_folder) and (named or os.path.lexists(path))
    return path if is_unchanged else str(in_folder)


def beside(text: str, folder: Path) -> str:
    """``file.py:name`` with its path as ``seen_from`` a folder; any other text unchanged."""
    reference = parse_reference(text)
    return text if reference is None else f"{seen_from(folder, str(reference.path))}:{reference.attribute}"


def load_reference(reference: FileReference) -> Any:
    """Load the class or function that a reference names.

    Raises:
        UserError: there is no such file, it fails to import, or it has nothing of that name.
    """
    path, attribute = reference
    try:
        module = _import_file(path.resolve())
    except (OSError, ValueError):  # a name that no file can have
        raise UserError("there is no such file.", where=str(path)) from None
    if attribute not in module:
        known = [name for name, value in module.items() if callable(value) and not name.startswith("_")]
        remedy = did_you_mean(attribute, known) if known else None
        raise UserError(f"has no {attribute!r}.", where=str(path), remedy=remedy)
    return module[attribute]


@cache
def _import_file(path: Path) -> dict[str, Any]:
    """The names that a file defines; it is imported once per process."""
    if not path.is_file():
        raise UserError("there is no such file.", where=str(path), remedy="Write it as file.py:name.")
    name = f"dlmctl_file_{abs(hash(path))}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # where pydantic and dataclasses look up the names of types
    try:
        with redirect_stdout(sys.stderr):  # prints at import must not mix with a command's output
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(
            f"fails to import: {typed_message(error)}.", where=str(path), remedy=_import_remedy(error)
        ) from error
    return vars(module)


def _import_remedy(error: BaseException) -> str | None:
    """Advice for a file that imports a module that is not installed, such as another file of its folder."""
    is_missing = isinstance(error, ModuleNotFoundError)
    return "Such a file can import installed packages only, no other files of its folder." if is_missing else None
