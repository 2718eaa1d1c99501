"""Checks of what authors' code returns at every step for NaN and infinity, and which control is at fault.

On a CPU the logits are checked as soon as a control returns them. On a GPU that would wait for the device at every
step: there faults are recorded on the device, and looked up once the texts are drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

from dlmctl.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Whether a CPU checks the logits at once.
AT_ONCE_CPU = True


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether an author's code returned a tensor, rather than a NumPy array."""
    import torch

    return isinstance(value, torch.Tensor)


def narrowed(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` in single precision if it is in double and ``like`` is not, as happens with NumPy's numbers."""
    return tensor.float() if tensor.element_size() == 8 > like.element_size() else tensor


def spoiled(logits: Tensor, *before: Tensor) -> Tensor:
    """Whether any of the ``logits [B, L, V]`` is NaN or +inf while none was ``before``, a bool ``[]``. -inf is allowed:
    it rules a word out."""
    # The maximum is NaN if any element is. Few calls, because this runs at every step.
    is_sound, *was_sound = (tensor.amax() < math.inf for tensor in (logits, *before))
    return was_sound[0] > is_sound if was_sound else ~is_sound


def may_be_spoiled(logits: Tensor) -> bool:
    """Whether ``spoiled`` may be true: a quicker test, a thirtieth of the time of a softmax on a CPU."""
    # A sum of finite numbers and -inf is below infinity, unless it overflows.
    return not logits.sum() < math.inf


class FaultLog:
    """Faults on a device, each with whether it occurred at any step."""

    def __init__(self) -> None:
        self.occurred: dict[tuple[str, str | None], Tensor] = {}

    def note(self, fault: UserError, occurs: Tensor) -> None:
        """Record whether a fault ``occurs``, a bool ``[]``, without waiting for it."""
        key = fault.what, fault.where
        if key not in self.occurred:  # allocated before any step is recorded: the first of its kind never is
            self.occurred[key] = occurs.clone()
        self.occurred[key].logical_or_(occurs)

    def look(self) -> None:
        """Wait for the device and raise the first fault.

        Raises:
            UserError: a fault occurred, the first in the order in which the controls are called.
        """
        for (what, where), occurred in self.occurred.items():
            if occurred:
                raise UserError(what, where=where)


def fault_log_for(device: torch.device) -> FaultLog | None:
    """A log for the faults of texts that are drawn on a device; None if logits are checked at once."""
    return None if AT_ONCE_CPU and device.type == "cpu" else FaultLog()
