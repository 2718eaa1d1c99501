"""The negation of a control, as an energy."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from dlmctl.control.prepared import Part, Prepared

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control.state import ControlState

# -log p of a control that is all but satisfied. Below it the negation continues as a straight line, because -log(1 - p)
# grows without bound.
MIN_ENERGY = 1e-5


class PreparedNot(Prepared):
    """The negation of one control: for an energy -log p, -log(1 - p), or its tangent where p is all but 1; all of it
    scaled by the weight of the control.

    The tangent keeps a gradient where it is needed most: on a text that is certain to have what is unwanted, and where
    an energy falls below 0 by rounding or because it is not a -log p.
    """

    def __init__(self, part: Part) -> None:
        self.part = part

    def phase(self, t: float) -> Hashable:
        return self.part.phase(t)

    def energy(self, state: ControlState) -> Tensor:
        energy = self.part.energy(state)
        curve = -(-(-energy.clamp(min=MIN_ENERGY)).expm1()).log()
        tangent = (MIN_ENERGY - energy).clamp(min=0) / math.expm1(MIN_ENERGY)
        return self.part.weight * (curve + tangent)
