"""The choice of texts to hold out for validation: a random share, with no overlap with the training texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dlmctl.datasets.readers import Record


def hold_out(records: Sequence[Record], share: float, seed: int) -> set[int]:
    """The indices of a random share of the records; empty if all records are connected.

    Equal texts stay together, and so do texts cut from the same row: each sentence of a story also occurs as a
    neighbour of others, so training on those would reveal a sentence that is held out.
    """
    groups = _connected_groups(records)
    if len(groups) < 2:
        return set()
    max_count = min(max(1, round(share * len(records))), len(records) - 1)
    held_out: set[int] = set()
    for group in np.random.default_rng(seed).permutation(len(groups)):
        if len(held_out) + len(groups[group]) <= max_count:
            held_out.update(groups[group])
    return held_out or set(sorted(groups, key=len)[0])


def _connected_groups(records: Sequence[Record]) -> list[list[int]]:
    """The indices of records that must not be separated, in groups ordered by their first record.

    Two records are connected if they have the same words or row, directly or through other records (union-find).
    """
    parents = list(range(len(records)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first_index: dict[Hashable, int] = {}
    for index, record in enumerate(records):
        for key in (tuple(record.words), record.row):
            if key is not None:
                first_root, own_root = root(first_index.setdefault(key, index)), root(index)
                parents[max(first_root, own_root)] = min(first_root, own_root)
    groups: dict[int, list[int]] = {}
    for index in range(len(records)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())
