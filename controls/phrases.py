"""Words and phrases in parameters: shared code of ``contains``, ``avoid``, ``infill``, ``pattern`` and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.automata import Requirement, exact_control, pattern_requirement
from dlmctl.control.automata.syntax import Node, word_range
from dlmctl.control.base import Control
from dlmctl.control.check import Check
from dlmctl.control.prepared import MissingMember, Prepared
from dlmctl.control.state import BatchContext, P
from dlmctl.errors import RecipeError
from dlmctl.text.plain_values import plain_value
from dlmctl.text.spelling import plain, split_inside, split_words
from dlmctl.text.tokenizer import SPLITS

# Upper bound on words where there is none; the model's own limit is lower.
ANY_NUMBER = 1_000_000
# The most phrases of a control, and characters of a phrase.
MAX_PHRASES, MAX_CHARACTERS = 1000, 500

Split = Callable[[str], list[str]]


def _require_words(phrases: list[str]) -> list[str]:
    try:
        split_phrases(phrases)
    except RecipeError as error:
        raise ValueError(error.what.rstrip(".")) from None
    return phrases


def _one_or_list(value: Any, info: ValidationInfo) -> Any:
    """Wrap a single phrase in a list, but not the cell of a table, whose text may be a list itself."""
    is_cell = (info.context or {}).get("cells", False)
    return [value] if isinstance(value, str) and not is_cell else value


# Type of a parameter with words and phrases.
Phrases = Annotated[list[str], Field(min_length=1), BeforeValidator(_one_or_list), AfterValidator(_require_words)]


def phrase_list(phrases: Sequence[str | Iterable[str]]) -> list[Any]:
    """Positional arguments as a list of phrases: several phrases, or one list of them."""
    phrases = plain_value(tuple(phrases))
    single = phrases[0] if len(phrases) == 1 else ""
    return list(single) if isinstance(single, Iterable) and not isinstance(single, str | Mapping) else list(phrases)


def split_phrases(phrases: Sequence[str], split: Split = split_words) -> list[list[str]]:
    """The words of each phrase, split as a tokeniser splits raw text.

    Raises:
        RecipeError: a phrase has no words, such as a control token of a model, or too many characters.
    """
    for phrase in phrases:
        if len(phrase) > MAX_CHARACTERS:
            raise RecipeError(f"a phrase has {len(phrase)} characters, but at most {MAX_CHARACTERS} are allowed.")
        if not split(phrase):
            raise RecipeError(f"{phrase!r} has no word.")
    return [split(phrase) for phrase in phrases]


Item = TypeVar("Item", str, int)


def occurrences(words: Sequence[Item], phrase: Sequence[Item]) -> list[int]:
    """The positions at which a phrase starts in a text, from 0; both as words, or both as ids."""
    text, wanted = ([plain(item) if isinstance(item, str) else item for item in items] for items in (words, phrase))
    return [at for at in range(len(text) - len(wanted) + 1) if text[at : at + len(wanted)] == wanted]


class WordControl(Control[P]):
    """Base of controls about words: the model must have whole words, and parameters are split into words like its text.

    Attributes:
        splits: the ways to split parameters into words: that of the attached model. Without one, the words to be
            checked may come from any model, so that all ways are tried.
    """

    splits: tuple[Split, ...] = tuple(SPLITS.values())

    @property
    def split(self) -> Split:
        return self.splits[0]

    @property
    def forms(self) -> tuple[Split, ...]:
        """How phrases may be split: as they are before other words, then as they are at the end of a text."""
        return tuple(form for split in self.splits for form in (partial(split_inside, split=split), split))

    def splittings(self, phrases: Sequence[str]) -> list[tuple[tuple[str, ...], ...]]:
        """The words of each phrase, by each of ``forms`` that splits them differently."""
        return list(dict.fromkeys(tuple(map(tuple, split_phrases(phrases, form))) for form in self.forms))

    def checks_aside(self) -> bool:
        return True

    def attach(self, model: Pretrained) -> None:
        self.splits = (model.tokenizer.split,)


def check_rank(check: Check) -> tuple[bool, float]:
    """Sort key of verdicts, to compare those of several ways to split the parameters."""
    return check.passed, check.score


class TreeControl(WordControl[P]):
    """Base of controls that make the whole text match a pattern, exactly."""

    def tree(self, params: P, split: Split) -> Node:
        """The pattern, with its words split by ``split``."""
        raise MissingMember

    def word_range(self, params: P) -> tuple[int, int]:
        least, most = word_range(self.tree(params, self.split))
        return max(1, least), ANY_NUMBER if most is None else most

    def prepare(self, batch: BatchContext[P]) -> Prepared:
        return exact_control(batch, [self._requirement(params) for params in batch.params])

    def _requirement(self, params: P) -> Requirement:
        written: list[str] = []

        def split(text: str) -> list[str]:
            written.append(text)
            return self.split(text)

        return pattern_requirement(self.name, self.tree(params, split), tuple(written))
