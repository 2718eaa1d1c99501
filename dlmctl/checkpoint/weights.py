"""Weights on disk: safetensors, in one file or in shards with an index. Nothing is ever read with pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlmctl.errors import ModelError, UserError, brief
from dlmctl.text.files import read_object, require_file

# Leaves room for the header below the 16 MiB that git hosts and slow links cope with.
MAX_SHARD_BYTES = 15 * 2**20
AGAIN = "Save or download the model again."
QUANTISED, UNQUANTISED = "quantised weights are not read.", "Take the model in bfloat16, float16 or float32."

_STAGING = ".partial"


def save_weights(
    state: Mapping[str, Tensor],
    folder: str | Path,
    stem: str = "model",
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write weights as ``STEM.safetensors``, or in shards with ``STEM.safetensors.index.json`` if they do not fit.

    All files are written aside first and then moved into place, so a full disk or a kill while writing leaves
    the weights that were there.

    Args:
        folder: made if it is not there; other things in it stay.
        dtype: of the stored weights, e.g. ``torch.float16`` for files of half the size; as they are by default.
        max_shard_bytes: most bytes of tensors in one file; a single larger tensor has a file of its own.

    Raises:
        UserError: the folder cannot be written.
    """
    with staged(Path(folder)) as staging:
        write_shards(state, staging, stem, dtype, max_shard_bytes)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files move into ``folder`` and weights they replace go.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    staging, new = folder / _STAGING, not folder.exists()
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
        if new:
            with suppress(OSError):  # it holds what was written
                folder.rmdir()


def check_new(folder: Path) -> None:
    """Find out before anything is written whether a folder is free: not there, or empty but for hidden files.

    Raises:
        UserError: it holds something, or is no folder.
    """
    try:
        found = [one.name for one in folder.iterdir() if not one.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot be written: {error}.", where=str(folder)) from None
    if found:
        kind = "weights" if any(name.endswith((".pt", ".safetensors")) for name in found) else "other files"
        raise UserError(f"holds {kind} already.", where=str(folder), remedy="Choose another folder.")


def _remove_outdated(folder: Path, written: set[str]) -> None:
    weights = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
    stems = {match[1] for name in written if (match := weights.fullmatch(name))}
    found = [path for path in folder.glob("*.safetensors*") if path.name not in written]
    for path in sorted(found, key=lambda path: not path.name.endswith(".index.json")):
        match = weights.fullmatch(path.name)
        if match and match[1] in stems:
            path.unlink()


def write_shards(
    state: Mapping[str, Tensor],
    folder: Path,
    stem: str = "model",
    dtype: torch.dtype | None = None,
    limit: int = MAX_SHARD_BYTES,
) -> None:
    """``save_weights`` straight into ``folder``, for use inside ``staged``."""
    # A copy of its own for each: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in state.items()
    }
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=limit
    )
    # Marks shards of one save, so that a mixture of two is found out when it is read.
    metadata = {"format": "pt"} | ({"save": _digest(tensors)[:16]} if plan.is_sharded else {})
    for file, names in plan.filename_to_tensors.items():
        # Written through Python: safetensors' own files are readable by their owner alone.
        (folder / file).write_bytes(safetensors.torch.save({name: tensors[name] for name in names}, metadata))
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_weights(folder: str | Path, stem: str = "model", *, stored: bool = False) -> dict[str, Tensor]:
    """Weights that ``save_weights`` wrote, on the CPU, floating point ones as float32.

    Args:
        stored: in the precision of the file, mapped into memory from there; nothing is copied.

    Raises:
        ModelError: a file is missing, damaged, or from another save than the rest; as ``require_numbers``.
    """
    folder = Path(folder)
    state: dict[str, Tensor] = {}
    saves = set()
    files, expected = _weight_files(folder, stem)
    for path in files:
        require_file(path, remedy=AGAIN)
        try:
            with safe_open(path, framework="pt") as file:
                saves.add((file.metadata() or {}).get("save"))
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_tensor(name)
                    own = tensor.is_floating_point() and not stored
                    state[name] = tensor.to(torch.float32, copy=True) if own else tensor
        except (OSError, SafetensorError) as error:
            raise ModelError(f"is damaged or cut short: {brief(error)}.", where=str(path), remedy=AGAIN) from None
    if len(saves) > 1:
        raise ModelError("the shards come from different saves.", where=str(folder), remedy=AGAIN)
    lost = [name for name in expected if name not in state]
    if lost:
        where = str(folder / f"{stem}.safetensors.index.json")
        raise ModelError(f"names {lost[0]!r}, which its file does not hold.", where=where, remedy=AGAIN)
    require_numbers(state, folder / f"{stem}.safetensors")
    return state


