"""Weights on disk: safetensors, in one file or in shards with an index. Nothing is ever read with pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlmctl.checkpoint.resolve import PICKLED
from dlmctl.errors import ModelError, UserError, short_message
from dlmctl.text.files import flush_to_disk, read_object, require_file

# Leaves room for the header within the 16 MiB that git hosts and slow links can handle.
MAX_SHARD_BYTES = 15 * 2**20
SAVE_AGAIN = "Save or download the model again."
CONVERT = (
    f"{PICKLED} is read for encoders, DiffuGPT, MDLM, BD3LM and SEDD only. "
    "Load the model with transformers and `save_pretrained` it."
)
QUANTISED, UNQUANTISED = "quantised weights cannot be read.", "Use the model in bfloat16, float16 or float32."

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

    All files are written to a staging folder first and then moved into place, so a full disk or a kill while writing
    leaves existing weights intact.

    Args:
        folder: created if missing; other files in it stay.
        dtype: dtype of the stored weights, e.g. ``torch.float16`` for files of half the size; unchanged by default.
        max_shard_bytes: maximum bytes of tensors in one file; a larger tensor gets its own file.

    Raises:
        UserError: the folder cannot be written.
    """
    with staged(Path(folder)) as staging:
        write_shards(state, staging, stem, dtype, max_shard_bytes)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A staging folder; on success its files move into ``folder``, and the weights that they replace are removed.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    staging, is_new = folder / _STAGING, not folder.exists()
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        yield staging
        files = [path for path in staging.rglob("*") if path.is_file()]
        for path in files:
            flush_to_disk(path)
        # The index determines which weights are read, so a new one moves last, and an old one is removed first.
        for path in sorted(files, key=lambda path: (path.name.endswith(".index.json"), path.name)):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        _remove_outdated(folder, {path.name for path in files})
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}.",
            where=str(folder),
            remedy="Existing files are unchanged; make room or choose another folder.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not empty, as files were written
                folder.rmdir()


def check_new(folder: Path) -> None:
    """Check before writing that a folder does not exist, or is empty except for hidden files.

    Raises:
        UserError: it holds files, or is not a folder.
    """
    try:
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}.", where=str(folder)) from None
    if names:
        kind = "weights" if any(name.endswith((".pt", ".safetensors")) for name in names) else "other files"
        raise UserError(f"already holds {kind}.", where=str(folder), remedy="Choose another folder.")


def _remove_outdated(folder: Path, written: set[str]) -> None:
    pattern = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
    stems = {match[1] for name in written if (match := pattern.fullmatch(name))}
    others = [path for path in folder.glob("*.safetensors*") if path.name not in written]
    for path in sorted(others, key=lambda path: not path.name.endswith(".index.json")):
        match = pattern.fullmatch(path.name)
        if match and match[1] in stems:
            path.unlink()


def write_shards(
    state: Mapping[str, Tensor],
    folder: Path,
    stem: str = "model",
    dtype: torch.dtype | None = None,
    limit: int = MAX_SHARD_BYTES,
) -> None:
    """Like ``save_weights``, but without a staging folder, for use inside ``staged``."""
    # Each tensor is copied: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in state.items()
    }
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=limit
    )
    # Marks the shards of one save, so that a mixture of two saves is detected on loading.
    metadata = {"format": "pt"} | ({"save": _digest(tensors)[:16]} if plan.is_sharded else {})
    for file, names in plan.filename_to_tensors.items():
        # Written through Python: files that safetensors writes are readable by their owner only.
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
    """Load weights written by ``save_weights`` to the CPU, floating point tensors as float32.

    Args:
        stored: keep the precision of the file, and map the tensors into memory without copying.

    Raises:
        ModelError: a file is missing, damaged, or from a different save than the rest; as ``require_numbers``.
    """
    folder = Path(folder)
    state: dict[str, Tensor] = {}
    saves = set()
    files, expected_names = _weight_files(folder, stem)
    for path in files:
        require_file(path, remedy=SAVE_AGAIN)
        try:
            with safe_open(path, framework="pt") as file:
                saves.add((file.metadata() or {}).get("save"))
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_tensor(name)
                    converts = tensor.is_floating_point() and not stored
                    state[name] = tensor.to(torch.float32, copy=True) if converts else tensor
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"is damaged or cut short: {short_message(error)}.", where=str(path), remedy=SAVE_AGAIN
            ) from None
    if len(saves) > 1:
        raise ModelError("the shards come from different saves.", where=str(folder), remedy=SAVE_AGAIN)
    missing = [name for name in expected_names if name not in state]
    if missing:
        where = str(folder / f"{stem}.safetensors.index.json")
        raise ModelError(f"names {missing[0]!r}, which its file does not hold.", where=where, remedy=SAVE_AGAIN)
    require_numbers(state, folder / f"{stem}.safetensors")
    return state


def stored_shape(folder: Path, tensor: str) -> Sequence[int] | None:
    """The shape of a tensor of ``load_weights``, without reading its values; None if no file has it, or they cannot be
    read, of which ``load_weights`` says why."""
    try:
        for path in _weight_files(folder, "model")[0]:
            with safe_open(path, framework="pt") as file:
                if tensor in file.keys():  # noqa: SIM118 (not a mapping)
                    return list(file.get_slice(tensor).get_shape())
    except (ModelError, OSError, SafetensorError):
        pass
    return None


