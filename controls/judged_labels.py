"""What is learned for ``classifier``: the labels of one field, the guide, and a judge trained on separate texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Self

from dlmctl import Check, DataError, LabelledText, Mark, TextLabels
from dlmctl.control.evidence.beside import EvidenceFiles
from dlmctl.control.hints import HintRequest
from dlmctl.control.labels import is_guide_half
from dlmctl.control.text_labels import BAG_FILE, find_label
from dlmctl.errors import first_few
from dlmctl.text.fields import Value
from dlmctl.text.spelling import detokenize
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

from .ngrams import NO_RANKS, NgramJudge

log = logging.getLogger("dlmctl")
# Weight, in texts, of the model's own lengths next to those of a label, so that a few texts do not decide alone.
OWN_TEXTS = 50
# With fewer held-out texts of a label the quality of its judge is unknown.
FEW_TEXTS = 10
# Most labels that a warning lists.
MOST_LISTED = 5
# A label with fewer texts than this counts less for its judge than others, proportionally.
LEAST_TEXTS = 10
# A label with less than so many times the texts of another has about as many.
ABOUT_AS_MANY = 1.5
# The bound for judges that know texts without a label.
LIKELIER_THAN_NOT = 0.5


def ranks_of(vocabulary: Tokenizer) -> Mapping[str, int]:
    """The ranks of a model's words for ``NgramJudge``; none for tokens, whose order says nothing of words."""
    return vocabulary.vocabulary if isinstance(vocabulary, WordTokenizer) else NO_RANKS


def _warn_of_untested_labels(texts: Mapping[str, int]) -> None:
    """Warn of labels with too few held-out texts to test their judge; ``texts`` is the number by label."""
    few = sorted((count, label) for label, count in texts.items() if count < FEW_TEXTS)
    if few:
        what = "how good the judge is at these is not known, as few held-out texts have them"
        listed = first_few([f"{label!r} ({count})" for count, label in few], MOST_LISTED)
        log.warning("dlmctl: %s: %s. `dlmctl data prepare --valid-share` holds out more.", what, listed)


def _warn_of_several_labels(rows: Iterable[tuple[Sequence[str], str]]) -> None:
    """Warn of texts that occur with different labels, each text with its label."""
    labels_of: dict[tuple[str, ...], set[str]] = {}
    for words, label in rows:
        labels_of.setdefault(tuple(words), set()).add(label)
    several = [(words, labels) for words, labels in labels_of.items() if len(labels) > 1]
    if several:
        (words, labels), what = several[0], "texts have several labels, and are learned as examples of each"
        example = f"{detokenize(words)[:60]!r} is {first_few(sorted(map(repr, labels)), MOST_LISTED)}"
        log.warning("dlmctl: %d of %d different %s: %s.", len(several), len(labels_of), what, example)


def verdict_of(
    label: Value, known: Sequence[str], probabilities: Sequence[float], judge: str, least: float | None = None
) -> Check:
    """Passed if the probability of the wanted label is at least ``least``; without that, if no label is likelier, or if
    the probability of no label is known, if the wanted one is likelier than not.

    Args:
        known: the labels.
        probabilities: the probability of each label, followed by that of no label if it is known.
        judge: description of the judge, for the message.
    """
    probability, best = probabilities[find_label(label, known)], max(probabilities)
    likeliest = probabilities.index(best)
    what = repr(known[likeliest]) if likeliest < len(known) else "to have no label"
    why = f"by {judge} told {what} with probability {best:.2f}"
    if least is not None:
        passed, bound = probability >= least, f"at least {least:g}"
    elif len(probabilities) == len(known):
        return Check(probability, probability == best, why)
    else:
        passed, bound = probability > LIKELIER_THAN_NOT, f"over {LIKELIER_THAN_NOT}"
    if passed:
        return Check(probability, True, why)
    # With enough digits to tell it from the bound.
    candidates = (f"{probability:.{digits}f}" for digits in range(2, 9))
    limit = LIKELIER_THAN_NOT if least is None else least
    shown = next((text for text in candidates if float(text) < limit), f"{probability:g}")
    return Check(probability, False, f"{why}; the label asked for must be {bound}, it is {shown}")


