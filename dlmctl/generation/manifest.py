"""The manifest of a long run: it describes the run and determines which settings may continue it.

``manifest.json`` has the settings and their digest, the number of rows, and the rows per shard. A copy of it,
``.manifest.json``, is written at every start, so that the shards survive a damaged manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmctl.errors import ModelError, UserError, short_message
from dlmctl.generation.output import atomic_write
from dlmctl.text.files import read_object

FORMAT = 1
MANIFEST, COPY = "manifest.json", ".manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json``, or its copy if it is missing or damaged.

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
            environments = manifest.get("environments")
            if not isinstance(manifest["settings"], dict):
                raise ValueError("no settings")
            return {
                **manifest,
                "segments": segments,
                "environments": environments if isinstance(environments, list) else [],
            }
        except ModelError as error:
            faults.append(error.what.rstrip("."))
        except (ValueError, KeyError, TypeError) as error:
            faults.append(short_message(error))
    raise UserError(
        f"is no manifest of a run ({faults[0]}).", where=str(folder / MANIFEST), remedy="Name a new folder."
    )


def shards_of(segments: Sequence[Sequence[int]]) -> list[range]:
    """The rows of each shard of a run in segments, each ``[end, shard_rows]``."""
    shards: list[range] = []
    for end, size in segments:
        start = shards[-1].stop if shards else 0
        shards += [range(at, min(at + size, end)) for at in range(start, end, size)]
    return shards


def digest_of(settings: Mapping[str, Any]) -> str:
    """A digest that distinguishes runs with different settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def changes_of(manifest: Mapping[str, Any], settings: Mapping[str, Any], rows: int) -> list[str]:
    """The changes that prevent a run with these settings and ``rows`` from continuing the one of ``manifest``."""
    last = manifest["segments"][-1][0]
    old, new = _flat(manifest["settings"]), _flat(settings)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    described = [key for key in differing if key != "targets"]  # its digest would tell the user nothing
    changes = ["the table of targets has changed"] * ("targets" in differing)
    changes += [f"{key} was {_abbreviated(old.get(key))} and is {_abbreviated(new.get(key))}" for key in described]
    if last > rows:
        changes.append(f"samples was {last} and is {rows}, which is fewer")
    return changes


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    if isinstance(settings, list):
        settings = {str(at): value for at, value in enumerate(settings)}
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    items = ((f"{prefix}.{key}" if prefix else key, value) for key, value in settings.items())
    return {key: value for name, inner in items for key, value in _flat(inner, name).items()}


def _abbreviated(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
