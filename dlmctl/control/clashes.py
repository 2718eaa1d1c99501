"""Controls of one kind that no text can satisfy both, as their author says (``clash``)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from dlmctl.control.authored import Written
from dlmctl.errors import Unmet

if TYPE_CHECKING:
    from dlmctl.control.base import Control


def refuse_clashes(controls: Sequence[Control[Any]], samples: Sequence[int]) -> None:
    """Check that controls which are all to hold ask no sample for what no text can be.

    Raises:
        Unmet: two do.
        UserError: an author's ``clash`` fails.
    """
    for one, other in combinations(controls, 2):
        if type(one) is not type(other) or type(one).clash is Written.clash:
            continue
        for sample in samples:
            if (why := one.clash_of(other, sample)) is not None:
                what = f"the controls contradict each other: {why}."
                raise Unmet(what, where=one.name, remedy="Put them under `any` if either will do.")
