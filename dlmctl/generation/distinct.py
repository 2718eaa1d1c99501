"""Texts that differ: from each other within a row of targets or a whole run, and from those of the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import blake2b

from dlmctl.control.check import Check
from dlmctl.datasets.known_texts import KnownTexts
from dlmctl.generation.results import Sample

# The label of the check, beside those of the controls.
LABEL = "unique"


class Distinct:
    """Which texts are taken, and by which sample.

    Args:
        group: of a sample, within which its text may not come twice; the whole run where there is none.
        known: the training text, none of which may come.
    """

    def __init__(self, group: Callable[[int], int] | None = None, known: KnownTexts | None = None) -> None:
        self.group, self.known = group, known
        # Eight bytes for each text of the run so far, so that a million of them fit.
        self.taken: dict[int, int] = {}

    def take(self, index: int, text: str) -> None:
        """Note that a sample has a text."""
        self.taken.setdefault(self._key(index, text), index)

    def release(self, samples: Iterable[Sample]) -> None:
        """Free the texts of samples that are drawn again."""
        for sample in samples:
            key = self._key(sample.index, sample.text)
            if self.taken.get(key) == sample.index:
                del self.taken[key]

    def checked(self, sample: Sample) -> Sample:
        """The sample with the verdict on whether its text is new."""
        owner = self.taken.get(self._key(sample.index, sample.text), sample.index)
        why = "" if owner == sample.index else f"the same text as sample {owner}"
        if not why and self.known is not None and sample.text in self.known:
            why = "stands in the training text"
        return replace(
            sample, checks={**sample.checks, LABEL: Check(float(not why), not why, why or "no other has it")}
        )

    def _key(self, index: int, text: str) -> int:
        group = -1 if self.group is None else self.group(index)
        return int.from_bytes(blake2b(f"{group} {text}".encode(), digest_size=8).digest(), "big")
