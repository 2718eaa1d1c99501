"""SHA-256 digests of the files of a folder, stored with them, so that a changed file is detected when it is read.

They detect damage and mixtures of two saves, not tampering: anyone who can write the files can write the digests too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dlmctl.errors import ModelError
from dlmctl.text.files import require_file

# The key in a JSON file (``config.json``, ``card.json``) for the digests of the other files of its folder.
DIGESTS = "digests"


def folder_digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 (hexadecimal) of files in ``folder``, by relative path with ``/`` on every system."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(files)}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digests(folder: Path, digests: object, stored_in: str) -> None:
    """Check files of ``folder`` against their digests at the time of saving; None checks nothing.

    Args:
        digests: the result of ``folder_digests``.
        stored_in: the name of the file that holds them.

    Raises:
        ModelError: a file is missing or changed, or ``digests`` is not such a mapping.
    """
    if digests is None:  # saved by an earlier version
        return
    if not isinstance(digests, Mapping) or not all(_is_inside(name) for name in digests):
        raise ModelError(f"{DIGESTS} must give the SHA-256 of files of the folder.", where=str(folder / stored_in))
    for name, expected in digests.items():
        path = folder / name
        require_file(path, remedy="Save or download it again.")
        if file_digest(path) != expected:
            raise ModelError(
                f"is not the file that was saved here: its SHA-256 differs from that in {stored_in}.",
                where=str(path),
                remedy=f"Save or download it again; if you changed it, remove it from {DIGESTS!r} in {stored_in}.",
            )


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
