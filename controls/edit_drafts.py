"""Where a draft of an edit changes the text: words exchanged, inserted and removed at places chosen at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.diffusion.noise import CONTROL, Draw

from .function_words import is_function_word

# How often a place with a function word or a punctuation mark is chosen, in relation to others, which say more.
FUNCTION_WORD_SHARE = 0.3
# How many choices of places there are on a model of tokens.
DRAFTS = 8
# Nats against a word beyond which its place is chosen no more often: all but certainly, beside words without any.
MOST_AGAINST = 10.0


class Draft(NamedTuple):
    """The text of a draft before anything is written.

    Attributes:
        words: the word at each place; None where one is inserted.
        opened: the places whose words may be exchanged, in the order in which they were chosen.
        most: the most words that may be exchanged, beside that at ``recased``.
        recased: the place of a word that may also have the other form of its first letter, because it has become or is
            no longer the first word; None for none.
    """

    words: list[str | None]
    opened: list[int]
    most: int
    recased: int | None = None

    @property
    def kept(self) -> list[str | None]:
        """The words that are to stay; None at all other places."""
        return [None if place in self.opened else word for place, word in enumerate(self.words)]

    def without(self, ruled_out: Sequence[int]) -> Draft:
        """The draft with the words at the places ``ruled_out`` exchanged as well, and fewer of the others if all
        would be too many; itself if those alone are too many."""
        if not ruled_out or len(ruled_out) > self.most:
            return self
        others = [place for place in self.opened if place not in ruled_out]
        return self._replace(opened=[*ruled_out, *others[: self.most - len(ruled_out)]])


def draft_of(
    words: Sequence[str],
    changes: int,
    tolerance: int,
    length: int | None,
    draw: Draw,
    against: Tensor | None = None,
) -> Draft:
    """A draft of an edit, with up to ``changes`` changes at random places.

    Args:
        length: the number of words of the draft; None, or one beyond the ``tolerance``, where it does not matter.
        against: what speaks against each word ``[N]``, in nats; None if nothing is known.
    """
    stream = draw.generator(CONTROL)
    extra = 0 if length is None else max(-tolerance, min(tolerance, length - len(words)))
    count = int(torch.randint(abs(extra), max(abs(extra), min(changes, len(words))) + 1, (), generator=stream))
    pairs = 0  # of a word removed and one inserted, so that the words between them move
    if tolerance:
        pairs = int(torch.randint((count - abs(extra)) // 2 + 1, (), generator=stream))
    removals, insertions = pairs + max(0, -extra), pairs + max(0, extra)
    exchanges = min(count - removals - insertions, len(words) - removals)
    count = removals + exchanges
    chosen = torch.multinomial(_shares(words, against), count, generator=stream).tolist() if count else []
    gaps = torch.randint(len(words) + 1, (insertions,), generator=stream).tolist() if insertions else []
    template, place_of = _template(words, chosen[:removals], gaps)
    most, opened = changes - removals - insertions, [place_of[at] for at in chosen[removals:]]
    recased = _recased(place_of, opened) if tolerance and most else None
    if recased is None:
        return Draft(template, opened, most)
    return Draft(template, opened[: most - 1], most - 1, recased)


def held_places(count: int, changes: int, draw: Draw) -> frozenset[int]:
    """The places of ``count`` words that a draft on a model of tokens leaves as they are: about half of them, chosen
    at random, so that not all drafts change the words that the model finds least likely.

    A run has only ``DRAFTS`` such choices, because each takes an automaton of its own; every place is open in half of
    them or more.
    """
    number = int(torch.randint(DRAFTS, (), generator=draw._replace(particle=0).generator(CONTROL)))
    order = torch.randperm(count, generator=Draw(draw.seed, number // 2).generator(CONTROL)).tolist()
    order = order[::-1] if number % 2 else order
    return frozenset(order[max(changes, (count + 1) // 2) :])


def _template(
    words: Sequence[str], removed: Sequence[int], gaps: Sequence[int]
) -> tuple[list[str | None], dict[int, int]]:
    """The words without those at the places ``removed`` and with a place for another word before those in ``gaps``;
    and the place of each word that is left."""
    template: list[str | None] = []
    place_of: dict[int, int] = {}
    for at, word in enumerate(words):
        template += [None] * gaps.count(at)
        if at not in removed:
            place_of[at] = len(template)
            template.append(word)
    return [*template, *[None] * gaps.count(len(words))], place_of


def _recased(place_of: dict[int, int], opened: Sequence[int]) -> int | None:
    """The place of a kept word that has become the first one or no longer is, if so."""
    at = 0 if place_of.get(0, 0) else next((at for at, place in place_of.items() if at and not place), None)
    return None if at is None or place_of[at] in opened else place_of[at]


def other_case(word: str) -> str:
    """A word with a small first letter in place of a capital, or the reverse."""
    return (word[:1].lower() if word[:1].isupper() else word[:1].upper()) + word[1:]


def _shares(words: Sequence[str], against: Tensor | None) -> Tensor:
    """How often each word is chosen, in relation to others ``[N]``."""
    previous = ["", *words]
    is_function = [is_function_word(word, before) for before, word in zip(previous, words, strict=False)]
    shares = torch.where(torch.tensor(is_function), FUNCTION_WORD_SHARE, 1.0)
    return shares if against is None else shares * against.nan_to_num(0.0).clamp(0, MOST_AGAINST).exp()
