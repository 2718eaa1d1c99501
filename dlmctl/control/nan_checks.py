"""What authors' code gives at every step, as numbers: word logits that are none, and whose they are.

On a CPU they are looked at as soon as a control gives them. A GPU would have to be waited for at every step: there it
is noted down on the device, and looked at when the texts are drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

from dlmctl.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Whether a CPU looks as soon as it can.
AT_ONCE_CPU = True


def is_tensor(found: Any) -> TypeGuard[Tensor]:
    """Whether an author's code gave a tensor, and no array of NumPy."""
    import torch

    return isinstance(found, torch.Tensor)


def narrowed(found: Tensor, like: Tensor) -> Tensor:
    """``found`` in single precision if it is in double and ``like`` is not, as what comes of NumPy's numbers."""
    return found.float() if found.element_size() == 8 > like.element_size() else found


def spoiled(logits: Tensor, *before: Tensor) -> Tensor:
    """Whether one of the ``logits [B, L, V]`` is infinite or not a number, and none was ``before``, a bool ``[]``. -inf
    is what rules a word out."""
    # The most of them is not a number where any is not. Few calls, as this is asked at every step.
    sound, *sound_before = (one.amax() < math.inf for one in (logits, *before))
    return sound_before[0] > sound if sound_before else ~sound


def may_be_spoiled(logits: Tensor) -> bool:
    """Whether ``spoiled`` may be true: a quicker look, a thirtieth of a softmax on a CPU."""
    # Of -inf and numbers the sum is less, unless it overflows.
    return not logits.sum() < math.inf


class Noted:
    """Faults that were found on a device, each with whether it was there at any step."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str | None], Tensor] = {}

    def note(self, fault: UserError, there: Tensor) -> None:
        """Note whether a fault is ``there``, a bool ``[]``; nothing waits for it."""
        key = fault.what, fault.where
        if key not in self.found:  # made before any step is recorded: the first one of a kind is not
            self.found[key] = there.clone()
        self.found[key].logical_or_(there)

    def look(self) -> None:
        """Wait for the device.

        Raises:
            UserError: a fault was there, the first by the order in which controls are asked.
        """
        for (what, where), there in self.found.items():
            if there:
                raise UserError(what, where=where)


def noted_on(device: torch.device) -> Noted | None:
    """Where faults are noted of texts that are drawn on a device; None where they are looked at."""
    return None if AT_ONCE_CPU and device.type == "cpu" else Noted()
