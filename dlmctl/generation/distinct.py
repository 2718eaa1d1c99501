"""A record of texts used: no text twice within a target row or a run, and none from the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import blake2b

from dlmctl.control.check import Check
from dlmctl.datasets.known_texts import KnownTexts
from dlmctl.generation.results import Sample

# The label of the check, next to those of the controls.
LABEL = "unique"


class Distinct:
    """Which texts are taken, and by which sample.

    Args:
        group: maps a sample to the group in which its text must be unique; the whole run if not given.
        known: the training texts, none of which may be repeated.
    """

    def __init__(self, group: Callable[[int], int] | None = None, known: KnownTexts | None = None) -> None:
        self.group, self.known = group, known
        # Eight bytes for each text of the run so far, so that a million of them fit into memory.
        self.taken: dict[int, int] = {}

    def take(self, index: int, text: str) -> None:
        """Record that a sample has a text."""
        self.taken.setdefault(self._key(index, text), index)

    def release(self, samples: Iterable[Sample]) -> None:
        """Free the texts of samples that are redrawn."""
        for sample in samples:
            key = self._key(sample.index, sample.text)
            if self.taken.get(key) == sample.index:
                del self.taken[key]

    def checked(self, sample: Sample) -> Sample:
        """The sample with a check of whether its text is new."""
        owner = self.taken.get(self._key(sample.index, sample.text), sample.index)
        why = "" if owner == sample.index else f"the same text as sample {owner}"
        if not why and self.known is not None and sample.text in self.known:
            why = "is in the training text"
        return replace(
            sample, checks={**sample.checks, LABEL: Check(float(not why), not why, why or "no other has it")}
        )

    def _key(self, index: int, text: str) -> int:
        group = -1 if self.group is None else self.group(index)
        return int.from_bytes(blake2b(f"{group} {text}".encode(), digest_size=8).digest(), "big")
