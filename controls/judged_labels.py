"""What is learned for ``classifier``: the labels of one field, what guides, and a judge from texts of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Self

from dlmctl import Check, DataError, LabelledText, Mark, TextLabels
from dlmctl.control.evidence.beside import Counted
from dlmctl.control.hints import Ask
from dlmctl.control.labels import guides
from dlmctl.control.text_labels import BAG_FILE, find_label
from dlmctl.text.fields import Value
from dlmctl.text.tokenizer import WordTokenizer

from .ngrams import NO_RANKS, NgramJudge

log = logging.getLogger("dlmctl")
# Texts of the model's own lengths that count beside those of a label, so that a few of these do not decide alone.
OWN_TEXTS = 50
# Held-out texts of a label below which nobody knows how good its judge is.
FEW_TEXTS = 10
# Of a judge that knows texts without a label: likelier than not.
SURE = 0.5


def _tell_of_untried(texts: Mapping[str, int]) -> None:
    """Warn of the labels, with the number of their held-out texts, whose judge is hardly tried."""
    few = sorted((count, label) for label, count in texts.items() if count < FEW_TEXTS)
    if few:
        shown = ", ".join(f"{label!r} ({count})" for count, label in few[:5])
        more = f" and {len(few) - 5} more labels" if len(few) > 5 else ""
        what = "how good the judge is at these is not known, as few held-out texts have them"
        log.warning("dlmctl: %s: %s%s.", what, shown, more)


def verdict_of(
    label: Value, known: Sequence[str], chances: Sequence[float], judge: str, least: float | None = None
) -> Check:
    """Passed if no label is likelier than the one wanted; where the chance of none of them is known, if the label is
    likelier than not; where a least probability is asked for, if it has that.

    Args:
        known: the labels, and of each its probability, ``chances``, followed by that of none of them where it is known.
        judge: who says so, for the message.
    """
    chance, best = chances[find_label(label, known)], max(chances)
    likeliest = chances.index(best)
    what = repr(known[likeliest]) if likeliest < len(known) else "to have no label"
    told = f"by {judge} told {what} with probability {best:.2f}"
    if least is not None:
        passed, bound = chance >= least, f"at least {least:g}"
    elif len(chances) == len(known):
        return Check(chance, chance == best, told)
    else:
        passed, bound = chance > SURE, f"over {SURE}"
    if passed:
        return Check(chance, True, told)
    # With as many figures as tell it from the bound.
    shown = (f"{chance:.{figures}f}" for figures in range(2, 9))
    short = next((one for one in shown if float(one) < (SURE if least is None else least)), f"{chance:g}")
    return Check(chance, False, f"{told}; the label asked for must be {bound}, it is {short}")


@dataclass(frozen=True)
class JudgedLabels(TextLabels):
    """The labels, how long texts of each are, and a judge of texts learned beside what guides.

    Attributes:
        judge: its classes are the labels and, if some of its texts had none of them, "no label" as the last.
        lengths: of each label how many texts have 0 words and more; empty where that was not counted.
    """

    judge: NgramJudge = field(default_factory=lambda: NgramJudge([], {}))
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        return super().from_data(data)._learned(data, data)

    def _learned(self, check: LabelledText, guide: LabelledText, ranks: Mapping[str, int] = NO_RANKS) -> Self:
        """The same labels with a judge from some texts, and how long texts of each are from those of the guide."""
        rows = self.labelled(check)
        rows += self.without_label(check, max(Counter(number for _, number in rows).values()))
        texts, classes = zip(*rows, strict=True)
        judge = NgramJudge.fit(texts, classes, 1 + max(classes), ranks)
        return replace(self, judge=judge, lengths=self.counted_lengths(guide))

    def without_label(self, data: LabelledText, most: int) -> list[tuple[Sequence[str], int]]:
        """The texts that have no label, at most so many, spread over all, each with the class after the last label."""
        none = len(self.known)
        found = [words for words, (number,) in zip(data.sentences, self.labels(data), strict=True) if number == none]
        taken = min(most, len(found))
        return [(found[at * len(found) // taken], none) for at in range(taken)]

    def counted_lengths(self, data: LabelledText) -> dict[str, list[int]]:
        """How many texts of each label have 0 words and more."""
        seen = Counter((number, len(words)) for words, number in self.labelled(data))
        most = max(count for _, count in seen)
        return {label: [seen[number, count] for count in range(most + 1)] for number, label in enumerate(self.known)}

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        """Weights of words from one half of the texts; the judge learns from the other half.

        A label that one of the halves lacks could not be guided to, or not be judged, and is left out.

        Raises:
            DataError: as ``from_data``, or fewer than two labels have texts in both halves.
        """
        whole = super().from_data(data)
        guide, check = data.halves()
        there = [{number for _, number in whole.labelled(half)} for half in (guide, check)]
        both = [label for number, label in enumerate(whole.known) if all(number in half for half in there)]
        if len(both) < 2:
            what = "a guide and a judge need different texts of two labels or more, and there are too few."
            raise DataError(what, where="--data")
        (name,) = whole.values
        found = replace(whole, values={name: both})._learned(check, guide, vocabulary.vocabulary)
        return found, {BAG_FILE: found.bag(guide, vocabulary)}

    def counted_texts(self, data: LabelledText) -> int:
        """Those that have a label, of the half that guides."""
        return super().counted_texts(data.halves()[0])

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """The label at every word, of the texts of the half that guides."""
        found = zip(data.sentences, super().asks(data), strict=True)
        return [asked if guides(words) else [] for words, asked in found]

    def held_out(self, data: LabelledText) -> dict[str, Any]:
        # In the other half labels may come from what the guide learned from.
        half = data.halves()[1]
        rows, unlabelled = self.labelled(half), self.without_label(half, len(half.sentences))
        found = self._judged(rows)
        if not unlabelled or len(self.judge.bias) == len(self.known):
            return found
        passed = [self.judge.probabilities(words)[number] > SURE for words, number in rows]
        by_mistake = [max(self.judge.probabilities(words)[:-1]) > SURE for words, _ in unlabelled]
        passes = {"judge_passes": sum(passed) / len(passed)} if passed else {}
        return {**found, **passes, "judge_passes_unlabelled": sum(by_mistake) / len(by_mistake)}

    def _judged(self, rows: Sequence[tuple[Sequence[str], int]]) -> dict[str, Any]:
        """How often the judge is right on held-out texts with a label, in all and of each label: where one label has
        nearly all of the texts, the first says nothing of the others."""
        count = len(self.known)
        of_label: dict[str, list[tuple[Sequence[str], int]]] = {label: [] for label in self.known}
        for words, number in rows:
            of_label[self.known[number]].append((words, number))
        texts = {label: len(some) for label, some in of_label.items()}
        _tell_of_untried(texts)
        if not rows:
            return {"judge_texts": texts}
        recall = {label: self.judge.accuracy(some, count) for label, some in of_label.items() if some}
        return {"judge_accuracy": self.judge.accuracy(rows, count), "judge_recall": recall, "judge_texts": texts}

    def to_json(self) -> Any:
        return {**super().to_json(), "lengths": dict(self.lengths), "judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        lengths = {str(label): [max(0, int(count)) for count in of] for label, of in saved.get("lengths", {}).items()}
        return replace(super().from_json(saved), judge=NgramJudge.from_json(saved["judge"]), lengths=lengths)

    def lengths_of(self, label: Value, own: Sequence[int], most: int) -> list[float]:
        """How often texts of a label have 0 to ``most`` words, none that the model itself does not write.

        Args:
            own: how often the model's training text has 0 words and more.
        """
        counts = self.lengths.get(self.known[self.number(label)])
        if counts is None:
            return []
        share = OWN_TEXTS / max(1, sum(own))
        pairs = zip_longest(own[: most + 1], counts[: len(own)], fillvalue=0)
        return [of_label + share * of_model if of_model else 0.0 for of_model, of_label in pairs]

    def verdict(self, label: Value, words: Sequence[str], least: float | None = None) -> Check:
        """The judge's verdict on a text (``verdict_of``), and the words that it was told by."""
        chances, wanted = self.judge.probabilities(words), self.number(label)
        found = verdict_of(label, self.known, chances, "its words", least)
        order = sorted(range(len(chances)), key=lambda number: -chances[number])
        rival = next((number for number in order if number != wanted), wanted)
        where = () if found.passed else self.judge.against(words, wanted, rival)
        marks = (Mark(*span, met=order[0] == wanted) for span in self.judge.telling(words, order[0]))
        return found._replace(where=where, marks=tuple(marks))
