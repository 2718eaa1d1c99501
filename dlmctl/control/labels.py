"""What a control learns from labelled text: the contract of ``Labels``."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from dlmctl.control.evidence.beside import Counted
from dlmctl.control.hints import Ask
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import UserError
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer


@dataclass(frozen=True)
class LabelledText:
    """Text to learn from.

    Attributes:
        sentences: each as its words.
        fields: what the data says beside each, None where it says nothing.
        label: the field that the user chose to learn (``--label``).
        judge: the tagger or parser that the user chose in place of the bundled one (``--judge``).
    """

    sentences: Sequence[Sequence[str]]
    fields: Sequence[Mapping[str, Any]] | None = None
    label: str | None = None
    judge: str | None = None

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The fields of each sentence, empty where the data says nothing."""
        return [{}] * len(self.sentences) if self.fields is None else self.fields

    def halves(self) -> tuple[LabelledText, LabelledText]:
        """Two parts with no sentence in common, the same every time: what guides and what checks must not learn from
        the same texts."""
        sides = [guides(words) for words in self.sentences]
        first, second = (self.some([at for at, side in enumerate(sides) if side == wanted]) for wanted in (True, False))
        return first, second

    def some(self, places: Sequence[int]) -> LabelledText:
        """The sentences at some places."""
        rows = self.rows
        fields = None if self.fields is None else [rows[at] for at in places]
        return replace(self, sentences=[self.sentences[at] for at in places], fields=fields)


def guides(words: Sequence[str]) -> bool:
    """Whether a text is of the half that what guides learns from, see ``LabelledText.halves``."""
    return not zlib.crc32(" ".join(words).encode()) & 1


class Labels(ABC):
    """What a control learns, how, and how that guides. A control names its class of them as ``Labels``.

    Some are known beforehand. Others only from the data, such as the fields and values of a corpus: these are made from
    the training rows and saved as ``labels.json`` beside the weights, which have no meaning without them.

    Two kinds are there to be used: ``TextLabels``, one label for each text, and ``WordLabels``, one for each word.

    Attributes:
        takes: which choices of ``LabelledText`` these labels heed, of ``label`` and ``judge``.
        counts: the file that ``counted`` makes, by which it is known to be there; None if it makes none.
        counts_too: whether it guides beside a classifier, too, and not masked models only.
        hints: width and blocks of the encoder of ``asks``, see ``models.hints``.
    """

    takes: ClassVar[Collection[str]] = ()
    counts: ClassVar[str | None] = None
    counts_too: ClassVar[bool] = False
    hints: ClassVar[Mapping[str, int]] = {"width": 64, "blocks": 2}

    @classmethod
    def needs_label(cls) -> bool:
        """Whether training text is of no use where nobody says which field holds the labels."""
        return False

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        """The labels that there are in training text.

        Raises:
            UserError: the text has no such labels.
        """
        return cls()

    def to_json(self) -> Any:
        """What ``from_json`` makes them from again; None for labels that are known beforehand."""
        return None

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return cls()

    @abstractmethod
    def labels(self, data: LabelledText) -> list[Any]:
        """What is to be predicted for each sentence."""

    @abstractmethod
    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        """An untrained classifier over the latents of a model."""

    @abstractmethod
    def classifier_loss(self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Any]) -> tuple[Tensor, Tensor]:
        """Loss and accuracy per example, both ``[B]``, for latents ``[B, L, D]`` at times ``[B]``."""

    def by_classifier(self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[Any]) -> Prepared:
        """Guidance by the trained classifier towards what each text of a batch is ``wanted`` to be.

        Raises:
            UserError: these labels have no such one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no by_classifier")

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        """These labels and, by file, what is counted for them: masked models have no latents to classify.

        Raises:
            UserError: as ``from_data``.
        """
        raise NotImplementedError(f"{cls.__name__} has no counted")

    def counted_texts(self, data: LabelledText) -> int:
        """Of how many of these sentences ``counted`` takes something, for the card."""
        return len(data.sentences)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Any]) -> Prepared:
        """As ``by_classifier``, by what was ``counted`` into a folder.

        Raises:
            UserError: as there.
            ModelError: a file is damaged, or of another vocabulary.
        """
        raise NotImplementedError(f"{cls.__name__} has no by_counts")

    @classmethod
    def beside(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Any]) -> tuple[Tensor, Sequence[float]]:
        """Where ``counts_too``: evidence ``[B, L, V]`` of what was counted, as much as helps where a classifier guides
        as well, and the share of the classifier's energy that is left of each text."""
        raise NotImplementedError(f"{cls.__name__} has no beside")

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """What each sentence is an example of, in as many ways as any other or in none: that is what a masked model
        can be told, see ``control.hints``. By default nothing."""
        return [[] for _ in data.sentences]

    def held_out(self, data: LabelledText) -> dict[str, Any]:
        """Figures for the card about anything else that was learned, on validation rows, as JSON values."""
        return {}


def require_heeded(kind: type[Labels], data: LabelledText) -> None:
    """Refuse a choice that labels do not heed.

    Raises:
        UserError: there is one.
    """
    if data.label is not None and "label" not in kind.takes:
        raise UserError("this control has labels of its own, so it takes none.", where="--label")
    if data.judge is not None and "judge" not in kind.takes:
        raise UserError("the labels of this control come from no tagger or parser.", where="--judge")
