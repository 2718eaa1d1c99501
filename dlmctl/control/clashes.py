"""Detection of two controls of one class that no text can satisfy together, according to their ``clash``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from dlmctl.control.authored import ControlInterface
from dlmctl.errors import UnsatisfiableError

if TYPE_CHECKING:
    from dlmctl.control.base import Control


def refuse_clashes(controls: Sequence[Control[Any]], samples: Sequence[int]) -> None:
    """Check that no two controls that must both hold contradict each other for any of the samples.

    Raises:
        UnsatisfiableError: two do.
        UserError: an author's ``clash`` fails.
    """
    for first, second in combinations(controls, 2):
        if type(first) is not type(second) or type(first).clash is ControlInterface.clash:
            continue
        for sample in samples:
            if (why := first.clash_of(second, sample)) is not None:
                what = f"the controls contradict each other: {why}."
                raise UnsatisfiableError(what, where=first.name, remedy="Put them under `any` if either will do.")
