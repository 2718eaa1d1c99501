"""Weights that other programs wrote with torch. Never more than data is read."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from dlmctl.errors import ModelError, brief
from dlmctl.text.files import require_file


def read_torch_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.bin`` file, on the CPU.

    Raises:
        ModelError: the file is damaged, holds more than the weights of one model, or tensors that are no plain ones.
    """
    require_file(path)
    remedy = "Copy it again; if it is whole, save its tensors alone: `torch.save(model.state_dict(), PATH)`."
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that torch did not write, which are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's message advises to read the file without this protection.
        what = "is damaged, or holds more than weights: what would run code on reading is never read."
        raise ModelError(what, where=str(path), remedy=remedy) from None
    except Exception as error:  # torch raises its own and zip's errors for damaged files
        what = f"is damaged, or holds more than weights: {brief(error)}."
        raise ModelError(what, where=str(path), remedy=remedy) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise ModelError("does not hold the weights of one model.", where=str(path))
    for name, tensor in state.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            what = f"the tensor {name!r} does not hold its numbers one by one: it is sparse, quantized or without any."
            raise ModelError(what, where=str(path), remedy="Save it as an ordinary tensor.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _check_sums(path: Path) -> None:
    """Check the sums that the file has of its parts, which torch does not; the format before torch 1.6 has none.

    Raises:
        ValueError: a part is not what was written.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise ValueError(f"the part {damaged!r} is not what was written")
