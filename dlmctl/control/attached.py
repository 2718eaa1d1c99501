"""Controls that judge by what lies beside a model."""

from __future__ import annotations

from typing import TypeVar

from dlmctl.errors import UserError

T = TypeVar("T")


def attached(loaded: T | None, control: str) -> T:
    """What ``attach`` loads for the check of a control.

    Raises:
        UserError: it was not called yet.
    """
    if loaded is None:
        what = "judges by what was learned for a model, and was given none."
        raise UserError(what, where=f"control {control!r}", remedy='First call its `attach(dlmctl.load("MODEL"))`.')
    return loaded
