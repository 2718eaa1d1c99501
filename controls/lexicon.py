"""Only words from a list, or with properties within bounds: for all words, those with a tag, or some positions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictInt, model_validator

from dlmctl import BatchContext, Check, Control, ControlParams, Mark, Prepared, Pretrained, RecipeError
from dlmctl.annotators.word_selection import Where, selected_places
from dlmctl.control.allowed import Allowed
from dlmctl.control.automata import Requirement, alphabet_of, exact_control
from dlmctl.control.evidence.beside import count_table_of, evidence_file, fingerprint_of
from dlmctl.control.evidence.tags import TAGS_FILE
from dlmctl.control.properties import Exchanged
from dlmctl.control.warn_once import warn_once
from dlmctl.errors import did_you_mean
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.word_counts import WordCounts, load_counts
from dlmctl.text.word_properties import BUILT_IN

from .function_words import is_function_word
from .lexicon_of_tokens import lexicon_of_tokens
from .phrases import ANY_NUMBER
from .word_bounds import MAX_NAMED, WordFilter, bounds_of, describe_bound, word_filter
from .word_lists import MAX_ROWS, Value

Bools = NDArray[np.bool_]
# A tag with a smaller share of a word's occurrences is taken for a mistake of the tagger.
MIN_SHARE = 0.02
# What is a file rather than a word.
_FILE_NAME = re.compile(r"\.(txt|csv|tsv)$", re.IGNORECASE)
# More than the words of any text.
MAX_MIN_WORDS = 1000


class LexiconParams(ControlParams):
    """The words of a lexicon; any other key is a property of words with its bounds."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"letters": [3, 5]}]})
    # In a table of targets any other key may have numbers or names; see ``read_params``.
    numbers_beyond_fields: ClassVar[bool] = True

    words: list[str] | None = Field(
        default=None, min_length=1, max_length=MAX_ROWS, description="the words that may occur"
    )
    file: str | None = Field(
        default=None, min_length=1, max_length=1000, description="a file with these words, one on each line"
    )
    table: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="a CSV or TSV file with one row per word; any of its columns can have bounds: "
        "`concreteness: [4, 5]`, `frequency: [10, null]`, `level: [A1, A2]`. Without a table the properties are "
        f"{', '.join(BUILT_IN)}",
    )
    word: str = Field(default="word", max_length=1000, description="the table's column with the word")
    where: Where | None = Field(
        default=None, description="only words with these tags or at these places must fit; if not given, all words"
    )
    min_words: StrictInt = Field(
        default=0,
        ge=0,
        le=MAX_MIN_WORDS,
        description="how many words a text must have that are checked; with 0, a text without any passes",
    )
    function_words: bool | None = Field(
        default=None,
        description="whether function words and punctuation always pass; true if not given, but false under `where`",
    )

    reads: ClassVar[Sequence[str]] = ("file", "table")

    @model_validator(mode="after")
    def _require_condition(self) -> LexiconParams:
        bounds = self.bounds
        for name, bound in bounds.items():
            if isinstance(bound, frozenset) and self.table is None and name in BUILT_IN:
                shown = describe_bound(bound)
                raise ValueError(f"{name!r} is a number and its bounds are given as `{name}: [3, 5]`, not {shown!r}")
        if self.words is not None and self.file is not None:
            raise ValueError("`words` and `file` both list words; give one of them")
        if self.words is not None and len(self.words) == 1 and _FILE_NAME.search(self.words[0]):
            raise ValueError(f"a list in a file is given as `file: {self.words[0][:80]}`, a table of words as `table`")
        if not bounds and self.table is not None:
            raise ValueError("a table needs bounds for one of its columns, such as `concreteness: [4, 5]`")
        if not bounds and self.words is None and self.file is None:
            raise ValueError("give `words`, a `file`, or bounds for a property, such as `letters: [3, 5]`")
        unknown = [name for name in bounds if self.table is None and name not in BUILT_IN]
        if unknown:
            known = [*BUILT_IN, *type(self).model_fields]
            raise ValueError(
                f"without a table there is no property {unknown[0][:40]!r}. {did_you_mean(unknown[0], known)}"
            )
        return self

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds of each property, by name."""
        return {name: bounds_of(name, value) for name, value in (self.model_extra or {}).items()}

    @property
    def lets_function_words_pass(self) -> bool:
        if self.function_words is not None:
            return self.function_words
        return self.where is None  # words that are selected explicitly must all fit


class Lexicon(Control[LexiconParams]):
    """Restricts the words of a text to a list or to bounds on their properties; exact for all words and for places.

    For words with a tag, those are excluded that do not fit but may have the tag, according to the model's counts. The
    check takes the tags of the finished words from an independent tagger.
    """

    name = "lexicon"
    Params = LexiconParams

    def __init__(self, *args: Any, **params: Any) -> None:
        super().__init__(*args, **params)
        self.counts: WordCounts | None = None
        self._filters: dict[str, WordFilter] = {}
        # For samples of matched sets: positions of words that must fit whatever their tag is there.
        self._exchanged: dict[int, Sequence[int]] = {}

    def word_range(self, params: LexiconParams) -> tuple[int, int]:
        """Any number of words, but a fixed one, with room for the places and the words to check."""
        return max(1, params.min_words, params.where.fewest if params.where is not None else 1), ANY_NUMBER

    def attach(self, model: Pretrained) -> None:
        self.counts = load_counts(model.folder)
        self._filters = {}

    def prepare(self, batch: BatchContext[LexiconParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return exact_control(batch, [self._over_tokens(params, batch.vocabulary) for params in batch.params])
        names = alphabet_of(batch.vocabulary).words
        is_word = np.array([name is not None for name in names])
        always_pass = _always_pass(batch.vocabulary)
        allowed: dict[str, Bools] = {}
        for params in batch.params:
            if (key := params.model_dump_json()) not in allowed:
                allowed[key] = self._allowed(params, names, batch) | (
                    always_pass if params.lets_function_words_pass else ~is_word
                )
        banned = _banned([allowed[params.model_dump_json()] for params in batch.params], batch)
        exchanged = {row: at for row, draw in enumerate(batch.draws) if (at := self._exchanged.get(draw.sample))}
        if exchanged:
            banned = np.repeat(banned, batch.length // banned.shape[1], 1)
        for row, positions in exchanged.items():
            params = batch.params[row]
            fits = _fitting(self._filter(params), batch.vocabulary) | (always_pass & bool(params.function_words))
            banned[row, [position + 1 for position in positions]] |= ~fits
        return AllowedWords(torch.from_numpy(banned).to(batch.device))

    def _over_tokens(self, params: LexiconParams, tokenizer: HuggingFaceTokenizer) -> Requirement:
        """What a text needs on a model whose tokens are parts of words.

        Raises:
            RecipeError: only some words are selected, or as ``lexicon_of_tokens``.
        """
        if params.where is not None:
            what = "`where` selects among whole words, and this model writes pieces of words."
            raise RecipeError(what, where=self.name, remedy="Leave it out: then all words must fit.")
        passes = params.lets_function_words_pass
        return lexicon_of_tokens(self._filter(params), passes, params.min_words, tokenizer)

    def _allowed(self, params: LexiconParams, names: Sequence[str | None], batch: BatchContext[LexiconParams]) -> Bools:
        """Which words ``[V]`` are allowed where the control applies, apart from function words.

        Raises:
            RecipeError: no word is left, or the model lacks the required counts by tag.
        """
        words = self._filter(params)
        unmet = words.missing_words([name for name in names if name is not None], batch.vocabulary.split)
        if unmet is not None:
            warn_once(f"lexicon: {unmet}")
        fits = _fitting(words, batch.vocabulary)
        if params.where is None or params.where.tag is None:
            if not fits.any():
                raise words.no_word_left([name for name in names if name is not None])
            return fits
        has_tag = _may_have_tag(params.where.tags, batch)
        if not (fits & has_tag).any():
            tagged = [name for name, tag in zip(names, has_tag, strict=True) if tag and name is not None]
            raise words.no_word_left(tagged)
        return fits | ~has_tag

    def _filter(self, params: LexiconParams) -> WordFilter:
        key = params.model_dump_json()
        if key not in self._filters:
            self._filters[key] = word_filter(
                params.words, params.file, (params.table, params.word), params.bounds, self.counts
            )
        return self._filters[key]

    def check_many(self, params: Sequence[LexiconParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """The share of the selected words that fit; tags are those of an independent tagger."""
        selecting = [row for row, target in enumerate(params) if target.where is not None]
        wheres = [target.where for target in params if target.where is not None]
        selected = dict(zip(selecting, selected_places(wheres, [texts[row] for row in selecting]), strict=True))
        checks = []
        for row, (target, words) in enumerate(zip(params, texts, strict=True)):
            checks.append(self._verdict(target, words, selected.get(row, list(range(len(words))))))
        return checks

    def _verdict(self, params: LexiconParams, words: Sequence[str], selected: Sequence[int]) -> Check:
        if params.where is not None and len(words) < params.where.fewest:
            return Check(0.0, False, f"{len(words)} words, and none at some of the places")
        passes = params.lets_function_words_pass
        judged = [at for at in selected if not (passes and is_function_word(words[at], words[at - 1] if at else ""))]
        faults = {at: fault for at in judged if (fault := self._filter(params).fault(words[at])) is not None}
        marks = tuple(Mark(at, at, self._short_properties(params, words[at]), at not in faults) for at in judged)
        if not faults and len(judged) < params.min_words:
            why = f"{len(judged)} of at least {params.min_words} words to judge"
            return Check(len(judged) / params.min_words, False, why, marks=marks)
        if not faults:
            why = "1 word, and it fits" if len(judged) == 1 else f"{len(judged)} words, and all fit"
            return Check(1.0, True, why if judged else "no word to judge", marks=marks)
        reasons = [f"{words[at]!r} {fault}" for at, fault in list(faults.items())[:MAX_NAMED]]
        return Check(1 - len(faults) / len(judged), False, ", ".join(reasons), tuple(faults), marks)

    def _short_properties(self, params: LexiconParams, word: str) -> str:
        """The properties of a word as a short string."""
        values = self._filter(params).properties(word).values()
        return ", ".join(
            "?" if value is None else f"{value:,.4g}" if isinstance(value, float) else value for value in values
        )

    def properties_of(self, params: LexiconParams, word: str) -> dict[str, Value]:
        """The properties of a word that have bounds; None for an unknown one."""
        return self._filter(params).properties(word)

    def hold_exchanged(self, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
        """Require fitting words at the places of some samples, if the control applies to all of ``tags``."""
        for sample, at in places.items():
            where = self.dealt(sample).where
            self._exchanged[sample] = at if where is not None and tags and tags <= where.tags else ()

    def fault_of(self, params: LexiconParams, exchanged: Exchanged) -> str | None:
        """Why an exchanged word does not fit; if the control applies to its tag, it must fit whatever the tagger reads
        there.

        Function words fit only if ``function_words`` says so.
        """
        if params.function_words and is_function_word(exchanged.word):
            return None
        where = params.where
        if where is not None and where.place is None and not (exchanged.tags and exchanged.tags <= where.tags):
            return None
        if where is not None and where.place is not None and exchanged.place not in where.at(exchanged.length):
            return None
        return self._filter(params).fault(exchanged.word)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[LexiconParams]:
        """The words of each sentence."""
        return [LexiconParams(words=sorted(set(words))) for words in sentences]


class AllowedWords(Allowed):
    """Holds the selected positions of each row to the words that comply."""

    def negated(self) -> Prepared | None:
        """A word that does not comply, if no row has several positions; with several it may be at any of them."""
        is_selected = self.banned.any(-1)
        if self.banned.shape[1] == 1 or (is_selected.sum(1) > 1).any():
            return None
        return Allowed(is_selected[..., None] & ~self.banned)


@lru_cache(maxsize=64)
def _fitting(words: WordFilter, vocabulary: Tokenizer) -> Bools:
    """Which words ``[V]`` satisfy the parameters of a filter, whatever their tag."""
    return np.array([name is not None and words.fault(name) is None for name in alphabet_of(vocabulary).words])


@lru_cache(maxsize=2)
def _always_pass(vocabulary: Tokenizer) -> Bools:
    """Which tokens ``[V]`` are function words or not words at all."""
    return np.array([name is None or is_function_word(name) for name in alphabet_of(vocabulary).words])


def _may_have_tag(tags: Collection[str], batch: BatchContext[LexiconParams]) -> Bools:
    """Which words ``[V]`` were counted with one of the tags; words without counts may have any tag.

    Raises:
        RecipeError: the model has no counts of words by tag.
        ModelError: the counts are damaged.
    """
    path = evidence_file(batch, "pos", TAGS_FILE)
    if path is None:
        what = "the model has no counts of words by tag, which `where: {tag: ...}` needs."
        raise RecipeError(what, where="lexicon", remedy="Name the words by their `place` instead.")
    table = count_table_of(path, fingerprint_of(batch.vocabulary))
    counts = table.marginal(1)
    with_tags = counts[:, [tag in tags for tag in table.axes[1]]].sum(1)
    may_have_tag: Bools = with_tags >= MIN_SHARE * counts.sum(1)
    return may_have_tag


def _banned(rows: Sequence[Bools], batch: BatchContext[LexiconParams]) -> Bools:
    """The complement of each row's allowed words ``[V]``, at the selected positions.

    Raises:
        RecipeError: places are counted from the end of a text whose number of words is not fixed.
    """
    if all(not params.where or params.where.place is None for params in batch.params):
        return ~np.stack(rows)[:, None]
    banned = np.zeros((len(rows), batch.length, len(rows[0])), bool)
    for row, (allowed, params, layout) in enumerate(zip(rows, batch.params, batch.layouts, strict=True)):
        if params.where is None or params.where.place is None:
            banned[row, :] = ~allowed
            continue
        if layout.words is None and min(params.where.places) < 0:
            what = "places from the end need a fixed number of words, which there is not under `any` and `not`."
            raise RecipeError(what, where="lexicon", remedy="Give `length` too, or count from the beginning.")
        count = layout.positions - 2 if layout.words is None else layout.words
        banned[row, [position + 1 for position in params.where.at(count)]] = ~allowed
    return banned
