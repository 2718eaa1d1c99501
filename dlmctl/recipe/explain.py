"""Turn pydantic's errors into one message with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from dlmctl.errors import RecipeError, did_you_mean
from dlmctl.recipe.yaml_file import Place, SettingsFile

# Messages for types that have another name in YAML than in pydantic.
_MESSAGES = {"model_type": "should be a mapping", "dict_type": "should be a mapping", "list_type": "should be a list"}
_READ_AS = {bool: "true or false", type(None): "nothing", int: "a number", float: "a number"}
_RANGE = re.compile(r"(\d{1,6})\s*(?:-|\u2013|to)\s*(\d{1,6})")

M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], settings: Any) -> M:
    """Validate settings as ``model_validate`` does, but always with pydantic's errors, for ``explain``.

    Raises:
        ValidationError: they do not validate.
    """
    return TypeAdapter(model).validate_python(settings)


def explain(
    error: ValidationError, model: type[BaseModel], place: Place, file: SettingsFile, settings: Any
) -> RecipeError:
    """One message for the first of pydantic's errors.

    Args:
        model: the model that ``settings`` do not fit.
        place: the place of the settings in ``file``.
    """
    faults = [(settings_place(fault, settings), fault) for fault in error.errors(include_url=False)]
    first_place = faults[0][0]
    # If a value may have several types, the nearest one is that which fails deepest inside.
    alternatives = [(at, fault) for at, fault in faults if at[: len(first_place)] == first_place]
    inner, first = max(alternatives, key=lambda alternative: len(alternative[0]))
    if first["type"] == "missing":  # a misspelt key next to it is the better message
        misspelt = ((at, fault) for at, fault in faults if fault["type"] == "extra_forbidden" and at[:-1] == inner[:-1])
        inner, first = next(misspelt, (inner, first))
    where = (*place, *inner)
    dotted = ".".join(map(str, where))
    if first["type"] == "extra_forbidden":
        *outer, key = inner
        known = _keys_at(model, outer)
        remedy = _section_hint(model, (*outer, key), first["input"]) or (
            did_you_mean(str(key), known) if known else None
        )
        return file.error(where, f"unknown key {key!r}.", remedy)
    is_named = file.where(where) == dotted  # the message begins with the name already
    if first["type"] == "missing":
        return file.error(where, "is required." if is_named else f"{dotted} is required.")
    head = "" if is_named or not dotted else f"{dotted}: "
    if first["type"] == "value_error":  # one of our own sentences, perhaps followed by a hint
        message = first["msg"].removeprefix("Value error, ") or "is refused"
        return file.error(where, head + message + ("" if message[-1] in ".?" else "."))
    same_place = [fault for at, fault in faults if at == inner]
    # Each type has a message of what it accepts; only the length counts for an empty list, which is a list.
    messages = [_message(fault) for fault in [f for f in same_place if f["type"] == "too_short"] or same_place]
    others = [message.removeprefix("input should be ") for message in dict.fromkeys(messages[1:])]
    message = " or ".join([messages[0], *(other for other in others if other not in messages[0])][:4])
    value = repr(first["input"])
    ending = "" if ", not " in message or len(value) > 60 else f", not {value}"
    remedy = _quoting_remedy(first, _spelled(file, place, inner), lambda word: _fits(model, settings, inner, word))
    remedy = remedy or (_form_of(str(inner[0]), first, model) if len(inner) == 1 else None)
    return file.error(where, f"{head}{message}{ending}.", remedy)


def _message(fault: Any) -> str:
    message = str(_MESSAGES.get(fault["type"], fault["msg"]))
    return message[:1].lower() + message[1:]


def _spelled(file: SettingsFile, place: Place, inner: Place) -> str | None:
    """The source text of the value at ``inner`` of the settings at ``place``, also if it was written in shorthand:
    without the name of the parameter, or a list's single item without the list."""
    short = [(*place, *inner[1:]), (*place, 0), place] if len(inner) == 1 else [(*place, *inner[1:]), place]
    places = [(*place, *inner), *(short if inner else [])]
    return next((file.spelled[at] for at in places if at in file.spelled), None)