def _weight_files(folder: Path, stem: str) -> tuple[list[Path], list[str]]:
    """The files of the weights, and the names of the tensors in the index, if there is one."""
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if not os.path.lexists(index):
        if not os.path.lexists(single):
            what = f"the weights are missing: {single.name} or {index.name}."
            has_pickle = os.path.lexists(folder / PICKLED)
            raise ModelError(what, where=str(folder), remedy=CONVERT if has_pickle else SAVE_AGAIN)
        return [single], []
    weight_map = read_object(index, remedy=SAVE_AGAIN).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_file_name(name) for name in weight_map.values()):
        raise ModelError("weight_map must name the file of each tensor.", where=str(index), remedy=SAVE_AGAIN)
    files = [folder / name for name in sorted(set(weight_map.values()))]
    for path in files:
        if not path.exists():
            raise ModelError(f"is missing, though {index.name} names it.", where=str(path), remedy=SAVE_AGAIN)
    return files, list(weight_map)


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name


def require_numbers(state: Mapping[str, Tensor], where: Path) -> None:
    """Check that weights are usable numbers.

    Args:
        where: their file, for the message.

    Raises:
        ModelError: a tensor is complex or quantised or has a NaN or an infinity, or all weights are zero.
    """
    sums = []
    for name, tensor in state.items():
        if tensor.is_complex():
            raise ModelError(f"the tensor {name!r} is complex; weights are real.", where=str(where), remedy=SAVE_AGAIN)
        if tensor.is_floating_point() and tensor.element_size() < 2:  # float8 and smaller support no arithmetic
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the tensor {name!r} is {kind}, and {QUANTISED}", where=str(where), remedy=UNQUANTISED)
        # A finite sum proves that all values are finite, and is fast to compute. The sum of large finite values may be
        # infinite, and that of nonzero values 0; only then are the values checked one by one.
        sums.append(float(tensor.sum()))
        if not math.isfinite(sums[-1]) and not torch.isfinite(tensor).all():
            what = f"the tensor {name!r} holds values that are not finite (NaN or infinity)."
            raise ModelError(what, where=str(where), remedy=SAVE_AGAIN)
    if state and not any(sums) and not any(tensor.any() for tensor in state.values()):
        raise ModelError("every weight is zero.", where=str(where), remedy=SAVE_AGAIN)


class _WithoutFilling(TorchFunctionMode):
    """Skips functions that fill tensors: on the ``meta`` device they do nothing, but import modules for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILL_FUNCTIONS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_FILL_FUNCTIONS = {
    *(getattr(Tensor, name) for name in ("normal_", "uniform_", "zero_", "fill_")),
    *(getattr(nn.init, f"{name}_") for name in ("normal", "uniform", "kaiming_uniform", "zeros", "ones", "constant")),
}


@contextmanager
def without_memory() -> Iterator[None]:
    """Context in which new modules have shapes but no memory and no values, whatever their sizes."""
    with torch.device("meta"), _WithoutFilling():
        yield


def without_rng_effects() -> AbstractContextManager[None]:
    """Context in which the initial weights of new modules, which are loaded later, do not advance the caller's RNG."""
    return torch.random.fork_rng(devices=[])


def give_memory(module: nn.Module) -> None:
    """Replace the remaining ``meta`` tensors of a module built ``without_memory`` by uninitialised ones on the CPU."""
    # Module.to_empty uses empty_like, which imports sympy for a meta tensor: half a second.
    module._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cpu") if t.is_meta else t)


def take_over(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Assign loaded tensors to a module built ``without_memory``, in the module's precision.

    They are not copied, which would take as long as reading them; the module becomes their only owner.
    """
    expected = module.state_dict()
    module.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()}, assign=True)
    give_memory(module)


@runtime_checkable
class RebuildsBuffers(Protocol):
    """A module with buffers that are not stored and must be computed again after it was built without memory."""

    def rebuild_buffers(self) -> None: ...


def load_into(module: nn.Module, folder: str | Path, stem: str = "model") -> None:
    """Load weights into a module, which must have exactly these tensors in these shapes.

    A module built ``without_memory`` gets memory only after everything has been found to fit, so wrong sizes cost
    nothing.

    Raises:
        ModelError: as ``load_weights``, or the weights do not fit; the message names the first tensor that does not.
    """
    state, expected = load_weights(folder, stem), module.state_dict()
    require_fit(state, expected, Path(folder) / f"{stem}.safetensors")
    if any(tensor.is_meta for tensor in expected.values()):
        take_over(module, state)
    else:
        module.load_state_dict(state)
    for part in module.modules():
        if isinstance(part, RebuildsBuffers):
            part.rebuild_buffers()


def require_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights have the names, shapes and kinds of the tensors of a module.

    Args:
        path: the file of the weights, for the message.

    Raises:
        ModelError: they do not; the message names the first tensor that does not fit.
    """
    where, remedy = str(path), f"The weights belong to another configuration or version. {SAVE_AGAIN}"
    for name, tensor in expected.items():
        if name not in state:
            raise ModelError(f"the tensor {name!r} is missing.", where=where, remedy=remedy)
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, not {list(tensor.shape)}"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=where, remedy=remedy)
        if state[name].is_floating_point() != tensor.is_floating_point():
            kinds = f"{str(state[name].dtype).removeprefix('torch.')}, not {str(tensor.dtype).removeprefix('torch.')}"
            raise ModelError(f"the tensor {name!r} is {kinds}.", where=where, remedy=remedy)
    unknown = [name for name in state if name not in expected]
    if unknown:
        raise ModelError(f"the tensor {unknown[0]!r} has no place in this model.", where=where, remedy=remedy)
