"""Folders that are written to a staging folder and moved into place when complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlmctl.errors import UserError
from dlmctl.processes import run_lock

_KINDS = ("partial", "replaced")


@contextmanager
def staged_folder(out: Path, what: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new folder next to ``out`` that replaces it on success and is removed on failure.

    Readers of ``out`` see the old contents until then, and a killed process leaves them too. Only one process at a
    time can write; others are refused at once.

    Args:
        what: what is written, for messages: "data set".
        check: raises if ``out`` must not be replaced; called right before the move.

    Raises:
        UserError: the folder cannot be written, or another process is writing it.
    """
    out = out.resolve()
    with run_lock(out.parent / f".{out.name}.lock", what, out, keep=False):
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
    """Remove the folders next to ``out``, and restore the old contents if a move was interrupted."""
    staging, old = (out.parent / f".{out.name}.{kind}" for kind in _KINDS)
    with suppress(OSError):
        if old.exists() and not out.exists():
            os.replace(old, out)
    for left_over in (staging, old):
        shutil.rmtree(left_over, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> UserError:
    # NumPy says only how many numbers it could write.
    reason = error.strerror or f"the disk may be full ({error})"
    return UserError(f"cannot be written: {reason}.", where=str(out))


def check_writable(folder: Path) -> None:
    """Check before hours of work that files can be written into ``folder``, which is created if missing.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None
