"""A long run on disk: a folder of shards, each written whole, that can be continued after any interruption.

``manifest.json`` says what the run is; see ``dlmctl.generation.manifest``.
``rows-NNNNNNNNN.jsonl`` holds the rows from that number on, one JSON object a line; where latents are kept they lie
beside it in ``rows-NNNNNNNNN.npz``. A shard that exists is finished: it is moved into place as the last thing.
"""

from __future__ import annotations

import json
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
from dlmctl.errors import UserError, brief
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
from dlmctl.generation.output import Chunk, as_lines, replacing, write_arrays, write_records
from dlmctl.text.files import require_file

LOCK = ".lock"
SHARD_ROWS = 512
Record = Mapping[str, Any]
_AGAIN = "Delete it and run again."


@dataclass(frozen=True)
class Run:
    """A run in its folder.

    Attributes:
        shards: the row numbers of each, in order.
        latents: whether latents are kept beside the rows.
        digest: of its settings.
    """

    folder: Path
    shards: list[range]
    latents: bool
    digest: str = ""

    @property
    def rows(self) -> int:
        """How many rows it is to have."""
        return self.shards[-1].stop

    def path(self, shard: range) -> Path:
        return self.folder / f"rows-{shard.start:09}.jsonl"

    def missing(self) -> list[range]:
        """The shards still to be written."""
        return [shard for shard in self.shards if not self.path(shard).exists()]

    def done(self) -> int:
        """Rows on disk."""
        return self.rows - sum(map(len, self.missing()))

    def confirm(self, shard: range) -> None:
        """Find out, while the folder is held, whether a shard still has its place in it: as long as no shard of the
        run is on disk, nothing keeps another command from starting another run there.

        Raises:
            UserError: another command has done so.
        """
        manifest = read_manifest(self.folder)
        if manifest.get("digest") != self.digest or shard not in shards_of(manifest["segments"]):
            what = "another command has started a run with other settings or other shards here; nothing is written."
            raise UserError(what, where=str(self.folder), remedy="Give each run a folder of its own.")

    def write(self, shard: range, records: Sequence[Record], latents: Sequence[np.ndarray] = ()) -> None:
        """Put a shard in its place, its latents (each ``[L, D]``) first.

        Raises:
            UserError: it cannot be written.
        """
        path = self.path(shard)
        if self.latents:
            with replacing(path.with_suffix(".npz")) as partial, partial.open("wb") as file:
                offsets = np.cumsum([0, *map(len, latents)])
                np.savez_compressed(file, latents=np.concatenate(latents), offsets=offsets)
        with replacing(path) as partial:
            partial.write_text("".join(as_lines(records, ".jsonl")), "utf-8")

    def records(self) -> Iterator[dict[str, Any]]:
        """Every row in order."""
        for shard in self.shards:
            yield from self._read(shard)

    def records_so_far(self) -> Iterator[dict[str, Any]]:
        """The rows that are on disk, in order."""
        for shard in self.shards:
            if self.path(shard).exists():
                yield from self._read(shard)

    def chunks(self) -> Iterator[Chunk]:
        """Every row with its latent, shard by shard."""
        for shard in self.shards:
            rows = self._read(shard)
            latents, offsets = _read_latents(self.path(shard).with_suffix(".npz"), len(rows))
            texts, passed = [row["text"] for row in rows], [row["passed"] for row in rows]
            yield Chunk(texts, passed, latents, np.diff(offsets), [row["row"] for row in rows if "row" in row])

    def _read(self, shard: range) -> list[dict[str, Any]]:
        path = self.path(shard)
        require_file(path, error=UserError, remedy=_AGAIN)
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                rows = [json.loads(line) for line in file]
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot be read: {brief(error)}.", where=str(path), remedy=_AGAIN) from None
        if not all(map(_is_row, rows)) or [row["index"] for row in rows] != list(shard):
            what = f"does not hold the rows {shard.start} to {shard.stop - 1}."
            raise UserError(what, where=str(path), remedy=_AGAIN)
        return rows

    def environments(self) -> list[dict[str, Any]]:
        """What its rows were drawn by: more than one where it was continued otherwise."""
        return list(read_manifest(self.folder)["environments"])

    def settings(self) -> dict[str, Any]:
        """What its rows follow from, with the name of the model."""
        manifest = read_manifest(self.folder)
        about = {"model": manifest.get("model"), "samples": self.rows}
        return {**about, **manifest["settings"], **about}

    def note_progress(self) -> None:
        """Say in the manifest how many shards are done; nothing relies on it."""
        manifest = {**read_manifest(self.folder), "shards_done": len(self.shards) - len(self.missing())}
        write_manifest(self.folder / MANIFEST, manifest)