def _quoting_remedy(fault: Any, written: str | None, fits: Callable[[str], bool]) -> str | None:
    """A remedy if YAML read a word as another type, and the word is valid there."""
    if fault["type"] not in ("string_type", "literal_error") or written is None or not fits(written):
        return None
    read_as = _READ_AS.get(type(fault["input"]), "a number")
    return f"YAML reads {written} as {read_as}; for the word, write it in quotes: '{written}'."


def _form_of(name: str, fault: Any, model: type[BaseModel]) -> str | None:
    """How a setting is written, if its value is a single one in place of a list or a mapping, or a range in place of a
    number."""
    field, kind, value = model.model_fields.get(name), fault["type"], fault["input"]
    if kind in ("list_type", "too_short", "too_long") and field is not None and field.examples:
        return f"For example `{name}: {json.dumps(field.examples[0])}`."
    if kind == "model_type" and field is not None and not isinstance(value, dict | list):
        forms = [(inner, key) for inner in _models_in(field.annotation) for key in inner.model_fields]
        fitting = next((key for inner, key in forms if _is_valid(inner, {key: value})), None)
        return None if fitting is None else f"Write `{name}: {{{fitting}: {value}}}`."
    ends = _RANGE.fullmatch(str(value)) if kind.startswith("int_") else None
    if ends is None or "tolerance" not in model.model_fields:
        return None
    least, most = sorted(map(int, ends.groups()))
    middle, tolerance = (least + most) // 2, (most - least) // 2
    return f"{middle - tolerance} to {middle + tolerance} is `{name}: {middle}, tolerance: {tolerance}`."


def _is_valid(model: type[BaseModel], settings: Any) -> bool:
    try:
        parsed(model, settings)
    except ValidationError:
        return False
    return True


def _fits(model: type[BaseModel], settings: Any, inner: Place, word: str) -> bool:
    """Whether ``settings`` with this word at ``inner`` have no fault there."""
    changed = _with_value(settings, inner, word)
    try:
        parsed(model, changed)
    except ValidationError as error:
        places = [settings_place(fault, changed) for fault in error.errors(include_url=False)]
        return all(at[: len(inner)] != inner for at in places)
    except Exception:  # from a plug-in's own validators
        return False
    return True


def _with_value(settings: Any, place: Place, value: Any) -> Any:
    """A copy of settings with another value at a place."""
    if not place:
        return value
    step, *rest = place
    changed = list(settings) if isinstance(settings, list) else dict(settings)
    changed[step] = _with_value(settings[step], tuple(rest), value)  # type: ignore[index]
    return changed


def settings_place(fault: Any, settings: Any) -> Place:
    """The place in ``settings`` of one of pydantic's faults."""
    return _place_of(fault["loc"], fault["type"] == "missing", settings)


def _place_of(loc: Sequence[str | int], missing: bool, settings: Any) -> Place:
    """Pydantic's location without the names of types that it inserts for unions.

    Only the last step of what is ``missing`` is not in ``settings``; all others are.
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


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys of the model at ``path`` inside ``model``, or of all models that are possible there."""
    models = [model]
    for step in path:
        if not isinstance(step, int):
            fields = [field for model in models if (field := model.model_fields.get(step))]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _section_hint(model: type[BaseModel], path: Sequence[str | int], value: Any) -> str | None:
    """A hint at the place of a key that stands outside its section, or of keys that stand in a section too many."""
    *outer, key = path
    known = _keys_at(model, outer)
    inside = [section for section in known if key in _keys_at(model, (*outer, section))]
    if len(inside) == 1:
        return f"Did you mean '{inside[0]}.{key}'?"
    if isinstance(value, dict) and value and known and set(value) <= set(known):
        return f"Did you mean {next(iter(value))!r}, without {key!r}?"
    return None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in a type such as ``list[Span] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
