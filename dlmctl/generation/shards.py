"""A long run on disk: a folder of shards that can be continued after any interruption.

``manifest.json`` describes the run; see ``dlmctl.generation.manifest``.
``rows-NNNNNNNNN.jsonl`` holds the rows from that number on, one JSON object per line; latents, if kept, are next to it
in ``rows-NNNNNNNNN.npz``. A shard that exists is complete: it is moved into place only when it is fully written.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from dlmctl import __version__, processes
from dlmctl.errors import UserError, short_message
from dlmctl.generation.manifest import (
    COPY,
    FORMAT,
    MANIFEST,
    changes_of,
    digest_of,
    read_manifest,
    shards_of,
    write_manifest,
)
from dlmctl.generation.output import Chunk, as_lines, atomic_write, write_arrays, write_records
from dlmctl.text.files import require_file

LOCK = ".lock"
SHARD_ROWS = 512
Record = Mapping[str, Any]
_RERUN = "Delete it and run again."


@dataclass(frozen=True)
class Run:
    """A run in its folder.

    Attributes:
        shards: the row numbers of each shard, in order.
        latents: whether latents are kept with the rows.
        digest: the digest of its settings.
    """

    folder: Path
    shards: list[range]
    latents: bool
    digest: str = ""

    @property
    def rows(self) -> int:
        """The number of rows of the finished run."""
        return self.shards[-1].stop

    def path(self, shard: range) -> Path:
        return self.folder / _file_name(shard)

    def missing(self) -> list[range]:
        """The shards still to be written, from one listing of the folder: asking for thousands of files takes long."""
        names = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        return [shard for shard in self.shards if _file_name(shard) not in names]

    def done(self) -> int:
        """The number of rows on disk."""
        return self.rows - sum(map(len, self.missing()))

    def confirm(self, shard: range) -> None:
        """Check, while the folder is locked, that a shard still belongs to its run: as long as no shard is on disk,
        another command may start another run there.

        Raises:
            UserError: another command has done so.
        """
        manifest = read_manifest(self.folder)
        if manifest.get("digest") != self.digest or shard not in shards_of(manifest["segments"]):
            message = "another command has started a run with other settings or other shards here; nothing is written."
            raise UserError(message, where=str(self.folder), remedy="Give each run a folder of its own.")

    def write(self, shard: range, records: Sequence[Record], latents: Sequence[np.ndarray] = ()) -> None:
        """Write a shard, its latents (each ``[L, D]``) first.

        Raises:
            UserError: it cannot be written.
        """
        path = self.path(shard)
        if self.latents:
            with atomic_write(path.with_suffix(".npz")) as partial, partial.open("wb") as file:
                offsets = np.cumsum([0, *map(len, latents)])
                np.savez_compressed(file, latents=np.concatenate(latents), offsets=offsets)
        with atomic_write(path) as partial:
            partial.write_text("".join(as_lines(records, ".jsonl")), "utf-8")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all rows in order."""
        for shard in self.shards:
            yield from self._read(shard)

    def records_so_far(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that are on disk, in order."""
        for shard in self.shards:
            if self.path(shard).exists():
                yield from self._read(shard)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows with their latents, shard by shard."""
        for shard in self.shards:
            rows = self._read(shard)
            latents, offsets = _read_latents(self.path(shard).with_suffix(".npz"), len(rows))
            texts, passed = [row["text"] for row in rows], [row["passed"] for row in rows]
            yield Chunk(texts, passed, latents, np.diff(offsets), [row["row"] for row in rows if "row" in row])

    def _read(self, shard: range) -> list[dict[str, Any]]:
        path = self.path(shard)
        require_file(path, error=UserError, remedy=_RERUN)
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                rows = [json.loads(line) for line in file]
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot be read: {short_message(error)}.", where=str(path), remedy=_RERUN) from None
        if not all(map(_is_row, rows)) or [row["index"] for row in rows] != list(shard):
            message = f"does not hold the rows {shard.start} to {shard.stop - 1}."
            raise UserError(message, where=str(path), remedy=_RERUN)
        return rows

    def environments(self) -> list[dict[str, Any]]:
        """The environments that its rows were drawn in: several if it was continued in another one."""
        return list(read_manifest(self.folder)["environments"])

    def settings(self) -> dict[str, Any]:
        """The settings that its rows depend on, with the name of the model."""
        manifest = read_manifest(self.folder)
        about = {"model": manifest.get("model"), "samples": self.rows}
        return {**about, **manifest["settings"], **about}

    def note_progress(self) -> None:
        """Record in the manifest how many shards are done; this is for information only."""
        manifest = {**read_manifest(self.folder), "shards_done": len(self.shards) - len(self.missing())}
        write_manifest(self.folder / MANIFEST, manifest)


def _file_name(shard: range) -> str:
    return f"rows-{shard.start:09}.jsonl"


def _is_row(row: Any) -> bool:
    """Whether a line has the fields of a sample that are counted and merged."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "problem" not in row:
        return False
    checks, numbers = row.get("checks"), (row.get("index"), row.get("rounds"))
    if not isinstance(checks, dict) or not all(isinstance(check, dict) for check in checks.values()):
        return False
    passes = [row.get("passed"), *(check.get("passed") for check in checks.values())]
    scores = [check.get("score") for check in checks.values()]
    return (
        all(isinstance(passed, bool) for passed in passes)
        and all(isinstance(score, int | float) for score in scores)
        and all(isinstance(number, int) for number in numbers)
    )


def _read_latents(path: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The concatenated latents of a shard, and the offset of each.

    Raises:
        UserError: the file is missing or damaged.
    """
    require_file(path, error=UserError, remedy=_RERUN)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, offsets = arrays["latents"], arrays["offsets"]
        if len(offsets) != rows + 1 or offsets[-1] != len(latents):
            raise ValueError("another number of rows")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        message = f"cannot be read: {short_message(error)}."
        raise UserError(
            message, where=str(path), remedy="Delete it and the .jsonl next to it, then run again."
        ) from None
    return latents, offsets


def open_run(
    folder: Path,
    settings: Mapping[str, Any],
    rows: int,
    *,
    shard_rows: int = SHARD_ROWS,
    latents: bool = False,
    joining: bool = False,
    about: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Run:
    """Start a run in ``folder``, or continue the one that is there.

    Args:
        settings: all settings that the rows depend on, as JSON values. A run is only continued with the same settings.
        rows: rows of the run: at least as many as before if it is continued.
        shard_rows: rows in each new shard; existing shards are unchanged.
        joining: keep the division into shards even if none is on disk yet, as other commands may be drawing them.
        about: further entries of the manifest.
        environment: what the new rows depend on in addition to the settings; the manifest lists all environments.

    Raises:
        UserError: the folder holds something else, a run with other settings, which the message names, or rows that
            are not a shard of this run.
    """
    settings = json.loads(json.dumps({**settings, "latents": latents}))
    segments: list[list[int]] = []
    environments: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    manifest_before, file_names = _read_folder(folder)
    shard_files = [name for name in file_names if name.startswith("rows-")]
    changes = changes_of(manifest_before, settings, rows) if manifest_before else []
    if shard_files and changes:  # if nothing is drawn yet, other settings are fine
        message = f"holds a run with other settings: {'; '.join(changes)}."
        remedy = "Give the same settings to continue it, name another place, or delete it."
        raise UserError(message, where=str(folder), remedy=remedy)
    if shard_files or (manifest_before and joining and not changes):
        segments, environments = manifest_before["segments"], manifest_before["environments"]
    if not segments or segments[-1][0] < rows:
        segments.append([rows, shard_rows])
    run = Run(folder, shards_of(segments), latents, digest_of(settings))
    _refuse_strays(run, shard_files)
    if environment is not None and environment not in environments and run.missing():
        environments.append(environment)
    manifest = {
        "format": FORMAT,
        "dlmctl": __version__,
        "digest": run.digest,
        "rows": rows,
        "segments": segments,
        "shards": len(run.shards),
        "shards_done": len(run.shards) - len(run.missing()),
        **(about or {}),
        "environments": environments,
        "settings": settings,
    }
    write_manifest(folder / COPY, manifest)
    write_manifest(folder / MANIFEST, manifest)
    return run


def _read_folder(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest of the run in a folder, empty if there is none, and the names of the files that are not hidden.

    Raises:
        UserError: it holds something else.
    """
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    has_manifest = MANIFEST in names or (folder / COPY).exists()
    if names and not has_manifest:
        raise UserError(
            "holds other files, and no run to continue.", where=str(folder), remedy="Name an empty or new folder."
        )
    return (read_manifest(folder) if has_manifest else {}), names


def refuse_others(folder: Path) -> None:
    """Check, before anything is written, that a folder can hold a run.

    Raises:
        UserError: it holds something else.
    """
    _read_folder(folder)


def _refuse_strays(run: Run, shard_files: Sequence[str]) -> None:
    """Raise UserError if a folder has rows that are no shard of its run; concatenating the files would include them."""
    expected = set(map(_file_name, run.shards))
    strays = sorted(name for name in shard_files if name.endswith(".jsonl") and name not in expected)
    if strays:
        what = f"is no shard of the run in its folder{f', and {len(strays) - 1} more are none' if strays[1:] else ''}."
        raise UserError(what, where=str(run.folder / strays[0]), remedy="Delete it, or move it away, and run again.")


def saved_run(folder: Path) -> Run:
    """Open the run in a folder for reading, finished or not.

    Raises:
        UserError: the folder holds no run.
    """
    manifest = read_manifest(folder)
    latents = bool(manifest["settings"].get("latents"))
    return Run(folder, shards_of(manifest["segments"]), latents, str(manifest.get("digest")))


def lock_run(folder: Path, *, patience: float = 0) -> AbstractContextManager[None]:
    """Lock a run's folder against other commands.

    Args:
        patience: seconds to wait for another command that has locked it.

    Raises:
        UserError: another process is working there, or the folder cannot be created.
    """
    return processes.run_lock(folder / LOCK, "run", folder, patience=patience)


def remove_if_empty(folder: Path) -> bool:
    """Delete the folder of a run that has no shard yet; returns whether the folder is gone."""
    if not folder.exists():
        return True
    try:
        with lock_run(folder):
            if any(path.name not in (MANIFEST, COPY, LOCK) for path in folder.iterdir()):
                return False
            if (folder / MANIFEST).exists():
                read_manifest(folder)
            remove(folder)
    except (UserError, OSError):  # another command works there, or the manifest is not of a run
        return False
    with suppress(OSError):  # Windows: releasing the lock has deleted its file
        folder.rmdir()
    return not folder.exists()


def remove(folder: Path) -> None:
    """Delete the folder of a run, which must be locked."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # systems that cannot delete open files keep the lock and the folder
        (folder / LOCK).unlink()
        folder.rmdir()


def merge(run: Run, path: Path, *, passing: bool = False) -> None:
    """Write all rows of a finished run to one file; its suffix determines the format. See ``output.write``.

    Args:
        passing: leave texts that do not pass out of a plain text file.

    Raises:
        UserError: a shard is missing or damaged, or the file cannot be written.
    """
    with atomic_write(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                write_arrays(file, run.chunks)
        else:
            columns = read_manifest(run.folder).get("columns", [])
            write_records(partial, path.suffix, run.records, passing=passing, targets=columns)
