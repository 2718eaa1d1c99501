"""The words that two models share, matched by spelling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

# A new word resembles the known words with the same last letters: as many letters as this many words share.
MAX_ENDING, LEAST_SIMILAR = 3, 5


class RowMatch(NamedTuple):
    """Corresponding rows of two tensors: indices in ``ours`` and in ``theirs``, of the same length."""

    ours: Tensor
    theirs: Tensor

    @classmethod
    def of_names(cls, ours: Sequence[object], theirs: Sequence[object]) -> RowMatch:
        """Match rows that have the same name."""
        their_rows = {name: row for row, name in enumerate(theirs)}
        pairs = [(row, their_rows[name]) for row, name in enumerate(ours) if name in their_rows]
        return cls(*(torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1)))


def matched_words(ours: Tokenizer, theirs: Tokenizer) -> RowMatch:
    """Match the ids of two vocabularies; special tokens match by their role."""
    return RowMatch.of_names(names_of(ours), names_of(theirs))


def names_of(tokenizer: Tokenizer) -> list[object]:
    """A key for each id: its spelling; special tokens have keys that differ from words spelled like them."""
    special = {getattr(tokenizer, f"{kind}_id"): kind for kind in ("start", "end", "unk", "pad")}
    return [(special[i],) if i in special else tokenizer.token(i) for i in range(len(tokenizer))]


def similar_words(tokenizer: Tokenizer, known: Tensor) -> dict[int, list[int]]:
    """For each id outside ``known``: the ids of known words that end alike and agree in their first letter's case.

    Endings say much about the part of speech of a word (Brants 2000). Words without similar ones, and tokens that are
    not whole words, are left out.
    """
    if not isinstance(tokenizer, WordTokenizer):
        return {}
    known_ids = set(cast("list[int]", known.tolist()))
    by_ending: defaultdict[tuple[bool, str], list[int]] = defaultdict(list)
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
    for index in known_ids - special:
        for key in _endings(tokenizer.token(index)):
            by_ending[key].append(index)
    similar: dict[int, list[int]] = {}
    for index in range(len(tokenizer)):
        if index not in known_ids:
            candidates = (by_ending.get(key, []) for key in _endings(tokenizer.token(index)))
            found = next((ids for ids in candidates if len(ids) >= LEAST_SIMILAR), None)
            if found is not None:
                similar[index] = found
    return similar


def start_like_similar(rows: Tensor, tokenizer: Tokenizer, known: Tensor) -> None:
    """Set the row of each word outside ``known`` in ``rows [V, ...]`` to the mean of the rows of its ``similar_words``,
    in place; words without similar ones keep theirs."""
    for word, similar in similar_words(tokenizer, known).items():
        rows[word] = rows[torch.tensor(similar)].mean(0)


def _endings(word: str) -> list[tuple[bool, str]]:
    """The endings of a word with the case of its first letter, the longest first."""
    return [(word[:1].isupper(), word[-size:]) for size in range(min(MAX_ENDING, len(word)), 0, -1)]
