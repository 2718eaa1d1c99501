"""The fewest changes between two texts, counted without the automata that guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.text.spelling import plain


class Changes(NamedTuple):
    """The fewest changes that lead from a text to another.

    Attributes:
        exchanged: the places of exchanged words in the other text, each with the word of the text.
        inserted: the places of inserted words in the other text.
        removed: the words of the text that were removed, each after the place in the other text before which it was.
    """

    exchanged: dict[int, str]
    inserted: list[int]
    removed: list[tuple[int, str]]

    @property
    def total(self) -> int:
        return len(self.exchanged) + len(self.inserted) + len(self.removed)

    def __str__(self) -> str:
        kinds = {"exchanged": self.exchanged, "inserted": self.inserted, "removed": self.removed}
        counts = [(len(found), kind) for kind, found in kinds.items() if found]
        if not counts:
            return "no word changed"
        (number, kind), *others = counts
        first = f"{number} {'word' if number == 1 else 'words'} {kind}"
        return ", ".join([first, *(f"{number} {kind}" for number, kind in others)])


def changes_between(text: Sequence[str], words: Sequence[str]) -> Changes:
    """The fewest exchanges, insertions and removals that make ``words`` of ``text`` (Wagner & Fischer 1974).

    Of several such ways, one that exchanges words rather than removing and inserting them, and best words that differ
    in capitals only.
    """
    old, new = [plain(word) for word in text], [plain(word) for word in words]
    one = len(new) + 1  # the cost of a change: more than all that exchanged capitals can save

    def exchange(at: int, place: int) -> int:
        return 0 if old[at] == new[place] else one - (old[at].casefold() == new[place].casefold())

    costs = [[one * place for place in range(len(new) + 1)]]
    for at in range(len(old)):
        row = [one * (at + 1)]
        for place in range(len(new)):
            row.append(min(costs[-1][place] + exchange(at, place), costs[-1][place + 1] + one, row[-1] + one))
        costs.append(row)
    exchanged: dict[int, str] = {}
    inserted, removed = list[int](), list[tuple[int, str]]()
    at, place = len(old), len(new)
    while at or place:
        cost = costs[at][place]
        if at and place and cost == costs[at - 1][place - 1] + exchange(at - 1, place - 1):
            at, place = at - 1, place - 1
            if old[at] != new[place]:
                exchanged[place] = text[at]
        elif place and cost == costs[at][place - 1] + one:
            place -= 1
            inserted.append(place)
        else:
            at -= 1
            removed.append((place, text[at]))
    return Changes(dict(sorted(exchanged.items())), inserted[::-1], removed[::-1])
