"""Checks that tensors of a run are finite, and that those of a checkpoint have the run's names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dlmctl.training.best import BestWeights
from dlmctl.training.muon import Muon


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity; None if all are finite.

    Waits for the device once, however many tensors there are.
    """
    names, tensors = [], []
    for name, tensor in named:
        names.append(name)
        tensors.append(tensor)
    if not names:
        return None
    are_finite = torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()
    return next((name for name, is_finite in zip(names, are_finite, strict=True) if not is_finite), None)


def require_finite(what: str, named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors that are not finite.

    Args:
        what: the tensors, as the message calls them.

    Raises:
        ValueError: a tensor holds a NaN or an infinity.
    """
    if (name := not_finite(named)) is not None:
        raise ValueError(f"{what} hold values that are not finite (NaN or infinity), in {name!r}")


def require_same_shapes(what: str, saved: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> None:
    """Refuse saved tensors whose names or shapes differ from those that they replace.

    Raises:
        ValueError: a name or a shape differs.
    """
    if differing := saved.keys() ^ current.keys():
        raise ValueError(f"{what} have other names, such as {min(differing)!r}")
    for name, tensor in saved.items():
        if tensor.shape != current[name].shape:
            raise ValueError(f"{what} have {name!r} of shape {list(tensor.shape)}, not {list(current[name].shape)}")


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Load an optimiser's saved moments. Its settings stay those of this run.

    PyTorch does not check shapes here, and its fused steps would then write out of bounds.

    Raises:
        ValueError: the moments belong to other weights, or are not finite.
    """
    groups = optimizer.state_dict()["param_groups"]
    if not isinstance(saved, dict) or [group["params"] for group in saved["param_groups"]] != [
        group["params"] for group in groups
    ]:
        raise ValueError("the state of an optimiser belongs to other weights")
    numbers = chain.from_iterable(group["params"] for group in groups)
    weights = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    shapes = {number: weight.shape for number, weight in zip(numbers, weights, strict=True)}
    is_muon = isinstance(getattr(optimizer, "optimizer", optimizer), Muon)  # accelerate wraps it
    moment_names = {"momentum_buffer"} if is_muon else {"exp_avg", "exp_avg_sq"}
    counter_names = set() if is_muon else {"step"}
    for number, moments in saved["state"].items():
        fits = moments.keys() == moment_names | counter_names and all(
            moments[name].shape == shapes[number] for name in moment_names
        )
        if not fits or any(moments[name].numel() != 1 for name in counter_names):
            raise ValueError(f"the state of an optimiser does not fit weight {number}")
        require_finite("moments of an optimiser", moments.items())
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def load_best(best: BestWeights, saved: dict[str, Any], averages: nn.Module) -> None:
    """Load the weights of a run's best validation.

    They are copied into the averages only after the last step, so they are checked here.

    Raises:
        ValueError: they do not fit ``averages``, or are not finite.
    """
    if weights := saved["weights"]:
        require_same_shapes("the best weights", weights, averages.state_dict())
        require_finite("the best weights", weights.items())
    if bool(weights) != (saved["step"] > 0) or math.isnan(saved["loss"]):
        raise ValueError("the best weights belong to no validation")
    best.load_state_dict(saved)
