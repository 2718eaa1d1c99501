"""Whether tensors of a run are numbers, and whether those of a checkpoint are of the shapes that the run has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dlmctl.training.best import Best
from dlmctl.training.muon import Muon


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity; None where all are finite.

    A device is waited for once, however many tensors there are.
    """
    names, tensors = [], []
    for name, tensor in named:
        names.append(name)
        tensors.append(tensor)
    if not names:
        return None
    sound = torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()
    return next((name for name, one in zip(names, sound, strict=True) if not one), None)


def require_finite(what: str, named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors that are no numbers.

    Args:
        what: they are, for the message.

    Raises:
        ValueError: one holds a NaN or an infinity.
    """
    if (name := not_finite(named)) is not None:
        raise ValueError(f"{what} hold values that are not finite (NaN or infinity), in {name!r}")


def require_alike(what: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names or shapes than those that they are to take the place of.

    Raises:
        ValueError: they are such.
    """
    if other := saved.keys() ^ own.keys():
        raise ValueError(f"{what} are of other names, such as {min(other)!r}")
    for name, tensor in saved.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{what} have {name!r} of shape {list(tensor.shape)}, not {list(own[name].shape)}")


def load_stepper(stepper: Any, saved: Mapping[str, Any]) -> None:
    """Give an optimiser what it has gathered of each weight. Its settings stay those of this run.

    PyTorch checks no shapes here, and its fused steps then write where they must not.

    Raises:
        ValueError: it was gathered of other weights, or holds what is no number.
    """
    own = stepper.state_dict()["param_groups"]
    if not isinstance(saved, dict) or [group["params"] for group in saved["param_groups"]] != [
        group["params"] for group in own
    ]:
        raise ValueError("an optimiser is of other weights")
    numbers = chain.from_iterable(group["params"] for group in own)
    weights = chain.from_iterable(group["params"] for group in stepper.param_groups)
    shapes = {number: weight.shape for number, weight in zip(numbers, weights, strict=True)}
    is_muon = isinstance(getattr(stepper, "optimizer", stepper), Muon)  # accelerate wraps it
    moments = {"momentum_buffer"} if is_muon else {"exp_avg", "exp_avg_sq"}
    counter = set() if is_muon else {"step"}
    for number, kept in saved["state"].items():
        fits = kept.keys() == moments | counter and all(kept[name].shape == shapes[number] for name in moments)
        if not fits or any(kept[name].numel() != 1 for name in counter):
            raise ValueError(f"an optimiser does not fit weight {number}")
        require_finite("moments of an optimiser", kept.items())
    stepper.load_state_dict({"state": saved["state"], "param_groups": own})


def load_best(best: Best, saved: dict[str, Any], averages: nn.Module) -> None:
    """Give a run the weights of its best validation.

    They are written into the averages only after the last step, so what does not fit is found here.

    Raises:
        ValueError: they are none of ``averages``, or no numbers.
    """
    if weights := saved["weights"]:
        require_alike("the best weights", weights, averages.state_dict())
        require_finite("the best weights", [(name, weights[name]) for name, _ in averages.named_parameters()])
    if bool(weights) != (saved["step"] > 0) or math.isnan(saved["loss"]):
        raise ValueError("the best weights are of no validation")
    best.load_state_dict(saved)
