"""Words and phrases that a text must contain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared, Pretrained
from dlmctl.control.automata import Requirement, exact_control
from dlmctl.control.warn_once import warn_once
from dlmctl.text.spelling import plain
from dlmctl.text.word_counts import WordCounts, load_counts

from .phrases import ANY_NUMBER, Phrases, Split, WordControl, check_rank, occurrences, phrase_list, split_phrases

# A word is seldom capitalised if it is so many times as frequent in lower case: Kitchen and Water are; Green, Rose and
# May, which are names, too, are not.
SELDOM = 10


class ContainsParams(ControlParams):
    """The required words and phrases."""

    words: Phrases = Field(
        max_length=100,
        description="words or phrases that must each occur, in any order; matched as whole words and case-sensitively",
        examples=[["children", "river"]],
    )


class Contains(WordControl[ContainsParams]):
    """Guarantees that every text contains the phrases, also in combination with other controls."""

    name = "contains"
    Params = ContainsParams

    def __init__(self, *phrases: str | Iterable[str], **params: Any) -> None:
        """One or several phrases, or a list of them."""
        super().__init__(**({"words": phrase_list(phrases)} if phrases else {}), **params)

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        words = dict.fromkeys(word for params in self.sets for word in params.words if word[:1].isupper())
        if any(word.istitle() for word in words):
            _warn_of_capitals(words, load_counts(model.folder))

    def phrases(self, params: ContainsParams, split: Split) -> list[list[str]]:
        """The words of each phrase, longest phrase first, without phrases that are part of another."""
        phrases = sorted(split_phrases(list(dict.fromkeys(params.words)), split), key=len, reverse=True)
        return [p for at, p in enumerate(phrases) if not any(occurrences(other, p) for other in phrases[:at])]

    def word_range(self, params: ContainsParams) -> tuple[int, int]:
        return _fewest_words(self.phrases(params, self.forms[0])), ANY_NUMBER

    def prepare(self, batch: BatchContext[ContainsParams]) -> Prepared:
        return exact_control(batch, [self._requirement(params) for params in batch.params])

    def _requirement(self, params: ContainsParams) -> Requirement:
        phrases = tuple(map(tuple, self.phrases(params, self.forms[0])))
        words = tuple(itertools.chain(*phrases))
        return Requirement(self.name, phrases, words, phrases=phrases, written=tuple(params.words))

    def check(self, params: ContainsParams, words: Sequence[str]) -> Check:
        """The share of the phrases that occur."""
        return max((_verdict(self.phrases(params, split), words) for split in self.forms), key=check_rank)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[ContainsParams]:
        """The two longest words of each sentence."""
        return [ContainsParams(words=sorted(dict.fromkeys(words), key=len, reverse=True)[:2]) for words in sentences]


def _warn_of_capitals(words: Iterable[str], counts: WordCounts | None) -> None:
    """Warn of words that are seldom capitalised, as in a list of words whose cells begin with a capital."""
    known = {} if counts is None else counts.counts
    common = {word: known.get(word.lower(), 0) / known[word] for word in words if word in known}
    seldom = {word: ratio for word, ratio in common.items() if ratio >= SELDOM}
    if seldom:
        first, *others = seldom
        like = f", like {', '.join(map(repr, others[:3]))}{', ...' if others[3:] else ''}," if others else ""
        warn_once(
            f"contains: {first!r}{like} has a capital, as at the start of a sentence; {first.lower()!r} is "
            f"{seldom[first]:.0f} times as frequent."
        )


def _fewest_words(phrases: Sequence[Sequence[str]]) -> int:
    """Lower bound on the number of words of a text with these phrases. A phrase may begin with the words that another
    ends with, as in "the old man" for `the old` and `old man`; the bound counts every overlap, even if not all of them
    are possible at once."""
    shared = [max((_overlap(other, p) for other in phrases if other is not p), default=0) for p in phrases]
    return sum(map(len, phrases)) - sum(shared) + min(shared)  # nothing precedes the first phrase


def _overlap(before: Sequence[str], after: Sequence[str]) -> int:
    """The most words shared by the end of one phrase and the beginning of another, short of a whole phrase."""
    first, second = [plain(word) for word in before], [plain(word) for word in after]
    longest = min(len(first), len(second)) - 1
    return next((size for size in range(longest, 0, -1) if first[-size:] == second[:size]), 0)


def _verdict(phrases: Sequence[Sequence[str]], words: Sequence[str]) -> Check:
    missing = [" ".join(phrase) for phrase in phrases if not occurrences(words, phrase)]
    why = f"without {', '.join(map(repr, missing))}" if missing else "all there"
    marks = [Mark(at, at + len(phrase) - 1) for phrase in phrases for at in occurrences(words, phrase)]
    marks += [Mark(None, None, met=False, wanted=phrase) for phrase in missing]
    return Check(1 - len(missing) / len(phrases), not missing, why, marks=tuple(marks))
