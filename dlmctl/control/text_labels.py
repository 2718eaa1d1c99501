"""One label for every text, such as its sentiment: learned, and guidance towards wanted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from dlmctl.control.evidence.bag import Bag, balanced, fit_bag
from dlmctl.control.evidence.beside import Counted, bag_of, fingerprint_of, known_or_negative
from dlmctl.control.evidence.prepared import PreparedBag
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.hints import Ask, hints_for
from dlmctl.control.labels import LabelledText
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.errors import DataError
from dlmctl.text.fields import Value, find_value
from dlmctl.text.tokenizer import WordTokenizer

BAG_FILE = "bag.safetensors"
# The field that says where a text is from.
SOURCE_FIELD = "source"
# Of the evidence of words, chosen on other texts than those reported. The more it weighs the more often labels are met,
# and the more texts repeat the words that say them.
BAG_WEIGHT = 2.0


@dataclass(frozen=True)
class TextLabels(FieldLabels):
    """The values of one field: that which the user chose, or one that ``fields_of`` finds.

    What a text is wanted to be is a value. A model with latents is guided by a classifier of the whole latent; a masked
    one by weights of words, which say how much likelier each makes a label, and by being told the label.
    """

    counts = BAG_FILE
    # A label is the same at every place, so nothing has to be worked out from places.
    hints: ClassVar[Mapping[str, int]] = {"width": 8, "blocks": 0}

    @classmethod
    def needs_label(cls) -> bool:
        return "label" in cls.takes

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        found = super().from_data(data)
        if data.label is None and cls.needs_label():
            known = ", ".join(found.values)
            raise DataError("which field holds the labels?", where="--label", remedy=f"Known: {known}.")
        return found

    @property
    def known(self) -> list[str]:
        """The labels."""
        return next(iter(self.values.values()))

    def number(self, label: Value) -> int:
        """The class of a label.

        Raises:
            RecipeError: there is no such label.
        """
        return find_label(label, self.known)

    def labelled(self, data: LabelledText) -> list[tuple[Sequence[str], int]]:
        """The texts that have a label, each with its class."""
        return [(data.sentences[at], number) for at, number in self._labelled(data)]

    def _labelled(self, data: LabelledText) -> list[tuple[int, int]]:
        return [(at, number) for at, (number,) in enumerate(self.labels(data)) if number < len(self.known)]

    def by_classifier(self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[Value]) -> Prepared:
        (field,) = self.values
        return super().by_classifier(classifier, batch, [{field: value} for value in wanted])

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        own = cls.from_data(data)
        return own, {BAG_FILE: own.bag(data, vocabulary)}

    def counted_texts(self, data: LabelledText) -> int:
        """Those that have a label."""
        return len(self._labelled(data))

    def bag(self, data: LabelledText, vocabulary: WordTokenizer) -> Bag:
        """Weights of words, learned from the texts that have a label; those of each label and source weigh the same."""
        places, classes = zip(*self._labelled(data), strict=True)
        ids = [[number for number in known_or_negative(data.sentences[at], vocabulary) if number >= 0] for at in places]
        numbers: dict[str, int] = {}
        sources = [numbers.setdefault(str(data.rows[at].get(SOURCE_FIELD, "")), len(numbers)) for at in places]
        size, words = len(vocabulary), fingerprint_of(vocabulary)
        return fit_bag(ids, classes, self.known, size, weights=balanced(classes, sources), vocabulary=words)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Value]) -> Prepared:
        bag = bag_of(folder / BAG_FILE, fingerprint_of(batch.vocabulary))
        numbers = [find_label(label, bag.labels) for label in wanted]
        found = PreparedBag(bag, numbers, BAG_WEIGHT, batch)
        found.hints = hints_for(folder, batch, [[[bag.labels[number]]] * batch.length for number in numbers])
        return found

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """The label at every word."""
        found: list[list[Ask]] = [[] for _ in data.sentences]
        for at, number in self._labelled(data):
            found[at].append(Ask([[self.known[number]]] * len(data.sentences[at])))
        return found


def find_label(label: Value, known: Sequence[str]) -> int:
    """Where a label stands among those known, in upper or lower case.

    Raises:
        RecipeError: there is no such label.
    """
    return find_value(label, known, "there is no label {}.")
