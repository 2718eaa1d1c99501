"""Words and phrases as controls name them: what ``contains``, ``avoid``, ``infill`` and ``pattern`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.automata import exact_control, pattern_requirement
from dlmctl.control.automata.syntax import Node, word_range
from dlmctl.control.base import Control
from dlmctl.control.check import Check
from dlmctl.control.prepared import MissingMember, Prepared
from dlmctl.control.state import BatchContext, P
from dlmctl.errors import RecipeError
from dlmctl.text.spelling import plain, split_words
from dlmctl.text.tokenizer import SPLITS

# Of words; the model's own limit is below it.
ANY_NUMBER = 1_000_000
# Words or phrases that one control may name, and characters of one.
MOST_PHRASES, MOST_CHARACTERS = 1000, 500

Split = Callable[[str], list[str]]


def _with_words(phrases: list[str]) -> list[str]:
    try:
        split_phrases(phrases)
    except RecipeError as error:
        raise ValueError(error.what.rstrip(".")) from None
    return phrases


def _one_or_list(value: Any, info: ValidationInfo) -> Any:
    """A single phrase as a list of it, but not from a cell of a table, whose text may be a list itself."""
    cells = (info.context or {}).get("cells", False)
    return [value] if isinstance(value, str) and not cells else value


# What a recipe gives of words and phrases.
Phrases = Annotated[list[str], Field(min_length=1), BeforeValidator(_one_or_list), AfterValidator(_with_words)]


def listed(phrases: Sequence[str | Sequence[str]]) -> list[Any]:
    """Phrases as they are given in Python, one by one or in a list."""
    alone = phrases[0] if len(phrases) == 1 else ""
    return list(phrases) if isinstance(alone, str) or not isinstance(alone, Sequence) else list(alone)


def split_phrases(phrases: Sequence[str], split: Split = split_words) -> list[list[str]]:
    """The words of each phrase, split as a tokeniser splits raw text.

    Raises:
        RecipeError: a phrase has no words, as one of the control tokens of a model, or so many that it is none.
    """
    for phrase in phrases:
        if len(phrase) > MOST_CHARACTERS:
            raise RecipeError(f"a phrase has {len(phrase)} characters, and at most {MOST_CHARACTERS} are read.")
        if not split(phrase):
            raise RecipeError(f"{phrase!r} holds no word.")
    return [split(phrase) for phrase in phrases]


Item = TypeVar("Item", str, int)


def occurrences(words: Sequence[Item], phrase: Sequence[Item]) -> list[int]:
    """Where a phrase starts in a text, counted from 0; both as words, or both as ids."""
    found, wanted = ([plain(one) if isinstance(one, str) else one for one in some] for some in (words, phrase))
    return [at for at in range(len(found) - len(wanted) + 1) if found[at : at + len(wanted)] == wanted]


class WordControl(Control[P]):
    """Base of controls that speak of words: the model's must be whole ones, and text is split as its own is.

    Attributes:
        splits: how what is asked may be split into words: as by the model that it was attached to. Where it was not,
            the words to be judged may be those of any model, so that each way counts.
    """

    splits: tuple[Split, ...] = tuple(SPLITS.values())

    @property
    def split(self) -> Split:
        return self.splits[0]

    def checks_aside(self) -> bool:
        return True

    def attach(self, model: Pretrained) -> None:
        self.splits = (model.tokenizer.split,)


def standing(check: Check) -> tuple[bool, float]:
    """How well a text stands by a verdict, to compare those of several ways to split what is asked."""
    return check.passed, check.score


class TreeControl(WordControl[P]):
    """Base of controls that hold the whole text to a pattern, exactly."""

    def tree(self, params: P, split: Split) -> Node:
        """The pattern, its words split so."""
        raise MissingMember

    def word_range(self, params: P) -> tuple[int, int]:
        least, most = word_range(self.tree(params, self.split))
        return max(1, least), ANY_NUMBER if most is None else most

    def prepare(self, batch: BatchContext[P]) -> Prepared:
        return exact_control(
            batch, [pattern_requirement(self.name, self.tree(params, self.split)) for params in batch.params]
        )
