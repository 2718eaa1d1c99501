"""One learned label for every text, such as its sentiment, and guidance towards it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from dlmctl.control.evidence.bag import Bag, balanced, fit_bag
from dlmctl.control.evidence.beside import EvidenceFiles, bag_of, fingerprint_of, ids_or_negative
from dlmctl.control.evidence.prepared import PreparedBag
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.hints import HintRequest, hints_for
from dlmctl.control.labels import LabelledText
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.errors import DataError
from dlmctl.text.fields import Value, find_value
from dlmctl.text.tokenizer import Tokenizer

BAG_FILE = "bag.safetensors"
# The field with the source of a text.
SOURCE_FIELD = "source"
# Weight of the evidence of words, chosen on other texts than those reported. With a larger weight more texts have their
# label, but more also repeat the words that express it.
BAG_WEIGHT = 2.0
# Where no hints guide as well, how many nats likelier than the others the label is to become (``bag.evidence``).
MARGIN = 4.0


@dataclass(frozen=True)
class TextLabels(FieldLabels):
    """The values of one field: the one that the user chose, or one that ``fields_of`` derives.

    The target of a text is a value. A model with latents is guided by a classifier of the whole latent; a masked model
    by weights of its words or tokens, which say how much likelier each makes a label, and by hints of the label if
    there are any.
    """

    counts, counts_tokens = BAG_FILE, True
    # A label is the same at every position, so the encoder needs no blocks to combine positions.
    hints: ClassVar[Mapping[str, int]] = {"width": 8, "blocks": 0}

    @classmethod
    def needs_label(cls) -> bool:
        return "label" in cls.takes

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        labels = super().from_data(data)
        if data.label is None and cls.needs_label():
            known = ", ".join(labels.values)
            raise DataError("which field holds the labels?", where="--label", remedy=f"Known: {known}.")
        return labels

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
    def counted(cls, data: LabelledText, vocabulary: Tokenizer) -> tuple[Self, EvidenceFiles]:
        labels = cls.from_data(data)
        return labels, {BAG_FILE: labels.bag(data, vocabulary)}

    def counted_texts(self, data: LabelledText) -> int:
        """The number of texts that have a label."""
        return len(self._labelled(data))

    def bag(self, data: LabelledText, vocabulary: Tokenizer) -> Bag:
        """Weights of words or tokens, learned from the labelled texts; each pair of label and source has the same total
        weight."""
        indices, classes = zip(*self._labelled(data), strict=True)
        token_ids = [
            [word_id for word_id in ids_or_negative(data.sentences[at], vocabulary) if word_id >= 0] for at in indices
        ]
        source_ids: dict[str, int] = {}
        sources = [source_ids.setdefault(str(data.rows[at].get(SOURCE_FIELD, "")), len(source_ids)) for at in indices]
        size, fingerprint = len(vocabulary), fingerprint_of(vocabulary)
        weights = balanced(classes, sources)
        return fit_bag(token_ids, classes, self.known, size, weights=weights, vocabulary=fingerprint)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Value]) -> Prepared:
        bag = bag_of(folder / BAG_FILE, fingerprint_of(batch.vocabulary))
        numbers = [find_label(label, bag.labels) for label in wanted]
        hints = hints_for(folder, batch, [[[bag.labels[number]]] * batch.length for number in numbers])
        prepared = PreparedBag(bag, numbers, BAG_WEIGHT, batch, MARGIN if hints is None else 0.0)
        prepared.hints = hints
        return prepared

    def asks(self, data: LabelledText) -> list[list[HintRequest]]:
        """The label at every word."""
        asks: list[list[HintRequest]] = [[] for _ in data.sentences]
        for at, number in self._labelled(data):
            asks[at].append(HintRequest([[self.known[number]]] * len(data.sentences[at])))
        return asks


def find_label(label: Value, known: Sequence[str]) -> int:
    """Index of a label among those known, in upper or lower case.

    Raises:
        RecipeError: there is no such label.
    """
    return find_value(label, known, "there is no label {}.")
