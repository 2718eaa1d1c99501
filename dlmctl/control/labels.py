"""What a control learns from labelled text: the interface ``Labels``."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from dlmctl.control.evidence.beside import EvidenceFiles
from dlmctl.control.hints import HintRequest
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import UserError
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer


@dataclass(frozen=True)
class LabelledText:
    """Text to learn from.

    Attributes:
        sentences: the words of each sentence.
        fields: the other fields of each sentence in the data, None if there are none.
        label: the field that the user chose to learn (``--label``).
        judge: the tagger or parser that the user chose instead of the bundled one (``--judge``).
    """

    sentences: Sequence[Sequence[str]]
    fields: Sequence[Mapping[str, Any]] | None = None
    label: str | None = None
    judge: str | None = None

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The fields of each sentence, empty if the data has none."""
        return [{}] * len(self.sentences) if self.fields is None else self.fields

    def halves(self) -> tuple[LabelledText, LabelledText]:
        """Two parts with no sentence in common, the same every time: the guide and the check must not learn from the
        same texts."""
        sides = [is_guide_half(words) for words in self.sentences]
        guide, check = (self.some([at for at, side in enumerate(sides) if side == wanted]) for wanted in (True, False))
        return guide, check

    def some(self, places: Sequence[int]) -> LabelledText:
        """The sentences with the given indices."""
        rows = self.rows
        fields = None if self.fields is None else [rows[at] for at in places]
        return replace(self, sentences=[self.sentences[at] for at in places], fields=fields)


def is_guide_half(words: Sequence[str]) -> bool:
    """Whether a text belongs to the half that the guide learns from; see ``LabelledText.halves``."""
    return not zlib.crc32(" ".join(words).encode()) & 1


class Labels(ABC):
    """What a control learns, how, and how that guides. A control sets its class attribute ``Labels`` to a subclass.

    Some labels are known beforehand. Others, such as the fields and values of a corpus, are known only from the data:
    these are built from the training rows and saved as ``labels.json`` next to the weights, which have no meaning
    without them.

    Two subclasses are ready to use: ``TextLabels``, one label for each text, and ``WordLabels``, one for each word.

    Attributes:
        takes: which options of ``LabelledText`` these labels use, of ``label`` and ``judge``.
        counts: the file that ``counted`` makes, whose presence shows that it was made; None if it makes none.
        counts_too: whether the counts also guide in addition to a classifier, not only masked models.
        counts_tokens: whether tokens that are parts of words can be counted, so that no model over tokens needs a
            classifier.
        hints: width and blocks of the encoder of ``asks``; see ``models.hints``.
    """

    takes: ClassVar[Collection[str]] = ()
    counts: ClassVar[str | None] = None
    counts_too: ClassVar[bool] = False
    counts_tokens: ClassVar[bool] = False
    hints: ClassVar[Mapping[str, int]] = {"width": 64, "blocks": 2}

    @classmethod
    def needs_label(cls) -> bool:
        """Whether the user must choose the field that holds the labels (``--label``)."""
        return False

    @classmethod
    def counted_in(cls, vocabulary: Tokenizer) -> bool:
        """Whether ``counted`` can count in a vocabulary; otherwise a classifier is trained."""
        return cls.counts is not None and (cls.counts_tokens or isinstance(vocabulary, WordTokenizer))

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        """The labels in the training text.

        Raises:
            UserError: the text has no such labels.
        """
        return cls()

    def to_json(self) -> Any:
        """The labels as JSON, for ``from_json``; None for labels that are known beforehand."""
        return None

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return cls()

    @abstractmethod
    def labels(self, data: LabelledText) -> list[Any]:
        """The prediction target of each sentence."""

    @abstractmethod
    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        """An untrained classifier over the latents of a model."""

    @abstractmethod
    def classifier_loss(self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Any]) -> tuple[Tensor, Tensor]:
        """Loss and accuracy per example, both ``[B]``, for latents ``[B, L, D]`` at times ``[B]``."""

    def commonest_accuracy(self, labels: Sequence[Any]) -> float | None:
        """The accuracy for these targets of always predicting the commonest class, which says what the accuracy of a
        classifier is worth; None if it is not known."""
        return None

    def by_classifier(self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[Any]) -> Prepared:
        """Guidance by the trained classifier, towards the ``wanted`` target of each text of a batch.

        Raises:
            UserError: a target is not among these labels.
        """
        raise NotImplementedError(f"{type(self).__name__} has no by_classifier")

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: Tokenizer) -> tuple[Self, EvidenceFiles]:
        """The labels and, by file name, counts for them: masked models have no latents to classify.

        Args:
            vocabulary: one that it can be ``counted_in``.

        Raises:
            UserError: as ``from_data``.
        """
        raise NotImplementedError(f"{cls.__name__} has no counted")

    def counted_texts(self, data: LabelledText) -> int:
        """How many of these sentences ``counted`` uses, for the card."""
        return len(data.sentences)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Any]) -> Prepared:
        """As ``by_classifier``, but by the files of ``counted`` in a folder.

        Raises:
            UserError: as ``by_classifier``.
            ModelError: a file is damaged, or of another vocabulary.
        """
        raise NotImplementedError(f"{cls.__name__} has no by_counts")

    @classmethod
    def beside(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Any]) -> tuple[Tensor, Sequence[float]]:
        """If ``counts_too``: evidence ``[B, L, V]`` from the counts, weighted for use next to a classifier, and for
        each text the factor to apply to the classifier's energy."""
        raise NotImplementedError(f"{cls.__name__} has no beside")

    def asks(self, data: LabelledText) -> list[list[HintRequest]]:
        """The targets that each sentence is an example of, from which hints for a masked model are learned (see
        ``control.hints``). Every sentence has the same number of them, or none. By default none."""
        return [[] for _ in data.sentences]

    def held_out(self, data: LabelledText) -> dict[str, Any]:
        """Validation figures for the card about anything else that was learned, as JSON values."""
        return {}


def refuse_unused_options(kind: type[Labels], data: LabelledText) -> None:
    """Check that the labels use all options that the user set.

    Raises:
        UserError: they do not use ``label`` or ``judge``, but it is set.
    """
    if data.label is not None and "label" not in kind.takes:
        raise UserError("this control has labels of its own, so it takes none.", where="--label")
    if data.judge is not None and "judge" not in kind.takes:
        raise UserError("the labels of this control come from no tagger or parser.", where="--judge")
