"""A linear-chain conditional random field over words (Lafferty et al. 2001), decoded for many sentences at once.

Features are read from words and their neighbours. All but five depend on a single word, so they are looked up once for
each distinct word; the others once for each distinct pair. Scores are sums of whole thousandths, exact in any order: a
sentence gets the same tags in any batch.
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

# Padding words: two before a sentence and two after it.
BEFORE, AFTER = ("<<", "<"), (">", ">>")
EDGES = (*BEFORE, *AFTER)
# Words tagged at once, which bounds memory.
CHUNK_WORDS = 20_000
# Words whose scores are cached, and pairs of each kind whose features are cached.
KNOWN_WORDS, KNOWN_PAIRS = 100_000, 50_000

_DIGIT = re.compile(r"\d")
_REPEAT = re.compile(r"(.)\1+")


class Form(NamedTuple):
    """The forms of a word that features use: as written, in lower case with digits as 0, and its shape."""

    written: str
    low: str
    shape: str


def shape(word: str) -> str:
    """The word's kinds of characters without repetitions: ``Café`` is ``Xx``, ``25`` is ``d``, ``A-1`` is ``X-d``."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    return _REPEAT.sub(r"\1", "".join(kinds))


def form(word: str) -> Form:
    """The forms of a word."""
    return Form(word, _DIGIT.sub("0", word.lower()), shape(word))


def own(word: Form) -> list[str]:
    """Features of a word for its own place."""
    low = word.low
    affixes = [f"prefix{n}={low[:n]}" for n in (1, 2, 3)] + [f"suffix{n}={low[-n:]}" for n in (1, 2, 3, 4)]
    return [f"word={low}", f"form={word.written}", *affixes, f"shape={word.shape}"]


def as_neighbour(word: Form, distance: int) -> list[str]:
    """Features of a word for the place ``distance`` words before it (after it, if negative)."""
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


# The features of pairs of words: of two neighbours, for the right one and for the left one, and of the two words around
# a word.
PAIRS: tuple[Callable[[Form, Form], tuple[str, ...]], ...] = (
    lambda left, right: of_pair(left, right)[:2],
    lambda left, right: of_pair(left, right)[2:],
    lambda left, right: (around(left, right),),
)
# Larger than any word number, to make a single key of a pair.
PAIR_BASE = 2 * KNOWN_WORDS


def features(words: Sequence[str]) -> list[list[str]]:
    """All features of each word, the same number for each; used for training."""
    edges = [Form(edge, edge, edge) for edge in EDGES]
    forms = [*edges[:2], *map(form, words), *edges[2:]]
    word_features = []
    for at in range(2, len(forms) - 2):
        l2, l1, here, r1, r2 = forms[at - 2 : at + 3]
        before, after = of_pair(l1, here)[:2], of_pair(here, r1)[2:]
        neighbours = [*as_neighbour(l2, -2), *as_neighbour(l1, -1), *as_neighbour(r1, 1), *as_neighbour(r2, 2)]
        word_features.append([*own(here), *neighbours, *before, *after, around(l1, r1)])
    return word_features


