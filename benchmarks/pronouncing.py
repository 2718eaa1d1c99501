"""The CMU Pronouncing Dictionary, read and written in part: for ``syllables.py`` and ``rhymes.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlmctl.text import pronouncing

SOURCE = "The CMU Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict"


def read_pronunciations(folder: Path) -> dict[str, list[str]]:
    """The sounds of each word of letters, by its first pronunciation; vowels end in a digit for their stress."""
    sounds: dict[str, list[str]] = {}
    for line in (folder / "cmudict.dict").read_text("utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        if word.isascii() and all(part.isalpha() for part in word.split("'")):
            sounds.setdefault(word, phones)
    return sounds


def write_groups(folder: Path, file: str, groups: Mapping[str, Sequence[str]]) -> None:
    """Write groups of words for ``dlmctl.text.pronouncing.word_groups``, with the licence in ``folder``."""
    words = {key: " ".join(group) for key, group in groups.items()}
    value = {"source": SOURCE, "licence": (folder / "LICENSE").read_text("utf-8").strip(), "words": words}
    target = Path(pronouncing.__file__).with_name(file)
    target.write_text(json.dumps(value, indent=0, ensure_ascii=True) + "\n", "utf-8")
