"""YAML that remembers where each value stood, so that errors can name the line, and that cannot be made to explode.

What is read is YAML 1.1 as PyYAML has it, less what settings have no use for: keys are text, dates and times stay
text, ``7:30`` is text and not 450, ``1e-3`` is a number, and tags beyond those of plain values are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import yaml
from yaml.constructor import SafeConstructor

from dlmctl.errors import RecipeError

Place = tuple[str | int, ...]

# Of a file; of what it holds once every alias is written out; of lists in lists.
MOST_CHARACTERS, MOST_VALUES, MOST_TEXT, MOST_DEPTH = 1_000_000, 200_000, 4_000_000, 40
# Whole numbers fit 64 bits wherever they end up.
MOST_NUMBER = 2**63 - 1

_NOT_YAML, _NO_CHARACTER = "not valid YAML", "an escape in double quotes stands for no character."
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Text that PyYAML takes for something else, by what it says of it.
_REMEDIES = {
    "while scanning an alias": "A word with * in front goes in quotes: '*'.",
    "while scanning an anchor": "A word with & in front goes in quotes.",
    "found undefined alias": "A word with * in front goes in quotes.",
    "cannot start any token": "Indent with spaces; text that begins with such a character goes in quotes.",
    "mapping values are not allowed": "Text with a colon and a space in it goes in quotes.",
    "expected a single document": "One file holds one recipe.",
}


class SettingsFile:
    """Where settings came from, for messages about them.

    Attributes:
        name: of the file.
        lines: from 1, of every key and list item, by its path.
        spelled: how values that YAML reads as something other than text were written, by their path.
        overridden: the paths that the command line laid over the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Place, int] = {(): 1}
        self.spelled: dict[Place, str] = {}
        self.overridden: list[Place] = []

    def line(self, place: Place) -> int:
        """The line of ``place`` or of the nearest value around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def where(self, place: Place) -> str:
        """``recipe.yaml:12``, or ``command line`` for what was set there, or stands in no file."""
        # What the command line set lies around the place at fault, or inside it.
        theirs = any(a == b for a, b in ((place[: len(o)], o[: len(place)]) for o in self.overridden))
        return "command line" if theirs or self.name == "command line" else f"{self.name}:{self.line(place)}"

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
            return read_some(file, str(path))
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None


def read_some(file: TextIO, name: str) -> str:
    """The text of an open file of settings, of a long one or a device no more than shows ``parse`` that it is.

    Raises:
        RecipeError: it is not UTF-8.
    """
    try:
        return file.read(MOST_CHARACTERS + 1).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"cannot be read: it is not UTF-8 (byte 0x{error.object[error.start]:02x})."
        raise RecipeError(what, where=name, remedy="Save it as UTF-8.") from None


def parse(text: str, name: str) -> tuple[Any, SettingsFile]:
    """The value of a YAML text, and where each part of it stands.

    Raises:
        RecipeError: not YAML, longer or deeper than settings ever are, aliases that multiply, a key that stands twice
            or is no text, a tag or a character that has no place in settings.
    """
    file = SettingsFile(name)
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(f"holds more than {MOST_CHARACTERS:,} characters.", where=name)
    root = _compose(text, name)
    if root is None:
        return None, file
    _measure(root, name, {})
    return _Values(file).of(root, ()), file


class _Composer(yaml.SafeLoader):
    """Stops at lists in lists in lists, and at too many values, before it has built them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MOST_DEPTH or self.count > MOST_VALUES:
            fault = f"holds more than {MOST_VALUES:,} values" if self.count > MOST_VALUES else _too_deep()
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _too_deep() -> str:
    return f"lists and mappings stand more than {MOST_DEPTH} deep in each other"


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = _Composer(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        said = f"{error.context or ''} {error.problem or ''}"
        remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in said), None)
        where = f"{name}:{error.problem_mark.line + 1}" if error.problem_mark else name
        raise RecipeError(f"{_NOT_YAML}: {error.problem or error.context}.", where=where, remedy=remedy) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        what = f"{_NOT_YAML}: the character {chr(error.character)!r} is not allowed."
        raise RecipeError(what, where=f"{name}:{line}") from None
    except (ValueError, OverflowError):  # "\UFFFFFFFF"
        raise RecipeError(f"{_NOT_YAML}: {_NO_CHARACTER}", where=f"{name}:{loader.line + 1}") from None


class _Extent(NamedTuple):
    """What a node comes to once its aliases are written out."""

    values: int
    characters: int
    depth: int


def _measure(node: yaml.Node, name: str, known: dict[int, _Extent | None]) -> _Extent:
    """The extent of a node, each anchor measured once.

    Raises:
        RecipeError: it is too large, or an anchor holds itself.
    """
    where = f"{name}:{node.start_mark.line + 1}"
    if id(node) in known:  # reached by an alias
        measured = known[id(node)]
        if measured is None:
            raise RecipeError("an anchor holds itself.", where=where)
        return measured
    known[id(node)] = None
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    values, characters, depth = 1, 0 if isinstance(node, yaml.CollectionNode) else len(node.value), 1
    for part in inner:
        found = _measure(part, name, known)
        values, characters, depth = values + found.values, characters + found.characters, max(depth, 1 + found.depth)
        if values > MOST_VALUES or characters > MOST_TEXT:
            raise RecipeError(
                f"aliases multiply to more than {MOST_VALUES:,} values or {MOST_TEXT:,} characters.", where=where
            )
        if depth > MOST_DEPTH:
            raise RecipeError(f"{_too_deep()}.", where=where)
    known[id(node)] = measured = _Extent(values, characters, depth)
    return measured


