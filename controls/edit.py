"""A text to edit: every word but a few stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from pydantic import Field, StrictInt, field_validator, model_validator
from torch import Tensor

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.allowed import Allowed, only_words
from dlmctl.control.automata import Requirement, edited, exact_control, exchanged
from dlmctl.text.spelling import plain, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer
from dlmctl.text.vocabulary import known_ids

from .edit_distance import changes_between
from .edit_drafts import Draft, draft_of, held_places, other_case
from .phrases import WordControl, check_rank

# In favour of a word that is to stay, in nats: more than any other control brings up against it.
STAY = 30.0


class EditParams(ControlParams):
    """The text, and how much of it may change."""

    text: str = Field(
        max_length=5000,
        description="the text to edit; its words are split as the model splits text",
        examples=["The food was cold and the room was dirty."],
    )
    changes: int = Field(default=3, ge=0, le=100, description="the most words that may differ from those of the text")
    tolerance: StrictInt = Field(
        default=0,
        ge=0,
        le=100,
        description="how many words more or fewer it may have; if not 0, a word inserted or removed is a change, too",
    )

    @field_validator("text")
    @classmethod
    def _has_words(cls, text: str) -> str:
        if not split_words(text):
            raise ValueError("the text has no word")
        return text

    @model_validator(mode="after")
    def _tolerance_within_changes(self) -> EditParams:
        if self.tolerance > self.changes:
            raise ValueError(
                f"`tolerance: {self.tolerance}` needs as many `changes`, not {self.changes}: "
                "each word more or fewer is a change"
            )
        return self


class Edit(WordControl[EditParams]):
    """Changes at most a few words of a text, exactly, also in combination with other controls.

    Each draw may change the words at some places, chosen at random, and elsewhere only what other controls rule out.
    Words that the evidence of other controls, such as a label, speaks against are chosen more often. Drafts differ in
    where they change the text, so the best of several (``candidates``) is better than one. On models whose tokens are
    parts of words, a draft holds half of the words, and the model chooses what changes among the others.
    """

    name = "edit"
    Params = EditParams

    def word_range(self, params: EditParams) -> tuple[int, int]:
        words = len(self.split(params.text))
        return max(1, words - params.tolerance), words + params.tolerance

    def lengths(self, params: EditParams, most: int) -> Sequence[float]:
        """Each number of words within the tolerance as often, so that drafts differ."""
        least, longest = self.word_range(params)
        return [float(least <= count <= longest) for count in range(most + 1)] if params.tolerance else []

    def prepare(self, batch: BatchContext[EditParams]) -> Prepared:
        texts = [tuple(self.split(params.text)) for params in batch.params]
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return self._over_tokens(texts, batch)
        requirements = [requirement_of(*row) for row in zip(texts, batch.params, strict=True)]
        if batch.unwanted:
            return exact_control(batch, requirements)
        for words in texts:
            known_ids(words, batch.vocabulary, self.name)
        drafts = _drafts(texts, batch, [None] * len(batch))
        # Words that are to stay are filled from the start and take no step. Only if other controls leave no text with
        # them (``sampling.redraw``) may any word change. A batch has either only such texts or none.
        if not any(layout.sizes_open for layout in batch.layouts):
            return DraftWords(batch, texts, drafts, requirements)
        prepared = exact_control(batch, requirements)
        prepared.evidence = _evidence_for([draft.kept for draft in drafts], batch)
        return prepared

    def _over_tokens(self, texts: Sequence[tuple[str, ...]], batch: BatchContext[EditParams]) -> Prepared:
        """Each row holds about half of the words, if other controls leave a text with them."""
        requirements = []
        for words, params, draw, layout in zip(texts, batch.params, batch.draws, batch.layouts, strict=True):
            is_whole = batch.unwanted or layout.sizes_open
            held = frozenset[int]() if is_whole else held_places(len(words), params.changes, draw)
            requirements.append(requirement_of(words, params, held)._replace(written=(params.text,)))
        return exact_control(batch, requirements)

    def check(self, params: EditParams, words: Sequence[str]) -> Check:
        """The share of the words that are as in the text; passed if there are at most ``changes`` changes."""
        texts = (split(params.text) for split in self.splits)
        verdict = _within_tolerance if params.tolerance else _verdict
        return max((verdict(text, words, params) for text in texts), key=check_rank)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[EditParams]:
        """Each sentence as the text to edit."""
        return [EditParams(text=" ".join(words)) for words in sentences]


class DraftWords(Allowed):
    """Holds texts to the words that their drafts keep, at their places.

    Args:
        texts, drafts, requirements: of each row, the draft with as many words as its layout; the requirement is what
            ``not`` negates.
    """

    def __init__(
        self,
        batch: BatchContext[EditParams],
        texts: Sequence[Sequence[str]],
        drafts: Sequence[Draft],
        requirements: Sequence[Requirement],
    ) -> None:
        super().__init__(only_words(batch, [draft.kept for draft in drafts], Edit.name).banned)
        self.batch, self.texts, self.drafts, self.requirements = batch, texts, drafts, requirements
        for row, draft in enumerate(drafts):
            # Under `not` the text may be shorter than any draft.
            if draft.recased is not None and draft.recased + 1 < batch.length:
                (word_id,) = batch.vocabulary.encode([other_case(draft.words[draft.recased] or "")])[1:-1]
                self.banned[row, draft.recased + 1, word_id] = False

    def beside(self, left: Tensor, evidence_given: Callable[[Tensor], Tensor]) -> Prepared:
        """Exchanges the words that other controls rule out, as far as so many may change, and others only then: the
        more often, the more the evidence of other controls speaks against them."""
        drafts = _drafts(self.texts, self.batch, _evidence_against(self.texts, self.batch, evidence_given))
        drafts = [self._within(draft, row_left) for draft, row_left in zip(drafts, left, strict=True)]
        return self if drafts == self.drafts else DraftWords(self.batch, self.texts, drafts, self.requirements)

    def _within(self, draft: Draft, left: Tensor) -> Draft:
        """A draft beside controls that leave the words ``left [L, V]``."""
        known = [(place, word) for place, word in enumerate(draft.words[: len(left) - 1]) if word is not None]
        ids = self.batch.vocabulary.encode([word for _, word in known])[1:-1]
        is_left = left[[place + 1 for place, _ in known], ids].tolist()
        return draft.without([place for (place, _), fits in zip(known, is_left, strict=True) if not fits])

    def negated(self) -> Prepared | None:
        return exact_control(self.batch, self.requirements).negated()


def requirement_of(words: tuple[str, ...], params: EditParams, held: frozenset[int] = frozenset()) -> Requirement:
    """The requirement of a text in which the words at the places ``held`` stay."""
    if params.tolerance:
        language = partial(edited, words=words, changes=params.changes, tolerance=params.tolerance, held=held)
    else:
        language = partial(exchanged, words=words, changes=params.changes, held=held)
    key = words, params.changes, params.tolerance, held
    return Requirement(Edit.name, key, tuple(dict.fromkeys(words)), language, stands_alone=not params.tolerance)


def _drafts(
    texts: Sequence[Sequence[str]], batch: BatchContext[EditParams], against: Sequence[Tensor | None]
) -> list[Draft]:
    """A draft of each text; ``against`` as in ``draft_of``."""
    rows = zip(texts, batch.params, batch.layouts, batch.draws, against, strict=True)
    return [
        draft_of(words, params.changes, params.tolerance, layout.words, draw, row_against)
        for words, params, layout, draw, row_against in rows
    ]


def _evidence_against(
    texts: Sequence[Sequence[str]], batch: BatchContext[EditParams], evidence_given: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """What speaks against each word of each text, in nats: how much likelier a random word in its place makes what is
    wanted; 0 beyond the positions of the batch.

    Not the best word: where one alone would do, such as a question mark, it would do anywhere.
    """
    ids = [torch.tensor(batch.vocabulary.encode(words)[1:-1][: batch.length - 1]) for words in texts]
    given = torch.zeros(len(batch), batch.length, len(batch.vocabulary), device=batch.device)
    for row, row_ids in enumerate(ids):
        given[row, torch.arange(1, 1 + len(row_ids)), row_ids] = 1
    evidence = evidence_given(given).cpu()
    at_random = evidence.logsumexp(-1) - math.log(len(batch.vocabulary))
    against = []
    for row, (words, row_ids) in enumerate(zip(texts, ids, strict=True)):
        places = torch.arange(1, 1 + len(row_ids))
        beyond = torch.zeros(len(words) - len(row_ids))
        against.append(torch.cat([at_random[row, places] - evidence[row, places, row_ids], beyond]))
    return against


def _evidence_for(texts: Sequence[Sequence[str | None]], batch: BatchContext[EditParams]) -> Tensor:
    """Evidence ``[B, L, V]`` for the words that are to stay."""
    evidence = torch.zeros(len(batch), batch.length, len(batch.vocabulary))
    for row, words in enumerate(texts):
        kept = [(place, word) for place, word in enumerate(words[: batch.length - 1], start=1) if word is not None]
        ids = batch.vocabulary.encode([word for _, word in kept])[1:-1]
        evidence[row, [place for place, _ in kept], ids] = STAY
    return evidence.to(batch.device)


def _verdict(text: Sequence[str], words: Sequence[str], params: EditParams) -> Check:
    if len(words) != len(text):
        return Check(0.0, False, f"{len(words)} words, not the {len(text)} of the text")
    pairs = enumerate(zip(text, words, strict=True))
    changed = {place: old for place, (old, new) in pairs if plain(old) != plain(new)}
    marks = tuple(Mark(place, place, old) for place, old in changed.items())
    passed = len(changed) <= params.changes
    why = f"{len(changed)} of {len(text)} words changed" + ("" if passed else f", at most {params.changes} may")
    return Check(1 - len(changed) / len(text), passed, why, () if passed else tuple(changed), marks)


def _within_tolerance(text: Sequence[str], words: Sequence[str], params: EditParams) -> Check:
    changes = changes_between(text, words)
    score = 1 - changes.total / max(len(text), len(words))
    beyond = abs(len(words) - len(text)) > params.tolerance
    passed = changes.total <= params.changes and not beyond
    why = str(changes)
    if beyond:
        why += f": {len(words)} words in place of {len(text)}, and the tolerance is {params.tolerance}"
    elif not passed:
        why += f", at most {params.changes} changes may be made"
    places = sorted([*changes.exchanged, *changes.inserted])
    marks = [Mark(place, place, changes.exchanged.get(place, "inserted")) for place in places]
    # A removed word is shown at the word that came after it.
    without = [(min(place, len(words) - 1), word) for place, word in changes.removed]
    marks += [Mark(place, place, f"without {word}") for place, word in without]
    return Check(score, passed, why, () if passed else tuple(places), tuple(marks))
