"""Access to what a control's ``attach`` loads from a model's folder."""

from __future__ import annotations

from typing import TypeVar

from dlmctl.errors import UserError

T = TypeVar("T")


def attached(loaded: T | None, control: str) -> T:
    """What ``attach`` has loaded for the check of a control.

    Raises:
        UserError: ``attach`` was not called yet.
    """
    if loaded is None:
        what = "judges by what was learned for a model, but no model is attached."
        raise UserError(what, where=f"control {control!r}", remedy='First call its `attach(dlmctl.load("MODEL"))`.')
    return loaded
