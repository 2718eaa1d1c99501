"""YAML that remembers where each value stood, so that errors can name the line."""

from __future__ import annotations

from typing import Any

import yaml

from dlmctl.errors import RecipeError

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
