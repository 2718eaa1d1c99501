"""What is learned for ``classifier``: the labels of one field, what guides, and a judge from texts of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from dlmctl import Check, DataError, LabelledText, Mark, TextLabels
from dlmctl.control.evidence.beside import Counted
from dlmctl.control.hints import Ask
from dlmctl.control.labels import guides
from dlmctl.control.text_labels import BAG_FILE, find_label
from dlmctl.text.fields import Value
from dlmctl.text.tokenizer import WordTokenizer

from .ngrams import NgramJudge


def verdict_of(label: Value, known: Sequence[str], chances: Sequence[float], judge: str) -> Check:
    """Passed if no label is likelier than the one wanted.

    Args:
        known: the labels, and of each its probability, ``chances``.
        judge: who says so, for the message.
    """
    chance, best = chances[find_label(label, known)], max(chances)
    told = f"by {judge} told {known[chances.index(best)]!r} with probability {best:.2f}"
    return Check(chance, chance == best, told)


@dataclass(frozen=True)
class JudgedLabels(TextLabels):
    """The labels, and a judge of texts learned beside what guides."""

    judge: NgramJudge = field(default_factory=lambda: NgramJudge([], {}))

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        found = super().from_data(data)
        texts, classes = zip(*found.labelled(data), strict=True)
        return replace(found, judge=NgramJudge.fit(texts, classes, len(found.known)))

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        """Weights of words from one half of the texts; the judge learns from the other half."""
        guide, check = data.halves()
        if not guide.sentences or not check.sentences:
            raise DataError("a guide and a judge need different texts, and there are too few.", where="--data")
        found = cls.from_data(check)
        return found, {BAG_FILE: found.bag(guide, vocabulary)}

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """The label at every word, of the texts of the half that guides."""
        found = zip(data.sentences, super().asks(data), strict=True)
        return [asked if guides(words) else [] for words, asked in found]

    def held_out(self, data: LabelledText) -> dict[str, float]:
        # In the other half labels may come from what the guide learned from.
        return {"judge_accuracy": self.judge.accuracy(self.labelled(data.halves()[1]))}

    def to_json(self) -> Any:
        return {**super().to_json(), "judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return replace(super().from_json(saved), judge=NgramJudge.from_json(saved["judge"]))

    def verdict(self, label: Value, words: Sequence[str]) -> Check:
        """The judge's verdict on a text, and the words that it was told by."""
        chances = self.judge.probabilities(words)
        found = verdict_of(label, self.known, chances, "its words and word pairs")
        likeliest = chances.index(max(chances))
        where = () if found.passed else self.judge.against(words, self.number(label), likeliest)
        marks = (Mark(*span, met=found.passed) for span in self.judge.telling(words, likeliest))
        return found._replace(where=where, marks=tuple(marks))
