"""What controls know of single words, such as how concrete they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from dlmctl.control.base import Control
from dlmctl.control.composites import Composite


@runtime_checkable
class KnowsWords(Protocol):
    """A control that looks words up."""

    def properties_of(self, params: Any, word: str) -> Mapping[str, float | str | None]:
        """The properties of a word by name, None where one is not known."""


def properties_of(control: Control[Any] | None, sample: int, word: str) -> dict[str, float | str | None]:
    """All that a control and its parts know of a word, with the parameters of a sample."""
    if isinstance(control, Composite):
        parts = [properties_of(part, sample, word) for part in control.parts]
        return {name: value for part in parts for name, value in part.items()}
    return dict(control.properties_of(control.dealt(sample), word)) if isinstance(control, KnowsWords) else {}
