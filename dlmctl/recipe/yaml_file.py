"""A YAML reader that records the line of each value, for error messages, and limits the size of what it reads.

It reads PyYAML's YAML 1.1, without features that settings do not need: keys are text, dates and times stay text,
``7:30`` is text and not 450, ``1e-3`` is a number, and tags other than those of plain values are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import yaml
from yaml.constructor import SafeConstructor

from dlmctl.errors import RecipeError, readable

Place = tuple[str | int, ...]

# Characters of a file; values and characters with all aliases expanded; depth of nesting.
MOST_CHARACTERS, MOST_VALUES, MOST_TEXT, MOST_DEPTH = 1_000_000, 200_000, 4_000_000, 40
# Whole numbers must fit into 64 bits, wherever they are used.
MOST_NUMBER = 2**63 - 1

NOT_YAML, _NO_CHARACTER = "not valid YAML", "an escape in double quotes is not a character."
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Quotation marks that word processors put around text; to YAML they are part of it.
_TYPOGRAPHIC = re.compile("[“„«\u2018\u201a].*[”“»\u2019\u2018]", re.DOTALL)
# Remedies for text that PyYAML misreads, by a phrase of its message.
_REMEDIES = {
    "while scanning an alias": "Put a word that begins with * in quotes: '*'.",
    "while scanning an anchor": "Put a word that begins with & in quotes.",
    "found undefined alias": "Put a word that begins with * in quotes.",
    "cannot start any token": "Indent with spaces; put text that begins with such a character in quotes.",
    "mapping values are not allowed": "Put text that contains a colon and a space in quotes.",
    "expected <block end>": "Begin the items of a list, and the keys of a mapping, in the same column.",
    "expected a single document": "A file holds one recipe.",
}


# The argument by which a caller in Python overrides settings, in place of the option of the command line.
OVERRIDES = "overrides"


class SettingsFile:
    """The origin of settings, for messages about them.

    Attributes:
        name: of the file.
        lines: the line, from 1, of every key and list item, by its path.
        spelled: the source text of values that YAML does not read as text, by their path.
        overridden: the paths that the command line set, or a caller in Python.
        option: the option that sets them, for messages.
    """

    option = "--set"

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Place, int] = {(): 1}
        self.spelled: dict[Place, str] = {}
        self.overridden: list[Place] = []

    def line(self, place: Place) -> int:
        """The line of ``place``, or of the innermost enclosing value that has one."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def where(self, place: Place) -> str:
        """``recipe.yaml:12``, or ``command line`` for settings from there; the name of those from Python."""
        # The overridden path may be outside or inside the place at fault.
        is_overridden = any(place[: len(path)] == path[: len(place)] for path in self.overridden)
        if is_overridden and self.option == OVERRIDES:
            return ".".join(map(str, place))
        return "command line" if is_overridden or self.name == "command line" else f"{self.name}:{self.line(place)}"

    def error(self, place: Place, what: str, remedy: str | None = None) -> RecipeError:
        """The error for a fault at a place."""
        return RecipeError(what, where=self.where(place), remedy=remedy)


