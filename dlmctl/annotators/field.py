"""A linear-chain conditional random field over words (Lafferty et al. 2001), decoded for many sentences at once.

Features are read from words and their neighbours. All but five depend on one word alone, so that they are looked up
once for each different word; the others once for each different pair. Scores are sums of whole thousandths, exact in
any order: a sentence has the same tags in any company.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What stands before a sentence and behind it, two deep.
BEFORE, BEHIND = ("<<", "<"), (">", ">>")
EDGES = (*BEFORE, *BEHIND)
# Words tagged at once, which bounds memory.
CHUNK_WORDS = 20_000
# Words whose scores are kept for the next call, and pairs of each kind whose features are.
KNOWN_WORDS, KNOWN_PAIRS = 100_000, 50_000

_DIGIT = re.compile(r"\d")
_REPEAT = re.compile(r"(.)\1+")


class Form(NamedTuple):
    """A word as the features see it: as written, in small letters with figures as 0, and its shape."""

    written: str
    low: str
    shape: str


def shape(word: str) -> str:
    """The word's kinds of characters, runs shortened: ``Café`` is ``Xx``, ``25`` is ``d``, ``A-1`` is ``X-d``."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    return _REPEAT.sub(r"\1", "".join(kinds))


def form(word: str) -> Form:
    """How the features see a word."""
    return Form(word, _DIGIT.sub("0", word.lower()), shape(word))


def own(word: Form) -> list[str]:
    """Features of a word at its own place."""
    low = word.low
    affixes = [f"prefix{n}={low[:n]}" for n in (1, 2, 3)] + [f"suffix{n}={low[-n:]}" for n in (1, 2, 3, 4)]
    return [f"word={low}", f"form={word.written}", *affixes, f"shape={word.shape}"]


def as_neighbour(word: Form, distance: int) -> list[str]:
    """Features of a word for the place that it stands ``distance`` behind (before, where negative)."""
    names = [f"word{distance:+d}={word.low}"]
    if abs(distance) == 1:
        names.append(f"suffix3{distance:+d}={word.low[-3:]}")
    if distance == 1:
        names.append(f"suffix2+1={word.low[-2:]}")
    return names


def of_pair(left: Form, right: Form) -> tuple[str, str, str, str]:
    """Features of two neighbours: of words and shapes for the right one, then for the left one."""
    words, shapes = f"{left.low} {right.low}", f"{left.shape} {right.shape}"
    return f"words-1={words}", f"shapes-1={shapes}", f"words+1={words}", f"shapes+1={shapes}"


def around(left: Form, right: Form) -> str:
    """The feature of the word between two."""
    return f"around={left.low} {right.low}"


# The features of two words together: of a word and the one before it, for the right one and for the left one, and of
# the words on either side of one.
PAIRS: tuple[Callable[[Form, Form], tuple[str, ...]], ...] = (
    lambda left, right: of_pair(left, right)[:2],
    lambda left, right: of_pair(left, right)[2:],
    lambda left, right: (around(left, right),),
)
# More than there are numbers of words.
ROOM = 2 * KNOWN_WORDS


def features(words: Sequence[str]) -> list[list[str]]:
    """All that the tagger sees of each word, equally much for each: what training reads."""
    edges = [Form(edge, edge, edge) for edge in EDGES]
    forms = [*edges[:2], *map(form, words), *edges[2:]]
    found = []
    for at in range(2, len(forms) - 2):
        l2, l1, here, r1, r2 = forms[at - 2 : at + 3]
        before, behind = of_pair(l1, here)[:2], of_pair(here, r1)[2:]
        neighbours = [*as_neighbour(l2, -2), *as_neighbour(l1, -1), *as_neighbour(r1, 1), *as_neighbour(r2, 2)]
        found.append([*own(here), *neighbours, *before, *behind, around(l1, r1)])
    return found


