"""What controls know of single words, such as how concrete they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from dlmctl.control.base import Composite, Control
from dlmctl.control.combined import parts_of


@runtime_checkable
class KnowsWords(Protocol):
    """A control that looks words up."""

    def properties_of(self, params: Any, word: str) -> Mapping[str, float | str | None]:
        """The properties of a word by name, None where one is not known."""


class Exchanged(NamedTuple):
    """A word that stands in place of another one.

    Attributes:
        place: where it stands, from 0; length: how many words its text has.
        tags: of the words to be exchanged; none where they are named by their places.
    """

    word: str
    place: int
    length: int
    tags: frozenset[str]


@runtime_checkable
class JudgesWords(Protocol):
    """A control that can tell of a single word whether it fits."""

    def fault_of(self, params: Any, exchanged: Exchanged) -> str | None:
        """Why a word that was exchanged does not fit; None if it does, or if nothing is asked of it."""


@runtime_checkable
class HoldsExchanged(Protocol):
    """A control that names words by their tags, and can hold the places exchanged to what it asks."""

    def hold_exchanged(self, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
        """Take the places, from 0, of some samples for words with these tags, from now on."""


def hold_exchanged(control: Control[Any] | None, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
    """Let a control, with all that hold beside it, take the places exchanged for words with these tags."""
    for part in [] if control is None else parts_of(control):
        if isinstance(part, HoldsExchanged):
            part.hold_exchanged(places, tags)


def faults_of(control: Control[Any] | None, sample: int, exchanged: Exchanged) -> list[str]:
    """Why a word does not fit what a control, with all that hold beside it, asks of a sample."""
    parts = [] if control is None else parts_of(control)
    found = [part.fault_of(part.dealt(sample), exchanged) for part in parts if isinstance(part, JudgesWords)]
    return [fault for fault in found if fault is not None]


def properties_of(control: Control[Any] | None, sample: int, word: str) -> dict[str, float | str | None]:
    """All that a control and its parts know of a word, with the parameters of a sample."""
    if isinstance(control, Composite):
        parts = [properties_of(part, sample, word) for part in control.parts]
        return {name: value for part in parts for name, value in part.items()}
    return dict(control.properties_of(control.dealt(sample), word)) if isinstance(control, KnowsWords) else {}