class FieldTagger:
    """A tagger with the weights of a trained field.

    Args:
        tags: names of the tags.
        rows: feature to row of ``weights``.
        weights: ``[features + 1, tags]`` in thousandths; the last row is for unseen features.
        transitions: ``[from tag, to tag]``.
    """

    def __init__(self, tags: list[str], rows: dict[str, int], weights: Floats, transitions: Floats) -> None:
        self.tags, self.rows = tags, rows
        # Whole numbers, so that sums are exact; training writes thousandths.
        self.weights, self.transitions = np.rint(weights * 1000), np.rint(transitions * 1000)
        self._clear_cache()

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """One tag for each word."""
        tags: list[list[str]] = [[] for _ in sentences]
        order = sorted((at for at, words in enumerate(sentences) if words), key=lambda at: -len(sentences[at]))
        while order:
            size = max(1, CHUNK_WORDS // len(sentences[order[0]]))
            chunk, order = order[:size], order[size:]
            lengths = np.array([len(sentences[at]) for at in chunk])
            paths = best_paths(self.emissions([sentences[at] for at in chunk]), lengths, self.transitions)
            for at, path, length in zip(chunk, paths.tolist(), lengths.tolist(), strict=True):
                tags[at] = [self.tags[tag] for tag in path[:length]]
        return tags

    def emissions(self, sentences: Sequence[Sequence[str]]) -> Floats:
        """Scores of every tag at every place ``[sentences, longest, tags]``; meaningless after a sentence's end."""
        longest = max(map(len, sentences))
        self._cache_words({word for words in sentences for word in words})
        # Edges have their own numbers, since a word may be spelled like one.
        places = np.full((len(sentences), longest + 4), len(EDGES) - 1)
        places[:, :2] = (0, 1)
        for row, words in enumerate(sentences):
            places[row, 2 : len(words) + 2] = [self._numbers[word] for word in words]
            places[row, len(words) + 2] = 2
        l2, l1, here, r1, r2 = (places[:, at : at + longest] for at in range(5))
        scores = self._word_scores[here, 0]
        for kind, neighbours in enumerate((l2, l1, r1, r2), start=1):
            scores += self._word_scores[neighbours, kind]
        inside = np.nonzero(here >= len(EDGES))
        pairs = (l1, here), (here, r1), (l1, r1)
        for kind, (left, right) in enumerate(pairs):
            self._add_pairs(scores, inside, left[inside], right[inside], kind)
        return scores

    def _clear_cache(self) -> None:
        self._forms = [Form(edge, edge, edge) for edge in EDGES]
        self._numbers: dict[str, int] = {}
        # The feature rows of pairs of words, by the numbers of both.
        self._pairs: list[dict[int, tuple[int, ...]]] = [{} for _ in PAIRS]
        # The scores that each word adds alone: at its own place, 2 and 1 after it, 1 and 2 before it.
        self._word_scores = self._scores_of(self._forms)

    def _cache_words(self, words: set[str]) -> None:
        """Number new words, and compute the scores that they add alone."""
        if len(self._forms) + len(words) > KNOWN_WORDS:
            self._clear_cache()
        new = [word for word in words if word not in self._numbers]
        if not new:
            return
        forms = list(map(form, new))
        self._numbers |= {word: len(self._forms) + at for at, word in enumerate(new)}
        used = len(self._forms)
        self._forms += forms
        if len(self._forms) > len(self._word_scores):
            larger = np.zeros((2 * len(self._forms), *self._word_scores.shape[1:]))
            larger[:used] = self._word_scores[:used]
            self._word_scores = larger
        self._word_scores[used : len(self._forms)] = self._scores_of(forms)

    def _scores_of(self, forms: list[Form]) -> Floats:
        """The scores ``[forms, 5, tags]`` that words add alone."""
        kinds = [self._sums([own(word) for word in forms])]
        kinds += [self._sums([as_neighbour(word, distance) for word in forms]) for distance in (-2, -1, 1, 2)]
        return np.stack(kinds, 1)

    def _sums(self, names: list[list[str]]) -> Floats:
        """Summed weights ``[lists, tags]`` of equally long lists of features."""
        unseen = len(self.weights) - 1
        sums: Floats = self.weights[[[self.rows.get(name, unseen) for name in row] for row in names]].sum(1)
        return sums

    def _add_pairs(self, scores: Floats, inside: tuple[Ints, ...], left: Ints, right: Ints, kind: int) -> None:
        """Add the weights of the features of word pairs to ``scores`` at the places ``inside``."""
        keys, which = np.unique(left * PAIR_BASE + right, return_inverse=True)
        rows = np.array(self._rows_of(keys.tolist(), kind))
        for column in rows.T:
            at = np.flatnonzero(column[which] != len(self.weights) - 1)  # few pairs have a weight
            scores[tuple(axis[at] for axis in inside)] += self.weights[column[which[at]]]

    def _rows_of(self, keys: list[int], kind: int) -> list[tuple[int, ...]]:
        known, features_of, unseen = self._pairs[kind], PAIRS[kind], len(self.weights) - 1
        if len(known) + len(keys) > KNOWN_PAIRS:
            known.clear()
        for key in keys:
            if key not in known:
                left, right = divmod(key, PAIR_BASE)
                names = features_of(self._forms[left], self._forms[right])
                known[key] = tuple(self.rows.get(name, unseen) for name in names)
        return [known[key] for key in keys]


def best_paths(emissions: Floats, lengths: Ints, transitions: Floats) -> Ints:
    """The best tag numbers of each sentence (Viterbi); scores after its end are ignored.

    Args:
        emissions: ``[B, L, tags]``, the longest sentences first.
        lengths: ``[B]``, at least 1, in descending order.
        transitions: ``[from tag, to tag]``.

    Returns:
        ``[B, L]``.
    """
    batch, longest, _ = emissions.shape
    score = emissions[:, 0].copy()
    back_pointers = [np.zeros((0, 0), np.int64)]
    active_counts = (lengths[:, None] > np.arange(longest)).sum(0).tolist()  # sentences with a word at a place
    into = np.ascontiguousarray(transitions.T)  # the source tag in the last axis, where NumPy is fast
    for place, active in enumerate(active_counts[1:], start=1):
        candidates = score[:active, None, :] + into
        best = candidates.argmax(2)
        back_pointers.append(best)
        score[:active] = np.take_along_axis(candidates, best[..., None], 2)[..., 0] + emissions[:active, place]
    paths = np.zeros((batch, longest), np.int64)
    tag = score.argmax(1)
    for place in range(longest - 1, -1, -1):
        active = active_counts[place]
        paths[:active, place] = tag[:active]
        if place:
            tag[:active] = back_pointers[place][np.arange(active), tag[:active]]
    return paths