class FieldTagger:
    """A tagger with the weights of a trained field.

    Args:
        tags: names of the tags.
        rows: feature to row of ``weights``.
        weights: ``[features + 1, tags]`` in thousandths; the last row is that of unseen features.
        transitions: ``[from tag, to tag]``.
    """

    def __init__(self, tags: list[str], rows: dict[str, int], weights: Floats, transitions: Floats) -> None:
        self.tags, self.rows = tags, rows
        # Whole numbers, so that sums are exact; training writes thousandths.
        self.weights, self.transitions = np.rint(weights * 1000), np.rint(transitions * 1000)
        self._forget()

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """One tag for each word."""
        found: list[list[str]] = [[] for _ in sentences]
        order = sorted((at for at, words in enumerate(sentences) if words), key=lambda at: -len(sentences[at]))
        while order:
            size = max(1, CHUNK_WORDS // len(sentences[order[0]]))
            chunk, order = order[:size], order[size:]
            lengths = np.array([len(sentences[at]) for at in chunk])
            paths = best_paths(self.emissions([sentences[at] for at in chunk]), lengths, self.transitions)
            for at, path, length in zip(chunk, paths.tolist(), lengths.tolist(), strict=True):
                found[at] = [self.tags[tag] for tag in path[:length]]
        return found

    def emissions(self, sentences: Sequence[Sequence[str]]) -> Floats:
        """Scores of every tag at every place ``[sentences, longest, tags]``, beyond a sentence's end of no meaning."""
        longest = max(map(len, sentences))
        self._learn({word for words in sentences for word in words})
        # Edges have numbers of their own: a word may be spelled like one.
        places = np.full((len(sentences), longest + 4), len(EDGES) - 1)
        places[:, :2] = (0, 1)
        for row, words in enumerate(sentences):
            places[row, 2 : len(words) + 2] = [self._numbers[word] for word in words]
            places[row, len(words) + 2] = 2
        l2, l1, here, r1, r2 = (places[:, at : at + longest] for at in range(5))
        scores = self._alone[here, 0]
        for kind, neighbours in enumerate((l2, l1, r1, r2), start=1):
            scores += self._alone[neighbours, kind]
        inside = np.nonzero(here >= len(EDGES))
        pairs = (l1, here), (here, r1), (l1, r1)
        for kind, (left, right) in enumerate(pairs):
            self._add_pairs(scores, inside, left[inside], right[inside], kind)
        return scores

    def _forget(self) -> None:
        self._forms = [Form(edge, edge, edge) for edge in EDGES]
        self._numbers: dict[str, int] = {}
        # Of pairs of words the rows of their features, by the numbers of both.
        self._pairs: list[dict[int, tuple[int, ...]]] = [{} for _ in PAIRS]
        # What each word adds by itself: at its own place, and 2 and 1 behind it, 1 and 2 before it.
        self._alone = self._alone_of(self._forms)

    def _learn(self, words: set[str]) -> None:
        """Give words that are new a number, and look up what they add by themselves."""
        if len(self._forms) + len(words) > KNOWN_WORDS:
            self._forget()
        new = [word for word in words if word not in self._numbers]
        if not new:
            return
        forms = list(map(form, new))
        self._numbers |= {word: len(self._forms) + at for at, word in enumerate(new)}
        used = len(self._forms)
        self._forms += forms
        if len(self._forms) > len(self._alone):
            room = np.zeros((2 * len(self._forms), *self._alone.shape[1:]))
            room[:used] = self._alone[:used]
            self._alone = room
        self._alone[used : len(self._forms)] = self._alone_of(forms)

    def _alone_of(self, forms: list[Form]) -> Floats:
        """``[forms, 5, tags]``."""
        kinds = [self._sums([own(word) for word in forms])]
        kinds += [self._sums([as_neighbour(word, distance) for word in forms]) for distance in (-2, -1, 1, 2)]
        return np.stack(kinds, 1)

    def _sums(self, names: list[list[str]]) -> Floats:
        """Summed weights of equally long lists of features ``[lists, tags]``."""
        unseen = len(self.weights) - 1
        sums: Floats = self.weights[[[self.rows.get(name, unseen) for name in one] for one in names]].sum(1)
        return sums

    def _add_pairs(self, scores: Floats, inside: tuple[Ints, ...], left: Ints, right: Ints, kind: int) -> None:
        """Add to ``scores`` at the places ``inside`` the weights of the features that pairs of words have together."""
        keys, which = np.unique(left * ROOM + right, return_inverse=True)
        rows = np.array(self._rows_of(keys.tolist(), kind))
        for column in rows.T:
            at = np.flatnonzero(column[which] != len(self.weights) - 1)  # few pairs have a weight
            scores[tuple(axis[at] for axis in inside)] += self.weights[column[which[at]]]

    def _rows_of(self, keys: list[int], kind: int) -> list[tuple[int, ...]]:
        known, names, unseen = self._pairs[kind], PAIRS[kind], len(self.weights) - 1
        if len(known) + len(keys) > KNOWN_PAIRS:
            known.clear()
        for key in keys:
            if key not in known:
                left, right = divmod(key, ROOM)
                found = names(self._forms[left], self._forms[right])
                known[key] = tuple(self.rows.get(name, unseen) for name in found)
        return [known[key] for key in keys]


def best_paths(emissions: Floats, lengths: Ints, transitions: Floats) -> Ints:
    """The best tag numbers of each sentence (Viterbi), whatever stands beyond its end.

    Args:
        emissions: ``[B, L, tags]``, the longest sentences first.
        lengths: ``[B]``, at least 1 and falling.
        transitions: ``[from tag, to tag]``.

    Returns:
        ``[B, L]``.
    """
    batch, longest, _ = emissions.shape
    score = emissions[:, 0].copy()
    came_from = [np.zeros((0, 0), np.int64)]
    still = (lengths[:, None] > np.arange(longest)).sum(0).tolist()  # sentences that have a word at a place
    into = np.ascontiguousarray(transitions.T)  # the tag it comes from last, where NumPy is quick
    for place, active in enumerate(still[1:], start=1):
        reached = score[:active, None, :] + into
        best = reached.argmax(2)
        came_from.append(best)
        score[:active] = np.take_along_axis(reached, best[..., None], 2)[..., 0] + emissions[:active, place]
    paths = np.zeros((batch, longest), np.int64)
    tag = score.argmax(1)
    for place in range(longest - 1, -1, -1):
        active = still[place]
        paths[:active, place] = tag[:active]
        if place:
            tag[:active] = came_from[place][np.arange(active), tag[:active]]
    return paths
