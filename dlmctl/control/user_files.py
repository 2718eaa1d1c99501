"""Controls and functions in a user's own file, referred to as ``mine.py:Formal``.

A file is imported only if a recipe, a command or a caller names it, with the rights of whoever started dlmctl. It must
be self-contained: other files in its folder are not importable, because a run is identified by the digest of the named
file alone.

A file that was edited is imported anew, as in a notebook whose author tries a control out; ``one_version`` keeps a run
from being half of one version and half of the next.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from dlmctl.errors import UserError, did_you_mean, typed_message

# Names of the modules of users' files begin with this.
MODULE_PREFIX = "dlmctl_file_"
_REFERENCE = re.compile(r"(.{1,900}\.py):([A-Za-z_][A-Za-z0-9_]{0,99})", re.DOTALL)


class Version(NamedTuple):
    """A file as it was imported: the SHA-256 of its content, and the names that it defines."""

    digest: str
    names: dict[str, Any]


Versions = dict[Path, Version]
# The files in use, by resolved path; None outside of ``one_version``.
_IN_USE: ContextVar[Versions | None] = ContextVar("versions of files", default=None)
# Two threads that import the same version must get the same classes.
_IMPORTING = RLock()


@contextmanager
def one_version(versions: Versions | None = None) -> Iterator[None]:
    """Use each file as it was when it was first needed inside, whatever happens to it meanwhile; also a decorator.

    Args:
        versions: the files in use so far, which are added to; by default those of the context around this one.
    """
    if versions is None:
        around = _IN_USE.get()
        versions = {} if around is None else around
    token = _IN_USE.set(versions)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def digest_in_use(path: Path) -> str | None:
    """The SHA-256 of the version of a file in use; None if there is none."""
    version = (_IN_USE.get() or {}).get(path.resolve())
    return None if version is None else version.digest


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


def reference_to(kind: type) -> str | None:
    """How a command names a class that was loaded from a user's file; None for classes of packages."""
    module = sys.modules.get(kind.__module__)
    if not kind.__module__.startswith(MODULE_PREFIX) or module is None or module.__file__ is None:
        return None
    path, folder = Path(module.__file__), Path.cwd().resolve()
    return f"{path.relative_to(folder) if path.is_relative_to(folder) else path}:{kind.__name__}"


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


def _import_file(path: Path) -> dict[str, Any]:
    """The names that a file defines, in the version in use or, if there is none, as the file is now."""
    in_use = _IN_USE.get()
    if in_use is not None and path in in_use:
        return in_use[path].names
    if not path.is_file():
        raise UserError("there is no such file.", where=str(path), remedy="Write it as file.py:name.")
    with _IMPORTING:
        version = _import_version(path, path.read_bytes())
    if in_use is not None:
        in_use[path] = version
    return version.names


@cache
def _import_version(path: Path, source: bytes) -> Version:
    """Import a version of a file, once per process. Python's own import would go by the time of a file's last change in
    whole seconds and its size, which an edit may leave as they are."""
    digest = hashlib.sha256(source).hexdigest()
    # Types of an older version that is still in use must not be looked up in a newer one.
    name = f"{MODULE_PREFIX}{hashlib.sha256(f'{path} {digest}'.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # where pydantic and dataclasses look up the names of types
    try:
        with redirect_stdout(sys.stderr):  # prints at import must not mix with a command's output
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(
            f"fails to import: {typed_message(error)}.", where=str(path), remedy=_import_remedy(error)
        ) from error
    return Version(digest, vars(module))


def _import_remedy(error: BaseException) -> str | None:
    """Advice for a file that imports a module that is not installed, such as another file of its folder."""
    is_missing = isinstance(error, ModuleNotFoundError)
    return "Such a file can import installed packages only, no other files of its folder." if is_missing else None
