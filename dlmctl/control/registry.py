"""Discovery of controls: those that installed packages register under the entry point ``dlmctl.controls``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from dlmctl.checkpoint.user_weights import bundled_models_with
from dlmctl.control import own_controls
from dlmctl.control.base import Control
from dlmctl.control.class_faults import name_fault, params_fault, weight_fault
from dlmctl.control.user_files import load_reference, parse_reference
from dlmctl.errors import RecipeError, UserError, did_you_mean, typed_message

ENTRY_POINTS = "dlmctl.controls"


# Members of the interface of version 0.1, which have moved to what `prepare` returns or to `Labels`.
OLD_MEMBERS = ("energy", "restrict", "condition", "project", "verify", "word_count", "build_classifier")
GUIDE = "docs/controls.md, From 0.1, says what to change"


log = logging.getLogger("dlmctl")


def offered_controls() -> Mapping[str, Sequence[EntryPoint]]:
    """The entry points of all controls that installed packages offer, by name; none is imported.

    If several packages offer a control of the same name, the first of the list is used: dlmctl's own, else the first by
    package name, so that the meaning of a recipe does not depend on the order of installation.
    """
    return _offered(tuple((folder, _state(folder)) for folder in sys.path))


def _state(folder: str) -> tuple[int, int, int] | None:
    """What differs once a package is installed in a folder or removed from it, and between folders named ``""``."""
    try:
        found = os.stat(folder or os.curdir)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@lru_cache(maxsize=1)  # the files of all packages are read, which takes longer than most of what follows
def _offered(_search_path: tuple[tuple[str, object], ...]) -> dict[str, list[EntryPoint]]:
    points: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, _rank(point), point.value)):
        points.setdefault(point.name, []).append(point)
    return points


def _rank(point: EntryPoint) -> tuple[bool, str]:
    package = _package(point.dist)[0] if point.dist else ""
    return package != "dlmctl", package


@lru_cache(maxsize=1000)  # parsed anew each time otherwise
def _package(distribution: Distribution) -> tuple[str, str]:
    """Its name and version."""
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def origin(point: EntryPoint) -> str:
    """Package and version that a control comes from."""
    return " ".join(_package(point.dist)) if point.dist else point.value


def find_control(name: str) -> type[Control[Any]]:
    """The control class registered as ``name``, or defined in a user's file (``mine.py:Formal``). Warns, once, if
    several packages offer it.

    Raises:
        RecipeError: no installed package registers it.
        UserError: it fails to import or is not a control; ``where`` is the control and its package, ``what`` the
            reason.
    """
    reference = parse_reference(name)
    if reference is not None:
        loaded = load_reference(reference)
        if fault := _fault(str(getattr(loaded, "name", None)), loaded):
            raise UserError(f"cannot be used: {reference.attribute} {fault}.", where=str(reference.path))
        return cast("type[Control[Any]]", loaded)
    known = offered_controls()
    if name not in known:
        weighted = next((control for control in known if bundled_models_with(control, name)), None)
        meant = f"Did you mean `{weighted}: {{name: {name}, label: ...}}`?" if weighted else None
        raise RecipeError(f"there is no control {name!r}.", remedy=meant or did_you_mean(name, list(known)))
    chosen, *ignored = known[name]
    if ignored:
        _warn_of_rivals(name, origin(chosen), ", ".join(map(origin, ignored)))
    where = f"control {name!r} of {origin(chosen)}"
    try:
        with redirect_stdout(sys.stderr):  # prints at import must not mix with a command's output
            loaded = _load(chosen)
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "dlmctl":
            what = f"was written for another version of dlmctl (it needs something from {error.name} that is missing)"
            raise UserError(f"{what}; {GUIDE}.", where=where) from error
        raise UserError(f"fails to import: {typed_message(error)}.", where=where) from error
    if fault := _fault(name, loaded):
        raise UserError(f"cannot be used: {chosen.value} {fault}.", where=where)
    return cast("type[Control[Any]]", loaded)


def _load(point: EntryPoint) -> Any:
    """Load an entry point; dlmctl's own also if a module of the user's has the name ``controls``."""
    if point.dist is None or _package(point.dist)[0] != "dlmctl" or _is_own_package():
        return point.load()
    return getattr(import_module(point.module.replace("controls", own_controls.__name__, 1)), point.attr)


def _is_own_package() -> bool:
    """Whether the name ``controls`` resolves to the package installed with this one."""
    imported = sys.modules.get("controls")
    spec = find_spec("controls") if imported is None else None
    folders = getattr(imported, "__path__", None) if imported is not None else spec and spec.submodule_search_locations
    own_folder = Path(own_controls.__path__[0])
    return any(Path(folder).resolve() == own_folder for folder in folders or ())


def _fault(name: str, loaded: Any) -> str | None:
    """Why a registered object cannot be the control ``name``; None if it can."""
    if not (isinstance(loaded, type) and issubclass(loaded, Control)):
        return "is not a subclass of dlmctl.control.base.Control"
    if fault := name_fault(loaded):
        return fault
    if old := [member for member in OLD_MEMBERS if hasattr(loaded, member)]:
        return f"was written for dlmctl 0.1 (it has {', '.join(old)}); {GUIDE}"
    # Weights and verdicts are filed under the class's own name.
    if getattr(loaded, "name", None) != name:
        return f"has name = {getattr(loaded, 'name', None)!r}, but is registered as {name!r}"
    return weight_fault(loaded) or params_fault(loaded)


@cache
def _warn_of_rivals(name: str, chosen: str, ignored: str) -> None:
    log.warning("dlmctl: several packages offer a control %r: that of %s is used, not %s.", name, chosen, ignored)
