"""Which texts are held out for validation: a random share, and nothing of them in what is learned from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dlmctl.datasets.readers import Record


def hold_out(records: Sequence[Record], share: float, seed: int) -> set[int]:
    """The numbers of a random share of the records; empty where all of them hang together.

    Equal texts stay together, and so do texts that were cut from one row: each sentence of a story stands beside its
    neighbours, too, so that one that is held out would be told by those that are not.
    """
    groups = _together(records)
    if len(groups) < 2:
        return set()
    wanted = min(max(1, round(share * len(records))), len(records) - 1)
    held: set[int] = set()
    for group in np.random.default_rng(seed).permutation(len(groups)):
        if len(held) + len(groups[group]) <= wanted:
            held.update(groups[group])
    return held or set(sorted(groups, key=len)[0])


def _together(records: Sequence[Record]) -> list[list[int]]:
    """The numbers of the records that stay on one side, by groups, these in the order of their first ones.

    Two records hang together by their words or their row, or where others lead from one to the other by these.
    """
    leaders = list(range(len(records)))

    def leader(at: int) -> int:
        while leaders[at] != at:
            leaders[at] = leaders[leaders[at]]
            at = leaders[at]
        return at

    first: dict[Hashable, int] = {}
    for at, record in enumerate(records):
        for key in (tuple(record.words), record.row):
            if key is not None:
                one, other = leader(first.setdefault(key, at)), leader(at)
                leaders[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = {}
    for at in range(len(records)):
        groups.setdefault(leader(at), []).append(at)
    return list(groups.values())