def _weight_files(folder: Path, stem: str) -> tuple[list[Path], list[str]]:
    """The files that hold the weights, and the names of the tensors that an index promises."""
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if not os.path.lexists(index):
        if not os.path.lexists(single):
            what = f"the weights are missing: {single.name} or {index.name}."
            raise ModelError(what, where=str(folder), remedy=AGAIN)
        return [single], []
    places = read_object(index, remedy=AGAIN).get("weight_map")
    if not isinstance(places, dict) or not all(_is_plain(name) for name in places.values()):
        raise ModelError("weight_map must name the file of each tensor.", where=str(index), remedy=AGAIN)
    files = [folder / name for name in sorted(set(places.values()))]
    for path in files:
        if not path.exists():
            raise ModelError(f"is missing, though {index.name} names it.", where=str(path), remedy=AGAIN)
    return files, list(places)


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name


def require_numbers(state: Mapping[str, Tensor], where: Path) -> None:
    """Check that weights are numbers one can calculate with.

    Args:
        where: their file, for the message.

    Raises:
        ModelError: a tensor is complex or quantised or has a NaN or an infinity, or there is nothing but zeros.
    """
    sums = []
    for name, tensor in state.items():
        if tensor.is_complex():
            raise ModelError(f"the tensor {name!r} is complex; weights are real.", where=str(where), remedy=AGAIN)
        if tensor.is_floating_point() and tensor.element_size() < 2:  # one cannot calculate with these
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the tensor {name!r} is {kind}, and {QUANTISED}", where=str(where), remedy=UNQUANTISED)
        # A sum is finite only where all numbers are, and quick to make. Of large ones it may not be, and of ones that
        # are not 0 it may be 0: then they are looked at one by one.
        sums.append(float(tensor.sum()))
        if not math.isfinite(sums[-1]) and not torch.isfinite(tensor).all():
            what = f"the tensor {name!r} holds values that are not finite (NaN or infinity)."
            raise ModelError(what, where=str(where), remedy=AGAIN)
    if state and not any(sums) and not any(tensor.any() for tensor in state.values()):
        raise ModelError("every weight is zero.", where=str(where), remedy=AGAIN)


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills tensors: on the ``meta`` device that does nothing, after seconds of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_FILLING = {
    *(getattr(Tensor, name) for name in ("normal_", "uniform_", "zero_", "fill_")),
    *(getattr(nn.init, f"{name}_") for name in ("normal", "uniform", "kaiming_uniform", "zeros", "ones", "constant")),
}


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules that are built here have shapes but neither memory nor values, whatever sizes they are asked for."""
    with torch.device("meta"), _Unfilled():
        yield


def without_draws() -> AbstractContextManager[None]:
    """Modules that are built here draw their first weights, which are read later, from no stream of the caller's."""
    return torch.random.fork_rng(devices=[])


def give_memory(module: nn.Module) -> None:
    """Give a module that was built ``without_memory`` tensors on the CPU, of any values, where it still has none."""
    # Module.to_empty does the same by empty_like, which for a tensor of meta imports sympy: half a second.
    module._apply(lambda one: torch.empty(one.shape, dtype=one.dtype, device="cpu") if one.is_meta else one)


def take_over(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make tensors as they were read those of a module that was built ``without_memory``, in the precision that it was
    built in: they are nobody else's, and to copy them would take as long as to read them."""
    wanted = module.state_dict()
    module.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in state.items()}, assign=True)
    give_memory(module)


@runtime_checkable
class Refilled(Protocol):
    """A module with tensors that are no weights, to be made again where it was built without memory."""

    def refill(self) -> None: ...


def load_into(module: nn.Module, folder: str | Path, stem: str = "model") -> None:
    """``load_weights`` into a module, which must have exactly these tensors in these shapes.

    A module built ``without_memory`` gets memory only after everything fits, so sizes that are not those of the
    weights cost nothing.

    Raises:
        ModelError: as ``load_weights``, or they do not fit; the message names the first tensor that does not.
    """
    state, wanted = load_weights(folder, stem), module.state_dict()
    require_fit(state, wanted, Path(folder) / f"{stem}.safetensors")
    if any(tensor.is_meta for tensor in wanted.values()):
        take_over(module, state)
    else:
        module.load_state_dict(state)
    for part in module.modules():
        if isinstance(part, Refilled):
            part.refill()


def require_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights have the names, shapes and kinds of the tensors of a module.

    Args:
        path: the file of the weights, for the message.

    Raises:
        ModelError: they have not; the message names the first tensor.
    """
    where, remedy = str(path), f"The weights belong to another configuration or version. {AGAIN}"
    for name, tensor in wanted.items():
        if name not in state:
            raise ModelError(f"the tensor {name!r} is missing.", where=where, remedy=remedy)
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, not {list(tensor.shape)}"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=where, remedy=remedy)
        if state[name].is_floating_point() != tensor.is_floating_point():
            kinds = f"{str(state[name].dtype).removeprefix('torch.')}, not {str(tensor.dtype).removeprefix('torch.')}"
            raise ModelError(f"the tensor {name!r} is {kinds}.", where=where, remedy=remedy)
    unknown = [name for name in state if name not in wanted]
    if unknown:
        raise ModelError(f"the tensor {unknown[0]!r} has no place in this model.", where=where, remedy=remedy)
