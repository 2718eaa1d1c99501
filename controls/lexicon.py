"""Only words from a list, or words whose properties lie within bounds: anywhere, of a tag, or at places."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from dlmctl import BatchContext, Check, Control, ControlParams, Mark, Prepared, Pretrained, RecipeError
from dlmctl.annotators.word_selection import Where, found_in
from dlmctl.control.allowed import Allowed
from dlmctl.control.automata import alphabet_of
from dlmctl.control.evidence.beside import count_table_of, evidence_file, fingerprint_of
from dlmctl.control.evidence.tags import TAGS_FILE
from dlmctl.control.properties import Exchanged
from dlmctl.control.warn_once import warn_once
from dlmctl.control.whole_words import needs_words
from dlmctl.errors import nearest
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import WordCounts, load_counts

from .function_words import is_function_word
from .phrases import ANY_NUMBER
from .word_bounds import BUILT_IN, NAMED, Words, bounds_of, fitting, said
from .word_lists import MOST_ROWS, Value

Bools = NDArray[np.bool_]
# A word seen with a tag less often than this is taken for a slip of the tagger.
LEAST_SHARE = 0.02


class LexiconParams(ControlParams):
    """What a recipe says of a lexicon; keys beyond these are properties of words with their bounds."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"letters": [3, 5]}]})
    # Bounds that a table of targets gives; see ``read_params``.
    numbers_beyond_fields: ClassVar[bool] = True

    words: list[str] | None = Field(
        default=None, min_length=1, max_length=MOST_ROWS, description="the words that may occur"
    )
    file: str | None = Field(
        default=None, min_length=1, max_length=1000, description="the same as a file with one word on each line"
    )
    table: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="a CSV or TSV file with a row a word; any of its columns may be given bounds: "
        "`concreteness: [4, 5]`, `frequency: [10, null]`, `level: [A1, A2]`. Without a table there are "
        f"{' and '.join(BUILT_IN)}",
    )
    word: str = Field(default="word", max_length=1000, description="the table's column with the word")
    where: Where | None = Field(
        default=None, description="only words with a tag or at places must fit; all if not given"
    )
    function_words: bool | None = Field(
        default=None, description="let function words and punctuation pass; true if not given, but false under `where`"
    )

    reads: ClassVar[Sequence[str]] = ("file", "table")

    @model_validator(mode="after")
    def _asks_something(self) -> LexiconParams:
        bounds = self.bounds
        for name, bound in bounds.items():
            if isinstance(bound, frozenset) and self.table is None and name in BUILT_IN:
                raise ValueError(f"{name!r} is a number and given bounds as `{name}: [3, 5]`, not {said(bound)!r}")
        if self.words is not None and self.file is not None:
            raise ValueError("`words` and `file` both list words; give one of them")
        if not bounds and self.table is not None:
            raise ValueError("a table needs bounds for one of its columns, such as `concreteness: [4, 5]`")
        if not bounds and self.words is None and self.file is None:
            raise ValueError("give `words`, a `file`, or bounds for a property, such as `letters: [3, 5]`")
        strange = [name for name in bounds if self.table is None and name not in BUILT_IN]
        if strange:
            known = [*BUILT_IN, *type(self).model_fields]
            raise ValueError(f"without a table there is no property {strange[0][:40]!r}. {nearest(strange[0], known)}")
        return self

    @property
    def bounds(self) -> dict[str, Any]:
        """What is asked of each property, by its name."""
        return {name: bounds_of(name, value) for name, value in (self.model_extra or {}).items()}

    @property
    def lets_function_words_pass(self) -> bool:
        if self.function_words is not None:
            return self.function_words
        return self.where is None  # who says which words must fit means all of those