class _Values:
    """Nodes to values, with their lines noted in a ``SettingsFile``."""

    def __init__(self, file: SettingsFile) -> None:
        self.file = file
        self.seen: set[int] = set()
        self.constructor = SafeConstructor()

    def of(self, node: yaml.Node, place: Place | None) -> Any:
        """The value of a node. ``place`` is None inside of an alias, whose own line stands for all that it holds."""
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
            return [self.of(item, _within(place, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, place)

    def _mapping(self, node: yaml.Node, place: Place | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key is text, not a list or a mapping.")
            if key.tag == f"{_TAG}merge":
                if merged:
                    self._fault(key, "'<<' stands twice.")
                merged.append(value)
                continue
            name = self._text(key)
            if name in found:
                self._fault(key, f"{name!r} stands twice.")
            inner = _within(place, name)
            if inner is not None:
                self.file.lines[inner] = key.start_mark.line + 1
            found[name] = self.of(value, inner)
        for value in merged:
            bases = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for base in bases:
                held = self.of(base, None)
                if not isinstance(held, dict):
                    self._fault(value, "`<<` takes a mapping, or a list of mappings.")
                found = {**held, **found}
        return found

    def _scalar(self, node: yaml.ScalarNode, place: Place | None) -> Any:
        kind, written = node.tag.removeprefix(_TAG), node.value
        if kind == "str" and node.style is None and _NUMBER.fullmatch(written):
            kind = "float"
        if kind in ("str", "timestamp", "merge", "value") or (kind in ("int", "float") and ":" in written):
            return self._text(node)
        if kind not in ("int", "float", "bool", "null"):
            self._refuse_tag(node)
        try:
            # By value, as a tag may be laid on any text: !!int "".
            value = float(written) if _NUMBER.fullmatch(written) else self._constructed(kind, node)
        except (ValueError, LookupError):
            self._fault(node, f"{written!r} is no {kind}.")
        if isinstance(value, int) and abs(value) > MOST_NUMBER:
            self._fault(node, "a whole number of more than 64 bits.")
        if place is not None:
            self.file.spelled[place] = written
        return value

    def _constructed(self, kind: str, node: yaml.ScalarNode) -> Any:
        made = {
            "int": self.constructor.construct_yaml_int,
            "float": self.constructor.construct_yaml_float,
            "bool": self.constructor.construct_yaml_bool,
            "null": self.constructor.construct_yaml_null,
        }
        return made[kind](node)

    def _text(self, node: yaml.ScalarNode) -> str:
        """The text of a node, pairs of surrogates (as JSON escapes have them) joined."""
        text = str(node.value)
        if "\0" in text:
            self._fault(node, "text cannot hold the character NUL.")
        if _SURROGATE.search(text):
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._fault(node, f"{text!r} holds half a character (a lone surrogate).")
        return text

    def _refuse_tag(self, node: yaml.Node) -> NoReturn:
        tag = node.tag.replace(_TAG, "!!")
        self._fault(node, f"the tag {tag!r} has no meaning here.", "Leave it out; text with ! in front goes in quotes.")

    def _fault(self, node: yaml.Node, what: str, remedy: str | None = None) -> NoReturn:
        raise RecipeError(what, where=f"{self.file.name}:{node.start_mark.line + 1}", remedy=remedy)


def _within(place: Place | None, step: str | int) -> Place | None:
    return None if place is None else (*place, step)


def override(settings: dict[str, Any], setting: str, file: SettingsFile | None = None) -> Place:
    """Lay one ``key=value`` over ``settings`` (key dotted, value YAML), note it in ``file``, and return its place.

    Raises:
        RecipeError: it is not ``key=value``, or there is no such place.
    """
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"{setting!r} is not key=value.", where="--set", remedy="For example sampler.steps=20.")
    try:
        # Names a file of them, and no YAML text begins so.
        value, given = parse(json.dumps(text) if key == "source" and text.startswith("@") else text, "value")
    except RecipeError as error:
        why = " is not a YAML value." if error.what.startswith(_NOT_YAML) else f": {error.what}"
        raise RecipeError(f"{text!r}{why}", where=f"--set {key}", remedy=error.remedy) from None
    *parents, last = key.split(".")
    if len(parents) >= MOST_DEPTH:
        raise RecipeError(_too_deep() + ".", where=f"--set {key}")
    inner: Any = settings
    place: list[str | int] = []
    for parent in parents:
        place.append(_step(inner, parent, place, key))
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else inner[place[-1]]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{parent!r} holds a value, not settings.", where=f"--set {key}", remedy=_whole(place))
    place.append(_step(inner, last, place, key))
    inner[place[-1]] = value
    if file is not None:
        file.overridden.append(tuple(place))
        file.spelled.update({(*place, *inside): written for inside, written in given.spelled.items()})
    return tuple(place)


def overlay(settings: dict[str, Any], overrides: Sequence[str], file: SettingsFile) -> None:
    """Lay each of ``overrides`` over ``settings``; see ``override``."""
    for setting in overrides:
        override(settings, setting, file)


def _step(inner: dict[str, Any] | list[Any], step: str, place: Sequence[str | int], key: str) -> str | int:
    """What leads on from ``inner``, which stands at ``place``."""
    if isinstance(inner, dict):
        return step
    if step.isdecimal() and len(step) < 10 and int(step) < len(inner):
        return int(step)
    what = f"{place[-1]!r} holds a list of {len(inner)}, numbered from 0, and has no item {step!r}."
    raise RecipeError(what, where=f"--set {key}", remedy=None if step.isdecimal() else _whole(place))


def _whole(place: Sequence[str | int]) -> str:
    return f"Set the whole of it: --set {'.'.join(map(str, place))}=..."
