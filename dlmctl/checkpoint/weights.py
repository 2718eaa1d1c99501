"""Weights on disk: safetensors, in one file or in shards with an index. Nothing is ever read with pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dlmctl.errors import ModelError, UserError

# Leaves room for the header below the 16 MiB that git hosts and slow links cope with.
MAX_SHARD_BYTES = 15 * 2**20
AGAIN = "Save or download the model again."

_STAGING = ".partial"


def read_object(path: Path, remedy: str | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy=remedy) from None
    if not isinstance(value, dict):
        raise ModelError("must hold a JSON object.", where=str(path), remedy=remedy)
    return value


def save_weights(
    state: Mapping[str, Tensor],
    folder: str | Path,
    stem: str = "model",
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write weights as ``STEM.safetensors``, or in shards with ``STEM.safetensors.index.json`` if they do not fit.

    Arguments and errors as ``save_pretrained``.
    """
    with staged(Path(folder)) as staging:
        write_shards(state, staging, stem, dtype, max_shard_bytes)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files move into ``folder`` and weights they replace go."""
    staging = folder / _STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        yield staging
        files = [path for path in staging.rglob("*") if path.is_file()]
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        # An index decides which weights count, so it moves last, and an outdated one goes before its shards.
        for path in sorted(files, key=lambda path: (path.name.endswith(".index.json"), path.name)):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        _remove_outdated(folder, {path.name for path in files})
    except OSError as error:
        raise UserError(
            f"cannot be written: {error}.",
            where=str(folder),
            remedy="What was there before is untouched; make room or choose another folder.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_outdated(folder: Path, written: set[str]) -> None:
    weights = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
    stems = {match[1] for name in written if (match := weights.fullmatch(name))}
    found = [path for path in folder.glob("*.safetensors*") if path.name not in written]
    for path in sorted(found, key=lambda path: not path.name.endswith(".index.json")):
        match = weights.fullmatch(path.name)
        if match and match[1] in stems:
            path.unlink()


def write_shards(state: Mapping[str, Tensor], folder: Path, stem: str, dtype: torch.dtype | None, limit: int) -> None:
    # A copy of its own for each: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in state.items()
    }
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        # Written through Python: safetensors' own files are readable by their owner alone.
        (folder / f"{stem}.safetensors").write_bytes(safetensors.torch.save(shards[0], {"format": "pt"}))
        return
    # Marks shards of one save, so that a mixture of two is found out when it is read.
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / name).write_bytes(safetensors.torch.save(shard, {"format": "pt", "save": digest.hexdigest()[:16]}))
        places.update(dict.fromkeys(shard, name))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def load_weights(folder: str | Path, stem: str = "model") -> dict[str, Tensor]:
    """Weights that ``save_weights`` wrote, on the CPU, floating point ones as float32.

    Raises:
        ModelError: a file is missing, damaged, or from another save than the rest.
    """
    folder = Path(folder)
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    files, expected = [single], None
    if index.is_file():
        expected = read_object(index, AGAIN).get("weight_map")
        if not isinstance(expected, dict) or not all(_is_plain(name) for name in expected.values()):
            raise ModelError("weight_map must name the file of each tensor.", where=str(index), remedy=AGAIN)
        files = [folder / name for name in sorted(set(expected.values()))]
    elif not single.is_file():
        raise ModelError(f"the weights are missing: {single.name} or {index.name}.", where=str(folder), remedy=AGAIN)
    state: dict[str, Tensor] = {}
    saves = set()
    for path in files:
        if not path.is_file():
            raise ModelError(f"is missing, though {index.name} names it.", where=str(path), remedy=AGAIN)
        try:
            with safe_open(path, framework="pt") as file:
                saves.add((file.metadata() or {}).get("save"))
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_tensor(name)
                    state[name] = tensor.float() if tensor.is_floating_point() else tensor
        except (OSError, SafetensorError) as error:
            raise ModelError(f"is damaged or cut short: {error}.", where=str(path), remedy=AGAIN) from None
    if len(saves) > 1:
        raise ModelError("the shards come from different saves.", where=str(folder), remedy=AGAIN)
    lost = [name for name in expected or () if name not in state]
    if lost:
        raise ModelError(f"names {lost[0]!r}, which its file does not hold.", where=str(index), remedy=AGAIN)
    return state


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name


def load_into(module: nn.Module, folder: str | Path, stem: str = "model") -> None:
    """``load_weights`` into a module, which must have exactly these tensors in these shapes.

    Raises:
        ModelError: as ``load_weights``, or they do not fit; the message names the first tensor that does not.
    """
    state, wanted = load_weights(folder, stem), module.state_dict()
    where = str(Path(folder) / f"{stem}.safetensors")
    remedy = f"The weights belong to another configuration or version. {AGAIN}"
    for name, tensor in wanted.items():
        if name not in state:
            raise ModelError(f"the tensor {name!r} is missing.", where=where, remedy=remedy)
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, not {list(tensor.shape)}"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=where, remedy=remedy)
    unknown = [name for name in state if name not in wanted]
    if unknown:
        raise ModelError(f"the tensor {unknown[0]!r} has no place in this model.", where=where, remedy=remedy)
    module.load_state_dict(state)
