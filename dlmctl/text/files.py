"""Read untrusted files within limits: pipes, devices, huge files and too deeply nested JSON are refused. Flush written
ones."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlmctl.errors import ModelError, UserError, short_message

# The size of a word-level vocabulary of a million entries; model cards and configurations are far smaller.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64


def require_file(
    path: Path,
    limit: int | None = None,
    *,
    error: type[UserError] = ModelError,
    remedy: str | None = None,
) -> None:
    """Check, without opening it, that ``path`` is a regular file of at most ``limit`` bytes.

    Args:
        error: the class of the error, such as ``DataError`` for a file of data.

    Raises:
        UserError: of the class ``error``: it is missing, a folder, a pipe, a device, or too large.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise error("is missing.", where=str(path), remedy=remedy) from None
    except (OSError, ValueError) as fault:  # ValueError: a name with a NUL
        raise error(f"cannot be read: {short_message(fault)}.", where=str(path), remedy=remedy) from None
    if stat.S_ISDIR(status.st_mode):
        raise error("cannot be read: it is a folder, not a file.", where=str(path), remedy=remedy)
    if not stat.S_ISREG(status.st_mode):
        raise error("cannot be read: it is a pipe or a device, not a file.", where=str(path), remedy=remedy)
    if limit is not None and status.st_size > limit:
        what = f"cannot be read: it has {status.st_size / 2**20:,.0f} MiB, and at most {limit / 2**20:,.0f} are read."
        raise error(what, where=str(path), remedy=remedy)


def read_text(
    path: Path, *, limit: int = MAX_BYTES, error: type[UserError] = ModelError, remedy: str | None = None
) -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: as ``require_file``, or it is not UTF-8.
    """
    require_file(path, limit, error=error, remedy=remedy)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as fault:
        what = f"cannot be read: it is not UTF-8 (byte {fault.start})."
        raise error(what, where=str(path), remedy=remedy) from None
    except OSError as fault:
        raise error(f"cannot be read: {short_message(fault)}.", where=str(path), remedy=remedy) from None


def read_json(
    path: Path, *, limit: int = MAX_BYTES, error: type[UserError] = ModelError, remedy: str | None = None
) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: as ``read_text``, or it is not JSON, is nested deeper than ``MAX_DEPTH``, or has a duplicate key.
    """
    text = read_text(path, limit=limit, error=error, remedy=remedy)
    try:
        value = json.loads(text, object_pairs_hook=_refuse_duplicate_keys)
        is_too_deep = _is_too_deep(value)
    except RecursionError:
        is_too_deep = True
    except ValueError as fault:
        raise error(f"cannot be read: {short_message(fault)}.", where=str(path), remedy=remedy) from None
    if is_too_deep:
        what = f"cannot be read: its lists and objects are nested more than {MAX_DEPTH} deep."
        raise error(what, where=str(path), remedy=remedy)
    return value


def read_object(
    path: Path, *, limit: int = MAX_BYTES, error: type[UserError] = ModelError, remedy: str | None = None
) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: as ``read_json``, or it holds something else.
    """
    value = read_json(path, limit=limit, error=error, remedy=remedy)
    if not isinstance(value, dict):
        raise error("must hold a JSON object.", where=str(path), remedy=remedy)
    return value


def flush_to_disk(path: Path) -> None:
    """Wait until a written file is on disk: after a power cut it could otherwise be empty under its final name.

    Raises:
        OSError: it cannot be.
    """
    with path.open("r+b") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0][:40]!r} appears twice")
    return mapping


def _is_too_deep(value: Any) -> bool:
    """Whether nesting exceeds ``MAX_DEPTH``; checked level by level, so that the stack cannot overflow."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
