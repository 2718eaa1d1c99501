"""A long run on disk: a folder of shards, each written whole, that can be continued after any interruption.

``manifest.json`` says what the run is: its settings and their digest, how many rows, in how many to a shard. A copy of
it, ``.manifest.json``, is written at every start, so that a damaged manifest does not cost the shards.
``rows-NNNNNNNNN.jsonl`` holds the rows from that number on, one JSON object a line; where latents are kept they lie
beside it in ``rows-NNNNNNNNN.npz``. A shard that exists is finished: it is moved into place as the last thing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from dlmctl import __version__, processes
from dlmctl.errors import ModelError, UserError, brief
from dlmctl.generation.output import Chunk, as_lines, replacing, write_arrays, write_records
from dlmctl.text.files import read_object, require_file

FORMAT = 1
MANIFEST, COPY = "manifest.json", ".manifest.json"
SHARD_ROWS = 512
Record = Mapping[str, Any]
_AGAIN = "Delete it and run again."


@dataclass(frozen=True)
class Run:
    """A run in its folder.

    Attributes:
        shards: the row numbers of each, in order.
        latents: whether latents are kept beside the rows.
    """

    folder: Path
    shards: list[range]
    latents: bool

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
        return list(_read_manifest(self.folder)["environments"])

    def settings(self) -> dict[str, Any]:
        """What its rows follow from, with the name of the model."""
        manifest = _read_manifest(self.folder)
        about = {"model": manifest.get("model"), "samples": self.rows}
        return {**about, **manifest["settings"], **about}

    def note_progress(self) -> None:
        """Say in the manifest how many shards are done; nothing relies on it."""
        manifest = {**_read_manifest(self.folder), "shards_done": len(self.shards) - len(self.missing())}
        _write_manifest(self.folder / MANIFEST, manifest)


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
    about: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Run:
    """Start a run in ``folder``, or continue the one that is there.

    Args:
        settings: all that the rows follow from, as JSON values. A run is only continued with the same.
        rows: how many. A run may be given more rows than before, never fewer.
        shard_rows: rows in each new shard; shards that there are stay as they are.
        about: what else the manifest is to hold.
        environment: what the rows drawn from now on depend on beside the settings. The manifest lists all it had.

    Raises:
        UserError: the folder holds something else, or a run with other settings, which the message names.
    """
    settings = json.loads(json.dumps({**settings, "latents": latents}))
    ends: list[list[int]] = []
    environments: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    others = [one.name for one in folder.iterdir() if not one.name.startswith(".")]
    known = MANIFEST in others or (folder / COPY).exists()
    if others and not known:
        raise UserError(
            "holds other files, and no run to continue.", where=str(folder), remedy="Name an empty or new folder."
        )
    before = _read_manifest(folder) if known else {}
    if any(name.startswith("rows-") for name in others):  # else nothing stands against other settings
        ends = _continued(folder, before, settings, rows)
        environments = before["environments"]
    if not ends or ends[-1][0] < rows:
        ends.append([rows, shard_rows])
    run = Run(folder, _shards(ends), latents)
    if environment is not None and environment not in environments and run.missing():
        environments.append(environment)
    manifest = {
        "format": FORMAT,
        "dlmctl": __version__,
        "digest": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "rows": rows,
        "segments": ends,
        "shards": len(run.shards),
        "shards_done": len(run.shards) - len(run.missing()),
        **(about or {}),
        "environments": environments,
        "settings": settings,
    }
    _write_manifest(folder / COPY, manifest)
    _write_manifest(folder / MANIFEST, manifest)
    return run


def saved_run(folder: Path) -> Run:
    """The run in a folder as it is, finished or not, to be read.

    Raises:
        UserError: the folder holds none.
    """
    manifest = _read_manifest(folder)
    return Run(folder, _shards(manifest["segments"]), bool(manifest["settings"].get("latents")))


def _shards(ends: Sequence[Sequence[int]]) -> list[range]:
    """The rows of each shard of a run in segments, each ``[end, shard_rows]``."""
    shards: list[range] = []
    for end, size in ends:
        start = shards[-1].stop if shards else 0
        shards += [range(at, min(at + size, end)) for at in range(start, end, size)]
    return shards


def _read_manifest(folder: Path) -> dict[str, Any]:
    """What ``manifest.json`` says, or its copy where it is missing or damaged.

    Raises:
        UserError: neither is the manifest of a run.
    """
    faults = []
    for name in (MANIFEST, COPY):
        try:
            manifest = read_object(folder / name)
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}")
            segments = [[int(end), int(size)] for end, size in manifest["segments"]]
            if not segments or min(map(min, segments)) < 1 or sorted(segments) != segments:
                raise ValueError("no segments")
            drawn_by = manifest.get("environments")
            if not isinstance(manifest["settings"], dict):
                raise ValueError("no settings")
            return {**manifest, "segments": segments, "environments": drawn_by if isinstance(drawn_by, list) else []}
        except ModelError as error:
            faults.append(error.what.rstrip("."))
        except (ValueError, KeyError, TypeError) as error:
            faults.append(brief(error))
    raise UserError(
        f"is no manifest of a run ({faults[0]}).", where=str(folder / MANIFEST), remedy="Name a new folder."
    )


def _continued(folder: Path, manifest: Mapping[str, Any], settings: Mapping[str, Any], rows: int) -> list[list[int]]:
    """The segments of the run that ``manifest`` describes, each ``[end, shard_rows]``."""
    ends: list[list[int]] = manifest["segments"]
    old, new = _flat(manifest["settings"]), _flat(settings)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    told = [key for key in differing if key != "targets"]  # of which a digest would say nothing
    changes = ["the table of targets has changed"] * ("targets" in differing)
    changes += [f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}" for key in told]
    if ends[-1][0] > rows:
        changes.append(f"samples was {ends[-1][0]} and is {rows}, which is fewer")
    if changes:
        raise UserError(
            f"holds a run with other settings: {'; '.join(changes)}.",
            where=str(folder),
            remedy="Give the same settings to continue it, or name another place.",
        )
    return ends


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    if isinstance(settings, list):
        settings = {str(at): value for at, value in enumerate(settings)}
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    joined = ((f"{prefix}.{key}" if prefix else key, value) for key, value in settings.items())
    return {key: value for name, inner in joined for key, value in _flat(inner, name).items()}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")


def held(folder: Path, *, patience: float = 0) -> AbstractContextManager[None]:
    """Keep other commands out of a run's folder meanwhile.

    Args:
        patience: seconds to wait for one that is there.

    Raises:
        UserError: another process is at work there, or it is no folder and cannot be made one.
    """
    return processes.held(folder / ".lock", "run", folder, patience=patience)


def remove_if_empty(folder: Path) -> bool:
    """Take away the folder of a run that has no shard yet; whether there is none now."""
    if not folder.exists():
        return True
    try:
        with held(folder):
            if any(path.name not in (MANIFEST, COPY, ".lock") for path in folder.iterdir()):
                return False
            if (folder / MANIFEST).exists():
                _read_manifest(folder)
            shutil.rmtree(folder)
    except (UserError, OSError):  # another command is at work there, or the manifest is somebody else's
        return False
    return True


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
            columns = _read_manifest(run.folder).get("columns", [])
            write_records(partial, path.suffix, run.records, passing=passing, targets=columns)
