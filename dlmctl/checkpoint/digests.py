"""SHA-256 of the files of a folder, kept beside them: a file that is not the one saved is found when it is read.

They find damage and mixtures of two saves; whoever can write the folder can write the digests too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dlmctl.errors import ModelError
from dlmctl.text.files import require_file

# The key of a JSON file (``config.json``, ``card.json``) under which the digests of the files beside it stand.
DIGESTS = "digests"


def folder_digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 (hexadecimal) of files inside ``folder`` by their path in it, with ``/`` on every system."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(files)}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digests(folder: Path, digests: object, said_in: str) -> None:
    """Check files of ``folder`` against what their digests were when they were saved; None checks nothing.

    Args:
        digests: what ``folder_digests`` gave.
        said_in: the name of the file that has them.

    Raises:
        ModelError: a file is missing or another one, or ``digests`` is no such mapping.
    """
    if digests is None:  # saved by an earlier version
        return
    if not isinstance(digests, Mapping) or not all(_is_inside(name) for name in digests):
        raise ModelError(f"{DIGESTS} must give the SHA-256 of files of the folder.", where=str(folder / said_in))
    for name, wanted in digests.items():
        path = folder / name
        require_file(path, remedy="Save or download it again.")
        if file_digest(path) != wanted:
            raise ModelError(
                f"is not the file that was saved here: its SHA-256 is not the one in {said_in}.",
                where=str(path),
                remedy=f"Save or download it again; if the change is meant, take it out of {DIGESTS!r} in {said_in}.",
            )


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
