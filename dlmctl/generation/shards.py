"""A long run on disk: a folder of shards, each written whole, that can be continued after any interruption.

``manifest.json`` says what the run is: its settings and their digest, how many rows, in how many to a shard.
``rows-NNNNNNNNN.jsonl`` holds the rows from that number on, one JSON object a line; where latents are kept they lie
beside it in ``rows-NNNNNNNNN.npz``. A shard that exists is finished: it is moved into place as the last thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlmctl import __version__, processes
from dlmctl.errors import UserError
from dlmctl.generation.output import Chunk, as_lines, replacing, write_arrays

FORMAT = 1
MANIFEST = "manifest.json"
SHARD_ROWS = 512
Record = Mapping[str, Any]


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

    def chunks(self) -> Iterator[Chunk]:
        """Every row with its latent, shard by shard."""
        for shard in self.shards:
            rows = self._read(shard)
            with np.load(self.path(shard).with_suffix(".npz"), allow_pickle=False) as arrays:
                latents, offsets = arrays["latents"], arrays["offsets"]
            yield Chunk([row["text"] for row in rows], [row["passed"] for row in rows], latents, np.diff(offsets))

    def _read(self, shard: range) -> list[dict[str, Any]]:
        path = self.path(shard)
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                rows = [json.loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise UserError(f"cannot be read: {error}.", where=str(path), remedy="Delete it and run again.") from None
        if [row.get("index") for row in rows] != list(shard):
            raise UserError(
                f"does not hold the rows {shard.start} to {shard.stop - 1}.",
                where=str(path),
                remedy="Delete it and run again.",
            )
        return rows

    def environments(self) -> list[dict[str, Any]]:
        """What its rows were drawn by: more than one where it was continued otherwise."""
        found: list[dict[str, Any]] = json.loads((self.folder / MANIFEST).read_text("utf-8"))["environments"]
        return found

    def note_progress(self) -> None:
        """Say in the manifest how many shards are done; nothing relies on it."""
        path = self.folder / MANIFEST
        manifest = json.loads(path.read_text("utf-8"))
        _write_manifest(path, {**manifest, "shards_done": len(self.shards) - len(self.missing())})


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
    path = folder / MANIFEST
    settings = json.loads(json.dumps({**settings, "latents": latents}))
    ends: list[list[int]] = []
    environments: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    others = [one.name for one in folder.iterdir() if not one.name.startswith(".")]
    if MANIFEST not in others and others:
        raise UserError(
            "holds other files, and no run to continue.", where=str(folder), remedy="Name an empty or new folder."
        )
    if len(others) > 1:  # else no shard is done, and nothing stands against other settings
        ends = _continued(path, settings, rows)
        environments = json.loads(path.read_text("utf-8")).get("environments", [])
    if not ends or ends[-1][0] < rows:
        ends.append([rows, shard_rows])
    shards: list[range] = []
    for end, size in ends:
        start = shards[-1].stop if shards else 0
        shards += [range(at, min(at + size, end)) for at in range(start, end, size)]
    run = Run(folder, shards, latents)
    if environment is not None and environment not in environments and run.missing():
        environments.append(environment)
    manifest = {
        "format": FORMAT,
        "dlmctl": __version__,
        "digest": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "rows": rows,
        "segments": ends,
        "shards": len(shards),
        "shards_done": len(shards) - len(run.missing()),
        **(about or {}),
        "environments": environments,
        "settings": settings,
    }
    _write_manifest(path, manifest)
    return run


def _continued(path: Path, settings: Mapping[str, Any], rows: int) -> list[list[int]]:
    """The segments of the run that ``path`` describes, each ``[end, shard_rows]``."""
    try:
        manifest = json.loads(path.read_text("utf-8"))
        before, ends = dict(manifest["settings"]), [[int(end), int(size)] for end, size in manifest["segments"]]
        if manifest["format"] != FORMAT or not ends:
            raise ValueError(f"format {manifest['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"is no manifest of a run ({error!r}).", where=str(path), remedy="Name a new folder.") from None
    old, new = _flat(before), _flat(settings)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    changes = [f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}" for key in differing]
    if ends[-1][0] > rows:
        changes.append(f"samples was {ends[-1][0]} and is {rows}, which is fewer")
    if changes:
        raise UserError(
            f"holds a run with other settings: {'; '.join(changes)}.",
            where=str(path.parent),
            remedy="Give the same settings to continue it, or another folder.",
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


def held(folder: Path) -> AbstractContextManager[None]:
    """Keep other commands out of a run's folder meanwhile.

    Raises:
        UserError: another process is at work there, or it is no folder and cannot be made one.
    """
    return processes.held(folder / ".lock", "run", folder)


def merge(run: Run, path: Path) -> None:
    """All rows of a finished run as one file; its ending says in which form. See ``output.write``.

    Raises:
        UserError: a shard is missing or damaged, or the file cannot be written.
    """
    with replacing(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                write_arrays(file, run.chunks)
            return
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(as_lines(run.records(), path.suffix))
