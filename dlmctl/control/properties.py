"""What controls know about single words, such as how concrete they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from dlmctl.control.base import Composite, Control
from dlmctl.control.combined import parts_of


@runtime_checkable
class KnowsWords(Protocol):
    """A control that looks words up."""

    def properties_of(self, params: Any, word: str) -> Mapping[str, float | str | None]:
        """The properties of a word by name; None for an unknown one."""


class Exchanged(NamedTuple):
    """A word that replaces another.

    Attributes:
        place: its position, from 0.
        length: number of words of its text.
        tags: the tags of the words to be exchanged; empty if these are named by position.
    """

    word: str
    place: int
    length: int
    tags: frozenset[str]


@runtime_checkable
class JudgesWords(Protocol):
    """A control that can judge a single word."""

    def fault_of(self, params: Any, exchanged: Exchanged) -> str | None:
        """Why an exchanged word does not fit; None if it does, or if the control does not apply to it."""


@runtime_checkable
class HoldsExchanged(Protocol):
    """A control that names words by their tags, and can be applied to exchanged positions instead."""

    def hold_exchanged(self, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
        """From now on treat the positions ``places``, from 0, of each sample as words with these tags."""


def hold_exchanged(control: Control[Any] | None, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
    """Make all parts of a control treat the exchanged positions ``places`` as words with these tags."""
    for part in [] if control is None else parts_of(control):
        if isinstance(part, HoldsExchanged):
            part.hold_exchanged(places, tags)


def faults_of(control: Control[Any] | None, sample: int, exchanged: Exchanged) -> list[str]:
    """The reasons why a word does not satisfy the parts of a control for a sample."""
    parts = [] if control is None else parts_of(control)
    faults = [part.fault_of(part.dealt(sample), exchanged) for part in parts if isinstance(part, JudgesWords)]
    return [fault for fault in faults if fault is not None]


def properties_of(control: Control[Any] | None, sample: int, word: str) -> dict[str, float | str | None]:
    """The properties of a word according to a control and its parts, with the parameters of a sample."""
    if isinstance(control, Composite):
        return merged_properties(properties_of(part, sample, word) for part in control.parts)
    return dict(control.properties_of(control.dealt(sample), word)) if isinstance(control, KnowsWords) else {}


def merged_properties(sources: Iterable[Mapping[str, float | str | None]]) -> dict[str, float | str | None]:
    """The properties of a word from several sources: of those that know one, the last counts.

    Each condition may have a table of its own, in which the words of the other conditions are missing.
    """
    properties: dict[str, float | str | None] = {}
    for source in sources:
        properties |= {name: value for name, value in source.items() if value is not None or name not in properties}
    return properties
