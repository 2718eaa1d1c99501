"""Copying the weights of one network into another with other words or more blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dlmctl.errors import ModelError
from dlmctl.text.word_matching import RowMatch


class Blocks(NamedTuple):
    """The names of tensors in blocks: ``PREFIX NUMBER . REST``; those of ``residual_outputs`` add to the residual
    stream."""

    prefix: str
    residual_outputs: tuple[str, ...]

    def origin(self, name: str, times: int) -> tuple[str, int]:
        """The tensor of the shallower network for one of the deeper, and the index of the copy of its block."""
        if not name.startswith(self.prefix):
            return name, 0
        number, rest = name.removeprefix(self.prefix).split(".", 1)
        return f"{self.prefix}{int(number) // times}.{rest}", int(number) % times


def copy_weights(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    blocks: Blocks,
    *,
    times: int,
    rows: Mapping[str, RowMatch],
    where: Path,
) -> None:
    """Copy tensors by name into ``ours``, in place.

    A network with k times the blocks receives each block k times, the copies with residual outputs of zero, so that it
    starts as the same function (function-preserving depth growth: Chen, Goodfellow and Shlens 2016).

    Args:
        times: k.
        rows: tensors with a row per word or label, of which only the matching rows are copied.
        where: the folder of ``theirs``, for messages.

    Raises:
        ModelError: a tensor is missing there, or has another shape.
    """
    for name, tensor in ours.items():
        origin, copy = blocks.origin(name, times)
        if origin not in theirs:
            raise ModelError(f"has no tensor {origin!r}.", where=str(where))
        value, match = theirs[origin], rows.get(name)
        start = 0 if match is None else 1
        if value.shape[start:] != tensor.shape[start:]:
            shapes = f"{list(value.shape)} there and {list(tensor.shape)} here"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=str(where))
        if copy and any(f".{output}." in name for output in blocks.residual_outputs):
            tensor.zero_()
        elif match is not None:
            tensor[match.ours] = value[match.theirs].to(tensor.dtype)
        else:
            tensor.copy_(value)


def repetitions(ours: int, theirs: int, where: Path) -> int:
    """How often each block of a network with ``theirs`` blocks is copied for one with ``ours``.

    Raises:
        ModelError: the one is not a multiple of the other.
    """
    if ours % theirs:
        message = f"has {theirs} blocks, and {ours} is not a multiple of that."
        raise ModelError(message, where=str(where), remedy=f"Set denoiser.layers = {2 * theirs}, for example.")
    return ours // theirs


def refuse_other_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: Path) -> None:
    """Compare the settings that two models must share for the weights of one to fit the other.

    Raises:
        ModelError: one differs.
    """
    for name, value in ours.items():
        if value != theirs[name]:
            message = f"{name} is {theirs[name]!r} there and {value!r} in this configuration."
            raise ModelError(message, where=str(where), remedy="Set the new model's to the same value.")