def _is_row(row: Any) -> bool:
    """Whether a line holds what is counted and merged of a sample."""
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
    """The latents of a shard, end to end, and where each begins.

    Raises:
        UserError: the file is missing or damaged.
    """
    require_file(path, error=UserError, remedy=_AGAIN)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, offsets = arrays["latents"], arrays["offsets"]
        if len(offsets) != rows + 1 or offsets[-1] != len(latents):
            raise ValueError("another number of rows")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        what = f"cannot be read: {brief(error)}."
        raise UserError(what, where=str(path), remedy="Delete it and the .jsonl beside it, and run again.") from None
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
        settings: all that the rows follow from, as JSON values. A run is only continued with the same.
        rows: how many. A run may be given more rows than before, never fewer.
        shard_rows: rows in each new shard; shards that there are stay as they are.
        joining: the shards stay as they are also where none of them is on disk yet, as others may be drawing them.
        about: what else the manifest is to hold.
        environment: what the rows drawn from now on depend on beside the settings. The manifest lists all it had.

    Raises:
        UserError: the folder holds something else, a run with other settings, which the message names, or rows that
            are no shard of this run.
    """
    settings = json.loads(json.dumps({**settings, "latents": latents}))
    ends: list[list[int]] = []
    environments: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    before, names = _found_in(folder)
    drawn = [name for name in names if name.startswith("rows-")]
    changes = changes_of(before, settings, rows) if before else []
    if drawn and changes:  # where nothing is drawn, nothing stands against other settings
        what = f"holds a run with other settings: {'; '.join(changes)}."
        remedy = "Give the same settings to continue it, name another place, or delete it."
        raise UserError(what, where=str(folder), remedy=remedy)
    if drawn or (before and joining and not changes):
        ends, environments = before["segments"], before["environments"]
    if not ends or ends[-1][0] < rows:
        ends.append([rows, shard_rows])
    run = Run(folder, shards_of(ends), latents, digest_of(settings))
    _refuse_strays(run, drawn)
    if environment is not None and environment not in environments and run.missing():
        environments.append(environment)
    manifest = {
        "format": FORMAT,
        "dlmctl": __version__,
        "digest": run.digest,
        "rows": rows,
        "segments": ends,
        "shards": len(run.shards),
        "shards_done": len(run.shards) - len(run.missing()),
        **(about or {}),
        "environments": environments,
        "settings": settings,
    }
    write_manifest(folder / COPY, manifest)
    write_manifest(folder / MANIFEST, manifest)
    return run


def _found_in(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest of the run in a folder, empty where there is none, and the names of its files that are not hidden.

    Raises:
        UserError: it holds something else.
    """
    names = [one.name for one in folder.iterdir() if not one.name.startswith(".")] if folder.is_dir() else []
    known = MANIFEST in names or (folder / COPY).exists()
    if names and not known:
        raise UserError(
            "holds other files, and no run to continue.", where=str(folder), remedy="Name an empty or new folder."
        )
    return (read_manifest(folder) if known else {}), names


def refuse_others(folder: Path) -> None:
    """Find out, before anything is put there, whether a folder is one for a run.

    Raises:
        UserError: it holds something else.
    """
    _found_in(folder)


def _refuse_strays(run: Run, drawn: Sequence[str]) -> None:
    """Raise UserError where rows lie in a folder that are no shard of its run: whoever puts the files together would
    have them too."""
    known = {run.path(shard).name for shard in run.shards}
    strays = sorted(name for name in drawn if name.endswith(".jsonl") and name not in known)
    if strays:
        what = f"is no shard of the run in its folder{f', and {len(strays) - 1} more are none' if strays[1:] else ''}."
        raise UserError(what, where=str(run.folder / strays[0]), remedy="Delete it, or move it away, and run again.")


def saved_run(folder: Path) -> Run:
    """The run in a folder as it is, finished or not, to be read.

    Raises:
        UserError: the folder holds none.
    """
    manifest = read_manifest(folder)
    latents = bool(manifest["settings"].get("latents"))
    return Run(folder, shards_of(manifest["segments"]), latents, str(manifest.get("digest")))


def held(folder: Path, *, patience: float = 0) -> AbstractContextManager[None]:
    """Keep other commands out of a run's folder meanwhile.

    Args:
        patience: seconds to wait for one that is there.

    Raises:
        UserError: another process is at work there, or it is no folder and cannot be made one.
    """
    return processes.held(folder / LOCK, "run", folder, patience=patience)


def remove_if_empty(folder: Path) -> bool:
    """Take away the folder of a run that has no shard yet; whether there is none now."""
    if not folder.exists():
        return True
    try:
        with held(folder):
            if any(path.name not in (MANIFEST, COPY, LOCK) for path in folder.iterdir()):
                return False
            if (folder / MANIFEST).exists():
                read_manifest(folder)
            shutil.rmtree(folder)
    except (UserError, OSError):  # another command is at work there, or the manifest is somebody else's
        return False
    return True


def remove(folder: Path) -> None:
    """Take away the folder of a run, which is held."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # a system that deletes no open file keeps the lock, and the folder
        (folder / LOCK).unlink()
        folder.rmdir()


def merge(run: Run, path: Path, *, passing: bool = False) -> None:
    """All rows of a finished run as one file; its ending says in which form. See ``output.write``.

    Args:
        passing: leave out of a file of texts alone those that do not pass.

    Raises:
        UserError: a shard is missing or damaged, or the file cannot be written.
    """
    with replacing(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                write_arrays(file, run.chunks)
        else:
            columns = read_manifest(run.folder).get("columns", [])
            write_records(partial, path.suffix, run.records, passing=passing, targets=columns)