@dataclass(frozen=True)
class JudgedLabels(TextLabels):
    """The labels, the lengths of texts with each, and a judge of texts learned next to the guide.

    Attributes:
        judge: its classes are the labels and, if some of its texts had none of them, "no label" as the last.
        lengths: for each label how many texts have 0, 1, ... words; empty if not counted.
    """

    judge: NgramJudge = field(default_factory=lambda: NgramJudge([], {}))
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        labels = super().from_data(data)
        _warn_of_several_labels(labels.named(data))
        return labels._with_judge(data, data)

    def _with_judge(self, check: LabelledText, guide: LabelledText, ranks: Mapping[str, int] = NO_RANKS) -> Self:
        """The same labels with a judge learned from the texts of ``check``, and lengths counted in ``guide``."""
        rows = self.labelled(check)
        rows += self.without_label(check, max(Counter(number for _, number in rows).values()))
        texts, classes = zip(*rows, strict=True)
        judge = NgramJudge.fit(texts, classes, 1 + max(classes), ranks, self._shares(classes))
        return replace(self, judge=judge, lengths=self.counted_lengths(guide))

    def named(self, data: LabelledText) -> list[tuple[Sequence[str], str]]:
        """The texts that have a label, each with its label."""
        return [(words, self.known[number]) for words, number in self.labelled(data)]

    def _shares(self, classes: Sequence[int]) -> list[float] | None:
        """How much each text counts for the judge, 1 on average: all labels alike, however many texts they have, and a
        text without a label as much as one of the commonest label. None if labels have about as many texts each, and
        texts count alike."""
        counts = Counter(classes)
        most = max(count for number, count in counts.items() if number < len(self.known))
        share = {
            number: 1 / max(LEAST_TEXTS, count if number < len(self.known) else most)
            for number, count in counts.items()
        }
        if max(share.values()) < ABOUT_AS_MANY * min(share.values()):
            return None
        mean = sum(share[number] for number in classes) / len(classes)
        return [share[number] / mean for number in classes]

    def without_label(self, data: LabelledText, most: int) -> list[tuple[Sequence[str], int]]:
        """Up to ``most`` texts without a label, evenly spaced, each with the class after the last label."""
        no_label = len(self.known)
        rows = zip(data.sentences, self.labels(data), strict=True)
        unlabelled = [words for words, (number,) in rows if number == no_label]
        count = min(most, len(unlabelled))
        return [(unlabelled[at * len(unlabelled) // count], no_label) for at in range(count)]

    def counted_lengths(self, data: LabelledText) -> dict[str, list[int]]:
        """How many texts of each label have 0, 1, ... words."""
        seen = Counter((number, len(words)) for words, number in self.labelled(data))
        most = max(count for _, count in seen)
        return {label: [seen[number, count] for count in range(most + 1)] for number, label in enumerate(self.known)}

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: Tokenizer) -> tuple[Self, EvidenceFiles]:
        """Weights of words or tokens from one half of the texts; the judge learns from the other half.

        A label without texts in one of the halves could not be guided to, or not be judged, and is left out.

        Raises:
            DataError: as ``from_data``, or fewer than two labels have texts in both halves.
        """
        whole = super().from_data(data)
        guide, check = data.halves()
        labels_of_halves = [{number for _, number in whole.labelled(half)} for half in (guide, check)]
        shared = [label for number, label in enumerate(whole.known) if all(number in half for half in labels_of_halves)]
        if len(shared) < 2:
            what = "a guide and a judge need different texts of two labels or more, but there are too few."
            raise DataError(what, where="--data")
        if dropped := sorted(set(whole.known) - set(shared)):
            what = "left out, as too few different texts have them for a guide and a judge"
            log.warning("dlmctl: %s: %s.", what, first_few(list(map(repr, dropped)), MOST_LISTED))
        (name,) = whole.values
        _warn_of_several_labels(whole.named(data))
        labels = replace(whole, values={name: shared})._with_judge(check, guide, ranks_of(vocabulary))
        return labels, {BAG_FILE: labels.bag(guide, vocabulary)}

    def counted_texts(self, data: LabelledText) -> int:
        """The number of labelled texts in the half for the guide."""
        return super().counted_texts(data.halves()[0])

    def asks(self, data: LabelledText) -> list[list[HintRequest]]:
        """The label at every word, for texts in the half for the guide."""
        pairs = zip(data.sentences, super().asks(data), strict=True)
        return [asks if is_guide_half(words) else [] for words, asks in pairs]

    def held_out(self, data: LabelledText) -> dict[str, Any]:
        # In the other half labels may come from the texts that the guide learned from.
        half = data.halves()[1]
        rows, unlabelled = self.labelled(half), self.without_label(half, len(half.sentences))
        figures = self._judge_figures(rows)
        if not unlabelled or len(self.judge.bias) == len(self.known):
            return figures
        passed = [self.judge.probabilities(words)[number] > LIKELIER_THAN_NOT for words, number in rows]
        by_mistake = [max(self.judge.probabilities(words)[:-1]) > LIKELIER_THAN_NOT for words, _ in unlabelled]
        passes = {"judge_passes": sum(passed) / len(passed)} if passed else {}
        return {**figures, **passes, "judge_passes_unlabelled": sum(by_mistake) / len(by_mistake)}

    def _judge_figures(self, rows: Sequence[tuple[Sequence[str], int]]) -> dict[str, Any]:
        """How often the judge is right on held-out labelled texts, overall and by label: if one label has nearly all
        texts, the overall figure says nothing about the others."""
        count = len(self.known)
        by_label: dict[str, list[tuple[Sequence[str], int]]] = {label: [] for label in self.known}
        for words, number in rows:
            by_label[self.known[number]].append((words, number))
        texts = {label: len(label_rows) for label, label_rows in by_label.items()}
        _warn_of_untested_labels(texts)
        if not rows:
            return {"judge_texts": texts}
        recall = {label: self.judge.accuracy(label_rows, count) for label, label_rows in by_label.items() if label_rows}
        return {"judge_accuracy": self.judge.accuracy(rows, count), "judge_recall": recall, "judge_texts": texts}

    def to_json(self) -> Any:
        return {**super().to_json(), "lengths": dict(self.lengths), "judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        counts_by_label = saved.get("lengths", {}).items()
        lengths = {str(label): [max(0, int(count)) for count in counts] for label, counts in counts_by_label}
        return replace(super().from_json(saved), judge=NgramJudge.from_json(saved["judge"]), lengths=lengths)

    def lengths_of(self, label: Value, own: Sequence[int], most: int) -> list[float]:
        """How often texts of a label have 0 to ``most`` words, with 0 for lengths that the model never writes.

        Args:
            own: how often texts of the model's training set have 0, 1, ... words.
        """
        counts = self.lengths.get(self.known[self.number(label)])
        if counts is None:
            return []
        share = OWN_TEXTS / max(1, sum(own))
        pairs = zip_longest(own[: most + 1], counts[: len(own)], fillvalue=0)
        return [label_count + share * own_count if own_count else 0.0 for own_count, label_count in pairs]

    def verdict(self, label: Value, words: Sequence[str], least: float | None = None) -> Check:
        """The judge's verdict on a text (``verdict_of``), with marks on the words that decided it."""
        probabilities, wanted = self.judge.probabilities(words), self.number(label)
        check = verdict_of(label, self.known, probabilities, "its words", least)
        order = sorted(range(len(probabilities)), key=lambda number: -probabilities[number])
        rival = next((number for number in order if number != wanted), wanted)
        where = () if check.passed else self.judge.words_against(words, wanted, rival)
        marks = (Mark(*span, met=order[0] == wanted) for span in self.judge.spans_for(words, order[0]))
        return check._replace(where=where, marks=tuple(marks))
