"""A text to edit: every word but a few stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared, Pretrained
from dlmctl.control.allowed import only_words
from dlmctl.control.automata import Alphabet, Automaton, Requirement, exact_control
from dlmctl.control.automata.dfa import DEAD, OUTSIDE, partition
from dlmctl.control.whole_words import needs_words
from dlmctl.diffusion.noise import CONTROL, Draw
from dlmctl.text.spelling import plain, split_words
from dlmctl.text.vocabulary import known_ids

from .function_words import is_function_word
from .phrases import WordControl, check_rank

# In favour of a word that is to stay, in nats: more than any other control brings up against it.
STAY = 30.0
# How often a place with a function word or a punctuation mark is chosen, in relation to others, which say more.
FUNCTION_WORD_SHARE = 0.3


class EditParams(ControlParams):
    """The text, and how much of it may change."""

    text: str = Field(
        max_length=5000,
        description="the text to edit; its words are split as the model splits text, and it keeps their number",
        examples=["The food was cold and the room was dirty."],
    )
    changes: int = Field(default=3, ge=1, le=100, description="the most words that may differ from those of the text")

    @field_validator("text")
    @classmethod
    def _has_words(cls, text: str) -> str:
        if not split_words(text):
            raise ValueError("the text has no word")
        return text


class Edit(WordControl[EditParams]):
    """Exchanges at most a few words of a text, exactly, also in combination with other controls.

    Each draw may exchange the words at some places, chosen at random, and elsewhere only what other controls rule out.
    So drafts differ in where they change the text, and the best of several (``candidates``) has changed what the other
    controls, such as a label, depend on.
    """

    name = "edit"
    Params = EditParams

    def word_range(self, params: EditParams) -> tuple[int, int]:
        words = len(self.split(params.text))
        return words, words

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        needs_words(model, "what the control 'edit' keeps")

    def prepare(self, batch: BatchContext[EditParams]) -> Prepared:
        texts = [tuple(self.split(params.text)) for params in batch.params]
        for words in texts:
            known_ids(words, batch.vocabulary, self.name)
        rows = zip(texts, batch.params, batch.draws, strict=True)
        kept = [_kept_words(words, params.changes, draw) for words, params, draw in rows]
        # Words that are to stay are filled from the start and take no step. Only if other controls leave no text with
        # them (``sampling.redraw``) may any word change. A batch has either only such texts or none.
        if not batch.unwanted and not any(layout.sizes_open for layout in batch.layouts):
            return only_words(batch, kept, self.name)
        pairs = zip(texts, batch.params, strict=True)
        prepared = exact_control(batch, [self._requirement(words, params.changes) for words, params in pairs])
        if not batch.unwanted:
            prepared.evidence = _evidence_for(kept, batch)
        return prepared

    def _requirement(self, words: tuple[str, ...], changes: int) -> Requirement:
        language = partial(_at_most, words=words, changes=changes)
        return Requirement(self.name, (words, changes), tuple(dict.fromkeys(words)), language)

    def check(self, params: EditParams, words: Sequence[str]) -> Check:
        """The share of the words that are as in the text; passed if at most ``changes`` are not."""
        texts = (split(params.text) for split in self.splits)
        return max((_verdict(text, words, params.changes) for text in texts), key=check_rank)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[EditParams]:
        """Each sentence as the text to edit."""
        return [EditParams(text=" ".join(words)) for words in sentences]


def _kept_words(words: Sequence[str], changes: int, draw: Draw) -> list[str | None]:
    """The words that are to stay: all but up to ``changes`` ones, chosen at random."""
    stream = draw.generator(CONTROL)
    count = int(torch.randint(min(changes, len(words)) + 1, (), generator=stream))
    if not count:
        return list(words)
    previous = ["", *words]
    is_function = [is_function_word(word, before) for before, word in zip(previous, words, strict=False)]
    shares = torch.where(torch.tensor(is_function), FUNCTION_WORD_SHARE, 1.0)
    opened = torch.multinomial(shares, count, generator=stream).tolist()
    return [None if place in opened else word for place, word in enumerate(words)]


def _evidence_for(texts: Sequence[Sequence[str | None]], batch: BatchContext[EditParams]) -> Tensor:
    """Evidence ``[B, L, V]`` for the words that are to stay."""
    evidence = torch.zeros(len(batch), batch.length, len(batch.vocabulary))
    for row, words in enumerate(texts):
        kept = [(place, word) for place, word in enumerate(words, start=1) if word is not None]
        ids = batch.vocabulary.encode([word for _, word in kept])[1:-1]
        evidence[row, [place for place, _ in kept], ids] = STAY
    return evidence.to(batch.device)


def _at_most(alphabet: Alphabet, words: Sequence[str], changes: int) -> Automaton:
    """The texts of as many words of which at most ``changes`` differ from ``words``, which the model knows.

    A state is a place and the number of changes before it.
    """
    ids = alphabet.numbers(words)
    assert ids is not None
    classes, members = partition(alphabet.is_word, {}, ids)
    width = changes + 1
    table = np.full(((len(words) + 1) * width, int(classes.max()) + 1), DEAD, dtype=np.int64)
    for place, word_id in enumerate(ids):
        for done in range(width):
            state, following = place * width + done, (place + 1) * width + done
            table[state] = following + 1 if done < changes else DEAD
            table[state, members[word_id]] = following
    table[:, OUTSIDE] = DEAD
    accepting = np.arange(len(table)) >= len(words) * width
    return Automaton(classes, table, accepting)


def _verdict(text: Sequence[str], words: Sequence[str], changes: int) -> Check:
    if len(words) != len(text):
        return Check(0.0, False, f"{len(words)} words, not the {len(text)} of the text")
    pairs = enumerate(zip(text, words, strict=True))
    changed = {place: old for place, (old, new) in pairs if plain(old) != plain(new)}
    marks = tuple(Mark(place, place, old) for place, old in changed.items())
    passed = len(changed) <= changes
    why = f"{len(changed)} of {len(text)} words changed" + ("" if passed else f", at most {changes} may")
    return Check(1 - len(changed) / len(text), passed, why, () if passed else tuple(changed), marks)
