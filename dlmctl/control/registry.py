"""Where controls are found: what installed packages register under the entry point ``dlmctl.controls``."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from dlmctl.control import own_controls
from dlmctl.control.base import Control
from dlmctl.control.class_faults import name_fault, params_fault, weight_fault
from dlmctl.control.user_files import load_named, named_in
from dlmctl.errors import RecipeError, UserError, first_line, nearest

ENTRY_POINTS = "dlmctl.controls"


# Members of the contract of version 0.1, which moved to what `prepare` returns or to `Labels`.
FORMER = ("energy", "restrict", "condition", "project", "verify", "word_count", "build_classifier")
GUIDE = "docs/controls.md, From 0.1, says what to change"


log = logging.getLogger("dlmctl")


def offers() -> dict[str, list[EntryPoint]]:
    """Every control that an installed package offers, by name, without importing any.

    Where packages offer controls of one name the first of the list is taken: dlmctl's own, else the first by
    package name, so that what a recipe means does not hang on the order of installation.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, _rank(point), point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def _rank(point: EntryPoint) -> tuple[bool, str]:
    package = point.dist.name if point.dist else ""
    return package != "dlmctl", package


def origin(point: EntryPoint) -> str:
    """Package and version that a control comes from."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def find_control(name: str) -> type[Control[Any]]:
    """The control class registered as ``name``, or that of a user's file (``mine.py:Formal``). Warns, once, where
    several packages offer one.

    Raises:
        RecipeError: no installed package registers it.
        UserError: it fails to import or is no control; ``where`` is the control and its package, ``what`` the reason.
    """
    named = named_in(name)
    if named is not None:
        made = load_named(named)
        if fault := _fault(str(getattr(made, "name", None)), made):
            raise UserError(f"cannot be used: {named.attribute} {fault}.", where=str(named.path))
        return cast("type[Control[Any]]", made)
    known = offers()
    if name not in known:
        raise RecipeError(f"there is no control {name!r}.", remedy=nearest(name, list(known)))
    taken, *ignored = known[name]
    if ignored:
        _warn_of_rivals(name, origin(taken), ", ".join(map(origin, ignored)))
    where = f"control {name!r} of {origin(taken)}"
    try:
        with redirect_stdout(sys.stderr):  # what it prints at import is no part of what a command prints
            found = _loaded(taken)
    except (Exception, SystemExit) as error:  # whatever the code of others may do
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "dlmctl":
            what = f"was written for another version of dlmctl (it needs something of {error.name} that is not there)"
            raise UserError(f"{what}; {GUIDE}.", where=where) from error
        raise UserError(f"fails to import: {first_line(error)}.", where=where) from error
    if fault := _fault(name, found):
        raise UserError(f"cannot be used: {taken.value} {fault}.", where=where)
    return cast("type[Control[Any]]", found)


def _loaded(point: EntryPoint) -> Any:
    """What an entry point names; of dlmctl's own also where something of the user's has the name ``controls``."""
    if point.dist is None or point.dist.name != "dlmctl" or _is_ours():
        return point.load()
    return getattr(import_module(point.module.replace("controls", own_controls.__name__, 1)), point.attr)


def _is_ours() -> bool:
    """Whether the name ``controls`` leads to the package beside this one."""
    there = sys.modules.get("controls")
    spec = find_spec("controls") if there is None else None
    places = getattr(there, "__path__", None) if there is not None else spec and spec.submodule_search_locations
    ours = Path(own_controls.__path__[0])
    return any(Path(place).resolve() == ours for place in places or ())


def _fault(name: str, found: Any) -> str | None:
    """What keeps a registered object from being the control ``name``."""
    if not (isinstance(found, type) and issubclass(found, Control)):
        return "is not a subclass of dlmctl.control.base.Control"
    if fault := name_fault(found):
        return fault
    if old := [member for member in FORMER if hasattr(found, member)]:
        return f"was written for dlmctl 0.1 (it has {', '.join(old)}); {GUIDE}"
    # Weights and verdicts are filed under the class's own name.
    if getattr(found, "name", None) != name:
        return f"has name = {getattr(found, 'name', None)!r}, and is registered as {name!r}"
    return weight_fault(found) or params_fault(found)


@cache
def _warn_of_rivals(name: str, taken: str, ignored: str) -> None:
    log.warning("dlmctl: several packages offer a control %r: that of %s is taken, not %s.", name, taken, ignored)
