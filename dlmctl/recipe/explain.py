"""What pydantic found, as one message with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dlmctl.errors import RecipeError, nearest
from dlmctl.recipe.yaml_file import Place, SettingsFile

# What pydantic calls things that have another name in YAML.
_NAMES = {"model_type": "should be a mapping", "dict_type": "should be a mapping", "list_type": "should be a list"}
_READ_AS = {bool: "true or false", type(None): "nothing", int: "a number", float: "a number"}


def explain(
    error: ValidationError, kind: type[BaseModel], place: Place, file: SettingsFile, settings: Any
) -> RecipeError:
    """One message for the first thing that pydantic found.

    Args:
        kind: the model that ``settings`` do not fit; place: where they stand in ``file``.
    """
    faults = error.errors(include_url=False)
    found = [(settings_place(fault, settings), fault) for fault in faults]
    # Of a value that may be of several kinds: the kind that it is nearest to is the one that fails deepest inside.
    inner, first = max((one for one in found if one[0][: len(found[0][0])] == found[0][0]), key=lambda one: len(one[0]))
    if first["type"] == "missing":  # perhaps it is there under a wrong name, which says more
        beside = (one for one in found if one[1]["type"] == "extra_forbidden" and one[0][:-1] == inner[:-1])
        inner, first = next(beside, (inner, first))
    where = (*place, *inner)
    dotted = ".".join(map(str, where))
    if first["type"] == "extra_forbidden":
        *outer, key = inner
        known = _keys_at(kind, outer)
        return file.error(where, f"unknown key {key!r}.", nearest(str(key), known) if known else None)
    told = file.where(where) == dotted  # as the place of the message
    if first["type"] == "missing":
        return file.error(where, "is required." if told else f"{dotted} is required.")
    head = "" if told or not dotted else f"{dotted}: "
    if first["type"] == "value_error":  # a sentence of ours, perhaps with a hint behind it
        message = first["msg"].removeprefix("Value error, ") or "is refused"
        return file.error(where, head + message + ("" if message[-1] in ".?" else "."))
    alike = [fault for at, fault in found if at == inner]
    # Each kind says what it would be, but an empty list is a list.
    said = [_said(fault) for fault in [fault for fault in alike if fault["type"] == "too_short"] or alike]
    others = [one.removeprefix("input should be ") for one in dict.fromkeys(said[1:])]
    message = " or ".join([said[0], *(one for one in others if one not in said[0])][:4])
    given = repr(first["input"])
    ending = "" if ", not " in message or len(given) > 60 else f", not {given}"
    remedy = _quoted(first, _spelled(file, place, inner), lambda word: _fits(kind, settings, inner, word))
    return file.error(where, f"{head}{message}{ending}.", remedy)


def _said(fault: Any) -> str:
    message = str(_NAMES.get(fault["type"], fault["msg"]))
    return message[:1].lower() + message[1:]


def _spelled(file: SettingsFile, place: Place, inner: Place) -> str | None:
    """How the value at ``inner`` of the settings at ``place`` was written, perhaps in short: without the name of the
    parameter, or a single value of a list without the list."""
    short = [(*place, *inner[1:]), (*place, 0), place] if len(inner) == 1 else [(*place, *inner[1:]), place]
    places = [(*place, *inner), *(short if inner else [])]
    return next((file.spelled[one] for one in places if one in file.spelled), None)


def _quoted(fault: Any, written: str | None, fits: Callable[[str], bool]) -> str | None:
    """A remedy where YAML took a word for something else, and the word is one that may stand there."""
    if fault["type"] not in ("string_type", "literal_error") or written is None or not fits(written):
        return None
    read = _READ_AS.get(type(fault["input"]), "a number")
    return f"YAML reads {written} as {read}; as a word it goes in quotes: '{written}'."


def _fits(kind: type[BaseModel], settings: Any, inner: Place, word: str) -> bool:
    """Whether ``settings`` have no fault at ``inner`` if a word stands there."""
    changed = _with(settings, inner, word)
    try:
        kind.model_validate(changed)
    except ValidationError as error:
        found = [settings_place(fault, changed) for fault in error.errors(include_url=False)]
        return all(at[: len(inner)] != inner for at in found)
    except Exception:  # of a plug-in's own validators
        return False
    return True


def _with(settings: Any, place: Place, value: Any) -> Any:
    """Settings with another value at a place, themselves left as they are."""
    if not place:
        return value
    step, *rest = place
    made = list(settings) if isinstance(settings, list) else dict(settings)
    made[step] = _with(settings[step], tuple(rest), value)  # type: ignore[index]
    return made


def settings_place(fault: Any, settings: Any) -> Place:
    """Where in ``settings`` one of pydantic's faults is."""
    return _within(fault["loc"], fault["type"] == "missing", settings)


def _within(loc: Sequence[str | int], missing: bool, settings: Any) -> Place:
    """Pydantic's place without the names of types that it puts in where a value may be of several.

    What is ``missing`` is not in ``settings``, whatever else is named is.
    """
    place: list[str | int] = []
    for number, step in enumerate(loc):
        known = isinstance(settings, dict) and step in settings
        if known or (isinstance(settings, list) and isinstance(step, int) and step < len(settings)):
            settings = settings[step]
            place.append(step)
        elif missing and number == len(loc) - 1:
            place.append(step)
    return tuple(place)


def _keys_at(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that the model at ``path`` inside ``kind`` knows, or whichever of several models may stand there."""
    kinds = [kind]
    for part in path:
        if not isinstance(part, int):
            fields = [found for kind in kinds if (found := kind.model_fields.get(part))]
            kinds = [model for field in fields for model in _models_in(field.annotation)]
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in a type such as ``list[Span] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
