"""Words of the CMU Pronouncing Dictionary in groups: files beside this one, as ``benchmarks/pronouncing.py`` writes
them, with the dictionary's licence."""

from __future__ import annotations

import json
from importlib.resources import files


def word_groups(file: str) -> dict[str, list[str]]:
    """The words of each group in a file, by what they have in common."""
    groups = json.loads(files(__package__).joinpath(file).read_text("utf-8"))["words"]
    return {key: words.split() for key, words in groups.items()}
