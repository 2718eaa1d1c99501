"""Weights that other programs saved with torch. Only data is read, never code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from dlmctl.errors import ModelError, short_message
from dlmctl.text.files import require_file


def read_torch_weights(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.bin`` file, on the CPU.

    Args:
        mapped: map the values into memory, unchecked, for those who ask for shapes only. The format before torch 1.6
            has to be read.

    Raises:
        ModelError: the file is damaged, holds more than the weights of one model, or tensors that are not plain.
    """
    require_file(path)
    remedy = "Copy it again; if it is complete, save its tensors alone: `torch.save(model.state_dict(), PATH)`."
    try:
        if not mapped:
            _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files not written by torch, which are refused below
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        # torch's own message recommends to turn off this protection.
        what = "is damaged, or holds more than weights; files that would run code on loading are never read."
        raise ModelError(what, where=str(path), remedy=remedy) from None
    except Exception as error:  # torch raises its own and zip's errors for damaged files
        what = f"is damaged, or holds more than weights: {short_message(error)}."
        raise ModelError(what, where=str(path), remedy=remedy) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise ModelError("does not hold the weights of one model.", where=str(path))
    for name, tensor in state.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            what = f"the tensor {name!r} is not a dense tensor: it is sparse, quantized or without values."
            raise ModelError(what, where=str(path), remedy="Save it as an ordinary tensor.")
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # a few bytes in the file, and any number to compute with
            what = f"the tensor {name!r} repeats its values: it has {tensor.nbytes:,} bytes, and the file fewer."
            raise ModelError(what, where=str(path), remedy="Save it as an ordinary tensor.")
    return {name.removeprefix("module."): tensor.detach() for name, tensor in state.items()}


def _check_sums(path: Path) -> None:
    """Check the file's checksums, which torch does not; the format before torch 1.6 has none.

    Raises:
        ValueError: a part of the file was changed.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged!r} is wrong")
