"""A part-of-speech sequence: each word of the text has the tag, or one of the tags, asked for at its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field, StrictFloat, field_validator

from dlmctl import BatchContext, Check, ControlParams, LabelledText, Mark, Prepared, Pretrained, WordLabels, guide
from dlmctl.annotators.gold import by_judges, is_outside, require_judges, sentence_of, tags_of
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.errors import nearest

from .phrases import WordControl

ANY = "*"
# A tag with its alternatives, as it stands in a recipe or among others in a cell of a table.
_TAG = re.compile(r'[^\s,;"\[\]]+')


class PosParams(ControlParams):
    """What a recipe says of a POS sequence."""

    tags: list[str] = Field(
        min_length=1,
        max_length=1000,
        description="a UPOS tag for every word, in order; alternatives as ADJ|NOUN, * for any tag",
        examples=[["DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT"]],
    )
    pass_at: StrictFloat = Field(
        default=1.0, ge=0, le=1, description="share of words that must have their tag for a text to pass"
    )
    judge: str | None = Field(
        default=None,
        max_length=1000,
        description="what checks, in place of the bundled tagger: the folder of one made by `dlmctl train tagger`, "
        "stanza:LANGUAGE or spacy:MODEL",
    )

    reads: ClassVar[Sequence[str]] = ("judge",)

    @field_validator("tags", mode="before")
    @classmethod
    def _separated(cls, tags: Any) -> Any:
        """Tags in one text, with spaces, commas or semicolons between them or as a list in JSON, as the tags."""
        listed = [tags] if isinstance(tags, str) else tags
        if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
            return tags
        return [part for tag in listed for part in _TAG.findall(tag) or [tag]]

    @field_validator("tags")
    @classmethod
    def _known(cls, tags: list[str]) -> list[str]:
        for tag in tags:
            for choice in tag.split("|"):
                if choice != ANY and choice not in UPOS_TAGS:
                    raise ValueError(f"there is no UPOS tag {choice!r}. {nearest(choice, list(UPOS_TAGS))}")
        return tags


class TagLabels(WordLabels):
    """UPOS tags: the data's own (its field ``upos``), else a tagger's."""

    takes = ("judge",)
    names = UPOS_TAGS

    def of_words(self, data: LabelledText) -> list[list[str]]:
        return tags_of(data.sentences, data.fields, data.judge)


class Pos(WordControl[PosParams]):
    """Steers by word evidence and a noise-aware tag classifier (Li et al. 2022), checks by an outside tagger."""

    name = "pos"
    Params = PosParams
    Labels = TagLabels
    every_word = False

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        require_judges((one.judge for one in self.sets), upos_tagger)
        self.every_word = not any(ANY in one.tags for one in self.sets)

    def word_range(self, params: PosParams) -> tuple[int, int]:
        return len(params.tags), len(params.tags)

    def prepare(self, batch: BatchContext[PosParams]) -> Prepared:
        found = guide(self, batch, [params.tags for params in batch.params])
        found.one_update = self.every_word
        return found

    def checks_aside(self) -> bool:
        return not any(is_outside(one.judge) for one in self.sets)

    def check_many(self, params: Sequence[PosParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Share of tags met at their place by the outside tagger; a word too many or too few misses its tag."""
        found = by_judges(texts, [one.judge for one in params], upos_tagger)
        return [_compare(one.tags, tags, one.pass_at) for one, tags in zip(params, found, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PosParams]:
        """For each sentence the parameters that it satisfies itself, by the outside tagger."""
        return [PosParams(tags=tags) for tags in upos_tagger()([list(words) for words in sentences])]

    @classmethod
    def from_target(cls, record: Any) -> PosParams:
        """Of an object with ``words``, tagged by the object's ``judge`` if it names one, or of parameters."""
        judge = record.get("judge") if isinstance(record, dict) else None
        if judge is None or "tags" in record or "words" not in record:
            return super().from_target(record)
        return PosParams(tags=upos_tagger(judge)([sentence_of(record)])[0], judge=judge)


def _compare(wanted: Sequence[str], found: Sequence[str], pass_at: float) -> Check:
    misses = {
        place: f"word {place + 1} is {tag}, not {choice}"
        for place, (choice, tag) in enumerate(zip(wanted, found, strict=False))
        if ANY not in choice.split("|") and tag not in choice.split("|")
    }
    many = f"there are {len(found)} words, not {len(wanted)}"
    misses |= dict.fromkeys(range(len(wanted), len(found)), many)
    misses |= {place: f"word {place + 1} is missing" for place in range(len(found), len(wanted))}
    score = 1 - len(misses) / max(len(wanted), len(found))
    why = misses[min(misses)] if misses else "all tags met"
    where = tuple(place for place in sorted(misses) if place < len(found))
    return Check(score, score >= pass_at, why, where, tuple(_marks(wanted, found, misses)))


def _marks(wanted: Sequence[str], found: Sequence[str], misses: Collection[int]) -> Iterator[Mark]:
    """The tag of each word, and those that the text has no words for."""
    for place, tag in enumerate(found):
        missed = place in misses
        yield Mark(place, place, tag, not missed, wanted[place] if missed and place < len(wanted) else "")
    for tag in wanted[len(found) :]:
        yield Mark(None, None, met=False, wanted=tag)
