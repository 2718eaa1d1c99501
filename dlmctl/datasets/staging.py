"""Folders that are written aside and moved into place when they are whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlmctl.errors import UserError
from dlmctl.processes import held

_KINDS = ("partial", "replaced")


@contextmanager
def staged(out: Path, what: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place on success and is gone on failure.

    Whoever reads ``out`` meanwhile finds what was there before; a process that is killed leaves it, too. One process at
    a time writes: others are refused at once.

    Args:
        what: what is written, for messages: "data set".
        check: raises where ``out`` must not be replaced; asked again right before the move.

    Raises:
        UserError: it cannot be written, or another process is writing it.
    """
    out = out.resolve()
    with held(out.parent / f".{out.name}.lock", what, out, keep=False):
        _clean_up(out)
        staging, old = (out.parent / f".{out.name}.{kind}" for kind in _KINDS)
        try:
            staging.mkdir()
            yield staging
            check()
            if out.exists():
                os.replace(out, old)
            try:
                os.replace(staging, out)
            except BaseException:
                if old.exists():
                    os.replace(old, out)
                raise
        except OSError as error:
            raise _unwritable(out, error) from None
        finally:
            _clean_up(out)


def _clean_up(out: Path) -> None:
    """Remove what lies beside ``out``, and bring back what was there where a move was cut in half."""
    staging, old = (out.parent / f".{out.name}.{kind}" for kind in _KINDS)
    with suppress(OSError):
        if old.exists() and not out.exists():
            os.replace(old, out)
    for left_over in (staging, old):
        shutil.rmtree(left_over, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"cannot be written: {error.strerror or error}.", where=str(out))


def check_writable(folder: Path) -> None:
    """Find out before hours of work whether files can be written into ``folder``, which is made if need be.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None
