"""YAML that remembers where each value stood, so that errors can name the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dlmctl.errors import RecipeError, nearest

Place = tuple[str | int, ...]


def parse(text: str, name: str) -> tuple[Any, dict[Place, int]]:
    """The value of a YAML text, and the line (from 1) of every key and list item, by its path.

    Raises:
        RecipeError: not YAML, a key stands twice, or an anchor holds itself.
    """
    lines: dict[Place, int] = {(): 1}
    try:
        root, value = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
        if root is not None:
            _collect(root, (), lines, name, {})
        return value, lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"not valid YAML: {error.problem or error.context}.", where=where) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RecipeError(
            f"not valid YAML: the character {chr(error.character)!r} is not allowed.", where=f"{name}:{line}"
        ) from None
    except (ValueError, RecursionError) as error:  # an impossible date, a number of thousands of digits, [[[[...
        raise RecipeError(f"not valid YAML: {error}.", where=name) from None


def _collect(
    node: yaml.Node, place: Place, lines: dict[Place, int], name: str, finished: dict[yaml.Node, bool]
) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if node in finished:  # reached by an alias
        if not finished[node]:
            raise RecipeError("an anchor holds itself.", where=f"{name}:{node.start_mark.line + 1}")
        return
    finished[node] = False
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            if inner in lines:
                raise RecipeError(f"{key.value!r} stands twice.", where=f"{name}:{key.start_mark.line + 1}")
            lines[inner] = key.start_mark.line + 1
            _collect(value, inner, lines, name, finished)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*place, index), lines, name, finished)
    finished[node] = True


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of ``place`` or of the nearest value around it."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


class SettingsFile:
    """Where settings came from: the file's name, the line of every value, and what the command line laid over it."""

    def __init__(self, name: str, lines: dict[Place, int], overridden: Sequence[Place] = ()) -> None:
        self.name, self.lines, self.overridden = name, lines, overridden

    def error(self, place: Place, what: str, remedy: str | None = None) -> RecipeError:
        # What the command line set lies around the place at fault, or inside it.
        theirs = any(a == b for a, b in ((place[: len(o)], o[: len(place)]) for o in self.overridden))
        where = "command line" if theirs else f"{self.name}:{line_of(place, self.lines)}"
        return RecipeError(what, where=where, remedy=remedy)


def explain(error: ValidationError, kind: type[BaseModel], place: Place, source: SettingsFile) -> RecipeError:
    """One message for the first thing that pydantic found."""
    first = error.errors()[0]
    where: Place = (*place, *(part for part in first["loc"]))
    dotted = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        *outer, key = first["loc"]
        known = _keys_at(kind, outer)
        return source.error(where, f"unknown key {key!r}.", nearest(str(key), known) if known else None)
    if first["type"] == "missing":
        return source.error(where, f"{dotted} is required.")
    head = f"{dotted}: " if dotted else ""
    if first["type"] == "value_error":  # a sentence of ours, perhaps with a hint behind it
        message = first["msg"].removeprefix("Value error, ")
        return source.error(where, head + message + ("" if message[-1] in ".?" else "."))
    message = "should be a mapping" if first["type"] == "model_type" else first["msg"]
    message = message[0].lower() + message[1:]
    given = repr(first["input"])
    said = "" if ", not " in message or len(given) > 60 else f", not {given}"
    return source.error(where, f"{head}{message}{said}.")


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


def override(settings: dict[str, Any], setting: str) -> Place:
    """Lay one ``key=value`` over ``settings`` (key dotted, value YAML) and return the place it went to.

    Raises:
        RecipeError: it is not ``key=value``, or there is no such place.
    """
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"{setting!r} is not key=value.", where="--set", remedy="For example sampler.steps=20.")
    try:
        value, _ = parse(text, "value")
    except RecipeError:
        raise RecipeError(f"{text!r} is not a YAML value.", where=f"--set {key}") from None
    *parents, last = key.split(".")
    inner: Any = settings
    place: list[str | int] = []
    for parent in parents:
        place.append(_step(inner, parent, key))
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else inner[place[-1]]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{parent!r} holds a value, not settings.", where=f"--set {key}")
    place.append(_step(inner, last, key))
    inner[place[-1]] = value
    return tuple(place)


def _step(inner: dict[str, Any] | list[Any], step: str, key: str) -> str | int:
    if isinstance(inner, dict):
        return step
    if step.isdecimal() and int(step) < len(inner):
        return int(step)
    raise RecipeError(f"{step!r} is not an item of a list of {len(inner)}.", where=f"--set {key}")