def read_yaml(path: Path) -> str:
    """The text of a file of settings.

    Raises:
        RecipeError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return read_limited(file, str(path))
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None


def read_limited(file: TextIO, name: str) -> str:
    """The text of an open file of settings; of a long file or a device, just enough for ``parse`` to refuse it.

    Raises:
        RecipeError: it is not UTF-8.
    """
    try:
        return file.read(MOST_CHARACTERS + 1).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"cannot be read: it is not UTF-8 (byte 0x{error.object[error.start]:02x})."
        raise RecipeError(what, where=name, remedy="Save it as UTF-8.") from None


def parse(text: str, name: str) -> tuple[Any, SettingsFile]:
    """The value of a YAML text, and the lines of its parts.

    Raises:
        RecipeError: it is not YAML, is too long or too deeply nested, has aliases that expand too far, a duplicate key,
            a key that is not text, or a tag or character that is not allowed.
    """
    file = SettingsFile(name)
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(f"holds more than {MOST_CHARACTERS:,} characters.", where=name)
    root = _compose(text, name)
    if root is None:
        return None, file
    _measure(root, name, {})
    return _Values(file).value_of(root, ()), file


class _Composer(yaml.SafeLoader):
    """Stops at too deep nesting and at too many values before it has built them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MOST_DEPTH or self.count > MOST_VALUES:
            fault = f"holds more than {MOST_VALUES:,} values" if self.count > MOST_VALUES else too_deep()
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def too_deep() -> str:
    """The fault of settings that are nested deeper than ``MOST_DEPTH``."""
    return f"lists and mappings are nested more than {MOST_DEPTH} deep"


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = _Composer(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        message = f"{error.context or ''} {error.problem or ''}"
        remedy = next((remedy for phrase, remedy in _REMEDIES.items() if phrase in message), None)
        where = f"{name}:{error.problem_mark.line + 1}" if error.problem_mark else name
        raise RecipeError(f"{NOT_YAML}: {error.problem or error.context}.", where=where, remedy=remedy) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        what = f"{NOT_YAML}: the character {chr(error.character)!r} is not allowed."
        raise RecipeError(what, where=f"{name}:{line}") from None
    except (ValueError, OverflowError):  # "\UFFFFFFFF"
        raise RecipeError(f"{NOT_YAML}: {_NO_CHARACTER}", where=f"{name}:{loader.line + 1}") from None


class _Extent(NamedTuple):
    """The size of a node with its aliases expanded."""

    values: int
    characters: int
    depth: int


def _measure(node: yaml.Node, name: str, known: dict[int, _Extent | None]) -> _Extent:
    """The extent of a node; each anchor is measured once.

    Raises:
        RecipeError: it is too large, or an anchor contains itself.
    """
    where = f"{name}:{node.start_mark.line + 1}"
    if id(node) in known:  # reached by an alias
        measured = known[id(node)]
        if measured is None:
            raise RecipeError("an anchor contains itself.", where=where)
        return measured
    known[id(node)] = None
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    values, characters, depth = 1, 0 if isinstance(node, yaml.CollectionNode) else len(node.value), 1
    for child in children:
        extent = _measure(child, name, known)
        values, characters, depth = values + extent.values, characters + extent.characters, max(depth, 1 + extent.depth)
        if values > MOST_VALUES or characters > MOST_TEXT:
            what = f"aliases multiply to more than {MOST_VALUES:,} values or {MOST_TEXT:,} characters."
            raise RecipeError(what, where=where)
        if depth > MOST_DEPTH:
            raise RecipeError(f"{too_deep()}.", where=where)
    known[id(node)] = measured = _Extent(values, characters, depth)
    return measured


class _Values:
    """Converts nodes to values, and records their lines in a ``SettingsFile``."""

    def __init__(self, file: SettingsFile) -> None:
        self.file = file
        self.seen: set[int] = set()
        self.constructor = SafeConstructor()

    def value_of(self, node: yaml.Node, place: Place | None) -> Any:
        """The value of a node. ``place`` is None inside an alias, whose own line is used for all its contents."""
        if id(node) in self.seen:
            place = None
        self.seen.add(id(node))
        if place is not None:
            self.file.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != _TAG + kind:
            self._refuse_tag(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value_of(item, _within(place, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, place)

    def _mapping(self, node: yaml.Node, place: Place | None) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key is text, not a list or a mapping.")
            if key.tag == f"{_TAG}merge":
                if merged:
                    self._fault(key, "'<<' appears twice.")
                merged.append(value)
                continue
            name = self._text(key)
            if name in mapping:
                self._fault(key, f"{name!r} appears twice.")
            inner = _within(place, name)
            if inner is not None:
                self.file.lines[inner] = key.start_mark.line + 1
            self._refuse_decimal_comma(name, value, mapping)
            mapping[name] = self.value_of(value, inner)
        for value in merged:
            bases = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for base in bases:
                base_mapping = self.value_of(base, None)
                if not isinstance(base_mapping, dict):
                    self._fault(value, "`<<` takes a mapping, or a list of mappings.")
                mapping = {**base_mapping, **mapping}
        return mapping

    def _refuse_decimal_comma(self, name: str, value: yaml.Node, before: dict[str, Any]) -> None:
        """``{zipf: 0,2}`` has the key `2` without a value."""
        number = next(reversed(before.values()), None)
        if name.isdecimal() and isinstance(number, int) and isinstance(value, yaml.ScalarNode) and not value.value:
            self._fault(value, f"a number has a point: {number}.{name}, not {number},{name}.")

    def _scalar(self, node: yaml.ScalarNode, place: Place | None) -> Any:
        tag, written = node.tag.removeprefix(_TAG), node.value
        if tag == "str" and node.style is None and _NUMBER.fullmatch(written):
            tag = "float"
        if tag in ("str", "timestamp", "merge", "value") or (tag in ("int", "float") and ":" in written):
            return self._text(node)
        if tag not in ("int", "float", "bool", "null"):
            self._refuse_tag(node)
        try:
            # May fail, as any text can have a tag: !!int "".
            value = float(written) if _NUMBER.fullmatch(written) else self._constructed(tag, node)
        except (ValueError, LookupError):
            self._fault(node, f"{written!r} is not a valid {tag}.")
        if isinstance(value, int) and abs(value) > MOST_NUMBER:
            self._fault(node, "a whole number of more than 64 bits.")
        if place is not None:
            self.file.spelled[place] = written
        return value

    def _constructed(self, tag: str, node: yaml.ScalarNode) -> Any:
        constructors = {
            "int": self.constructor.construct_yaml_int,
            "float": self.constructor.construct_yaml_float,
            "bool": self.constructor.construct_yaml_bool,
            "null": self.constructor.construct_yaml_null,
        }
        return constructors[tag](node)

    def _text(self, node: yaml.ScalarNode) -> str:
        """The text of a node, with surrogate pairs (as in JSON escapes) joined."""
        text = str(node.value)
        if node.style is None and _TYPOGRAPHIC.fullmatch(text):
            what = f"the typographic quotation marks of {readable(text, 60)} are part of the text."
            self._fault(node, what, "Write straight ones; if these belong to the text, put straight ones around it.")
        if "\0" in text:
            self._fault(node, "text cannot hold the character NUL.")
        if _SURROGATE.search(text):
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._fault(node, f"{text!r} holds half a character (a lone surrogate).")
        return text

    def _refuse_tag(self, node: yaml.Node) -> NoReturn:
        what = f"the tag {node.tag.replace(_TAG, '!!')!r} has no meaning here."
        self._fault(node, what, "Leave it out, or put text with ! in front in quotes.")

    def _fault(self, node: yaml.Node, what: str, remedy: str | None = None) -> NoReturn:
        raise RecipeError(what, where=f"{self.file.name}:{node.start_mark.line + 1}", remedy=remedy)


def _within(place: Place | None, step: str | int) -> Place | None:
    return None if place is None else (*place, step)
