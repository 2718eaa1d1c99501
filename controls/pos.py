"""A part-of-speech sequence: each word of the text has the wanted tag, or one of the wanted tags, at its position."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field, StrictFloat, ValidationInfo, field_validator

from dlmctl import BatchContext, Check, ControlParams, LabelledText, Mark, Prepared, Pretrained, WordLabels, guide
from dlmctl.annotators.gold import annotate_by_judges, is_external_judge, require_judges, sentence_of, tags_of
from dlmctl.annotators.tagging import UPOS_TAGS, read_upos, upos_tagger
from dlmctl.control.evidence.tags import ANY
from dlmctl.control.warn_once import warn_once
from dlmctl.errors import readable

from .phrases import WordControl

# A tag with its alternatives, in a recipe or among others in a cell of a table.
_TAG = re.compile(r'[^\s,;"\[\]]+')


class PosParams(ControlParams):
    """The sequence of part-of-speech tags."""

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
        description="the tagger that checks, instead of the bundled one: the folder of one made by `dlmctl train "
        "tagger`, stanza:LANGUAGE or spacy:MODEL",
    )

    reads: ClassVar[Sequence[str]] = ("judge",)

    @field_validator("tags", mode="before")
    @classmethod
    def _separated(cls, tags: Any, info: ValidationInfo) -> Any:
        """Split strings of tags, separated by spaces, commas or semicolons or written as a JSON list."""
        strings = [tags] if isinstance(tags, str) else tags
        if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
            return tags
        parts = [_TAG.findall(string) or [string] for string in strings]
        if len(parts) > 1 and min(map(len, parts)) > 1 and not (info.context or {}).get("cells"):
            count, first = sum(map(len, parts)), readable(strings[0], 40)
            warn_once(
                f"pos: the {len(parts)} items of the list are taken as one sequence of {count} tags; several sequences "
                f"are [{{tags: {first}}}, ...]."
            )
        return [tag for part in parts for tag in part]

    @field_validator("tags")
    @classmethod
    def _known(cls, tags: list[str]) -> list[str]:
        return read_upos(tags, also=[ANY])


class TagLabels(WordLabels):
    """UPOS tags: those of the data (its field ``upos``), or else those of a tagger."""

    takes = ("judge",)
    names = UPOS_TAGS

    def of_words(self, data: LabelledText) -> list[list[str]]:
        return tags_of(data.sentences, data.fields, data.judge)


class Pos(WordControl[PosParams]):
    """Steers by word evidence and a noise-aware tag classifier (Li et al. 2022), checks with an independent tagger."""

    name = "pos"
    Params = PosParams
    Labels = TagLabels
    tags_every_word = False

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        require_judges((params.judge for params in self.sets), upos_tagger)
        self.tags_every_word = not any(ANY in params.tags for params in self.sets)

    def word_range(self, params: PosParams) -> tuple[int, int]:
        return len(params.tags), len(params.tags)

    def prepare(self, batch: BatchContext[PosParams]) -> Prepared:
        prepared = guide(self, batch, [params.tags for params in batch.params])
        prepared.one_update = self.tags_every_word
        return prepared

    def checks_aside(self) -> bool:
        return not any(is_external_judge(params.judge) for params in self.sets)

    def check_many(self, params: Sequence[PosParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Share of tags that the independent tagger finds at their position; extra and missing words count as
        misses."""
        tagged = annotate_by_judges(texts, [target.judge for target in params], upos_tagger)
        return [_compare(target.tags, tags, target.pass_at) for target, tags in zip(params, tagged, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PosParams]:
        """The tags of each sentence according to the independent tagger."""
        return [PosParams(tags=tags) for tags in upos_tagger()([list(words) for words in sentences])]

    @classmethod
    def from_target(cls, record: Any) -> PosParams:
        """From an object with ``words``, tagged by the object's ``judge`` if it names one, or from parameters."""
        judge = record.get("judge") if isinstance(record, dict) else None
        if judge is None or "tags" in record or "words" not in record:
            return super().from_target(record)
        return PosParams(tags=upos_tagger(judge)([sentence_of(record)])[0], judge=judge)


def _compare(wanted: Sequence[str], tags: Sequence[str], pass_at: float) -> Check:
    misses = {
        position: f"word {position + 1} is {tag}, not {choice}"
        for position, (choice, tag) in enumerate(zip(wanted, tags, strict=False))
        if ANY not in choice.split("|") and tag not in choice.split("|")
    }
    wrong_count = f"there are {len(tags)} words, not {len(wanted)}"
    misses |= dict.fromkeys(range(len(wanted), len(tags)), wrong_count)
    misses |= {position: f"word {position + 1} is missing" for position in range(len(tags), len(wanted))}
    score = 1 - len(misses) / max(len(wanted), len(tags))
    why = misses[min(misses)] if misses else "all tags met"
    where = tuple(position for position in sorted(misses) if position < len(tags))
    return Check(score, score >= pass_at, why, where, tuple(_marks(wanted, tags, misses)))


def _marks(wanted: Sequence[str], tags: Sequence[str], misses: Collection[int]) -> Iterator[Mark]:
    """The tag of each word, and the wanted tags beyond the end of the text."""
    for position, tag in enumerate(tags):
        missed = position in misses
        yield Mark(position, position, tag, not missed, wanted[position] if missed and position < len(wanted) else "")
    for tag in wanted[len(tags) :]:
        yield Mark(None, None, met=False, wanted=tag)
