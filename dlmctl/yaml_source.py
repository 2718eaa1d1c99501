"""YAML that remembers where each value stood, so that errors can name the line."""

from __future__ import annotations

from typing import Any

import yaml

from dlmctl.errors import RecipeError

Place = tuple[str | int, ...]


def parse(text: str, name: str) -> tuple[Any, dict[Place, int]]:
    """The value of a YAML text, and the line (from 1) of every key and list item, by its path.

    Raises:
        RecipeError: not YAML, or a key stands twice.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"not valid YAML: {error.problem or error.context}.", where=where) from None
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}.", where=name) from None
    lines: dict[Place, int] = {(): 1}
    if root is not None:
        _collect(root, (), lines, name)
    return value, lines


def _collect(node: yaml.Node, place: Place, lines: dict[Place, int], name: str) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            if inner in lines:
                raise RecipeError(f"{key.value!r} stands twice.", where=f"{name}:{key.start_mark.line + 1}")
            lines[inner] = key.start_mark.line + 1
            _collect(value, inner, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*place, index), lines, name)


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of ``place`` or of the nearest value around it."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)