class Lexicon(Control[LexiconParams]):
    """Holds the words of a text to a list or to bounds on their properties; exact for words alone and at places.

    Of words with a tag those are kept out that do not fit and may have the tag, by the counts beside the model; what
    tags the finished words have is judged by the outside tagger.
    """

    name = "lexicon"
    Params = LexiconParams

    def __init__(self, *first: Any, **params: Any) -> None:
        super().__init__(*first, **params)
        self.counts: WordCounts | None = None
        self._made: dict[str, Words] = {}
        # Of samples of matched sets: the places of words that are asked about whatever tag they get there.
        self._exchanged: dict[int, Sequence[int]] = {}

    def word_range(self, params: LexiconParams) -> tuple[int, int]:
        """Any number, but a settled one, and one that the places have room in."""
        return max(1, params.where.fewest if params.where is not None else 1), ANY_NUMBER

    def attach(self, model: Pretrained) -> None:
        needs_words(model, "what `lexicon` lets pass", "Hold its texts by `contains`, `avoid` or `pattern` instead.")
        self.counts = load_counts(model.folder)
        self._made = {}

    def prepare(self, batch: BatchContext[LexiconParams]) -> Prepared:
        self.counts = load_counts(batch.folder) if self.counts is None else self.counts
        names = alphabet_of(batch.vocabulary).words
        spoken = np.array([name is not None for name in names])
        passing = _passing(batch.vocabulary)
        made: dict[str, Bools] = {}
        for params in batch.params:
            if (key := params.model_dump_json()) not in made:
                made[key] = self._allowed(params, names, batch) | (
                    passing if params.lets_function_words_pass else ~spoken
                )
        banned = _banned([made[params.model_dump_json()] for params in batch.params], batch)
        exchanged = {row: at for row, draw in enumerate(batch.draws) if (at := self._exchanged.get(draw.sample))}
        if exchanged:
            banned = np.repeat(banned, batch.length // banned.shape[1], 1)
        for row, places in exchanged.items():
            params = batch.params[row]
            fits = self._fits(params, names) | (passing & bool(params.function_words))
            banned[row, [place + 1 for place in places]] |= ~fits
        return Allowed(torch.from_numpy(banned).to(batch.device))

    def _fits(self, params: LexiconParams, names: Sequence[str | None]) -> Bools:
        """Which words ``[V]`` are as they should be, whatever their tag."""
        words = self._words_of(params)
        return np.array([name is not None and words.fault(name) is None for name in names])

    def _allowed(self, params: LexiconParams, names: Sequence[str | None], batch: BatchContext[LexiconParams]) -> Bools:
        """Which words ``[V]`` may stand where the control asks for something, function words aside.

        Raises:
            RecipeError: no word is left, or the model has no counts by tags where they are needed.
        """
        words = self._words_of(params)
        if (unmet := words.unmet([name for name in names if name is not None], batch.vocabulary.split)) is not None:
            warn_once(f"lexicon: {unmet}")
        fits = self._fits(params, names)
        if params.where is None or params.where.tag is None:
            if not fits.any():
                raise words.too_few([name for name in names if name is not None])
            return fits
        may = _may_be(params.where.tags, batch)
        if not (fits & may).any():
            raise words.too_few([name for name, one in zip(names, may, strict=True) if one and name is not None])
        return fits | ~may

    def _words_of(self, params: LexiconParams) -> Words:
        key = params.model_dump_json()
        if key not in self._made:
            self._made[key] = fitting(
                params.words, params.file, (params.table, params.word), params.bounds, self.counts
            )
        return self._made[key]

    def check_many(self, params: Sequence[LexiconParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """The share of the words asked about that fit; tags are those of the outside tagger."""
        asked = [row for row, one in enumerate(params) if one.where is not None]
        wheres = [one.where for one in params if one.where is not None]
        places = dict(zip(asked, found_in(wheres, [texts[row] for row in asked]), strict=True))
        found = []
        for row, (one, words) in enumerate(zip(params, texts, strict=True)):
            found.append(self._verdict(one, words, places.get(row, list(range(len(words))))))
        return found

    def _verdict(self, params: LexiconParams, words: Sequence[str], places: Sequence[int]) -> Check:
        if params.where is not None and len(words) < params.where.fewest:
            return Check(0.0, False, f"{len(words)} words, and none at some of the places")
        passing = params.lets_function_words_pass
        judged = [at for at in places if not (passing and is_function_word(words[at], words[at - 1] if at else ""))]
        faults = {at: fault for at in judged if (fault := self._words_of(params).fault(words[at])) is not None}
        marks = tuple(Mark(at, at, self._told(params, words[at]), at not in faults) for at in judged)
        if not faults:
            several = "1 word, and it fits" if len(judged) == 1 else f"{len(judged)} words, and all fit"
            return Check(1.0, True, several if judged else "no word to judge", marks=marks)
        said = [f"{words[at]!r} {fault}" for at, fault in list(faults.items())[:NAMED]]
        return Check(1 - len(faults) / len(judged), False, ", ".join(said), tuple(faults), marks)

    def _told(self, params: LexiconParams, word: str) -> str:
        """The properties of a word in short."""
        values = self._words_of(params).properties(word).values()
        return ", ".join("?" if one is None else f"{one:,.4g}" if isinstance(one, float) else one for one in values)

    def properties_of(self, params: LexiconParams, word: str) -> dict[str, Value]:
        """The properties of a word that the bounds are about, None where one is not known."""
        return self._words_of(params).properties(word)

    def hold_exchanged(self, places: Mapping[int, Sequence[int]], tags: frozenset[str]) -> None:
        """Hold the places of some samples to words that fit, where all of ``tags`` are asked about."""
        for sample, at in places.items():
            where = self.dealt(sample).where
            self._exchanged[sample] = at if where is not None and tags and tags <= where.tags else ()

    def fault_of(self, params: LexiconParams, exchanged: Exchanged) -> str | None:
        """Why a word that was exchanged does not fit; asked of a tag, it must, whatever the tagger makes of it there.

        Function words fit only where they are told to pass.
        """
        if params.function_words and is_function_word(exchanged.word):
            return None
        where = params.where
        if where is not None and where.place is None and not (exchanged.tags and exchanged.tags <= where.tags):
            return None
        if where is not None and where.place is not None and exchanged.place not in where.at(exchanged.length):
            return None
        return self._words_of(params).fault(exchanged.word)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[LexiconParams]:
        """The words of each sentence."""
        return [LexiconParams(words=sorted(set(words))) for words in sentences]


@lru_cache(maxsize=2)
def _passing(vocabulary: Tokenizer) -> Bools:
    """Which tokens ``[V]`` may stand wherever function words may: these, and what is no word."""
    return np.array([name is None or is_function_word(name) for name in alphabet_of(vocabulary).words])


def _may_be(tags: Collection[str], batch: BatchContext[LexiconParams]) -> Bools:
    """Which words ``[V]`` have one of the tags now and then; of one that was not counted nothing is ruled out.

    Raises:
        RecipeError: the model has no counts of words by tag.
        ModelError: they are damaged.
    """
    path = evidence_file(batch, "pos", TAGS_FILE)
    if path is None:
        what = "the model has no counts of words by tag, which `where: {tag: ...}` needs."
        raise RecipeError(what, where="lexicon", remedy="Name the words by their `place` instead.")
    table = count_table_of(path, fingerprint_of(batch.vocabulary))
    counts = table.marginal(1)
    wanted = counts[:, [tag in tags for tag in table.axes[1]]].sum(1)
    found: Bools = wanted >= LEAST_SHARE * counts.sum(1)
    return found


def _banned(rows: Sequence[Bools], batch: BatchContext[LexiconParams]) -> Bools:
    """What each row's allowed words ``[V]`` leave out, at the places that are asked about.

    Raises:
        RecipeError: places are counted from the end of a text whose number of words is not settled.
    """
    if all(not params.where or params.where.place is None for params in batch.params):
        return ~np.stack(rows)[:, None]
    banned = np.zeros((len(rows), batch.length, len(rows[0])), bool)
    for row, (allowed, params, layout) in enumerate(zip(rows, batch.params, batch.layouts, strict=True)):
        if params.where is None or params.where.place is None:
            banned[row, :] = ~allowed
            continue
        if layout.words is None and min(params.where.places) < 0:
            what = "places from the end need a settled number of words, which they have not under `any` and `not`."
            raise RecipeError(what, where="lexicon", remedy="Give `length` too, or count from the beginning.")
        count = layout.positions - 2 if layout.words is None else layout.words
        banned[row, [place + 1 for place in params.where.at(count)]] = ~allowed
    return banned
