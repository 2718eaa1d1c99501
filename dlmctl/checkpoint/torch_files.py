"""Weights that other programs wrote with torch. Never more than data is read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dlmctl.errors import ModelError


def read_torch_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.bin`` file, on the CPU.

    Raises:
        ModelError: the file is damaged, or holds more than the weights of one model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"is damaged, or holds more than weights: {reason}", where=str(path)) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError("does not hold the weights of one model.", where=str(path))
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
