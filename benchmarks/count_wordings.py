"""How a corpus states the values of its fields: the phrases that texts under ``semantic`` are held to.

    python benchmarks/count_wordings.py train.txt WORDINGS.json

Adds ``said`` to a wordings.json: for each field and value the phrases that state it by themselves, by the check's own
rule, the most frequent first; each at least ``LEAST`` times, and at most ``MOST`` of them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from controls.wordings import Wordings, read_wordings, span_of, statement
from dlmctl.datasets.readers import Record, read_corpus, sniff
from dlmctl.text.fields import field_key

LEAST, MOST, REACH = 15, 12, 5


def phrases_of(record: Record, wordings: Wordings) -> list[tuple[str, str, tuple[str, ...]]]:
    """Field, value and the shortest phrase of a text that states it, for the fields that it does state."""
    found = []
    for field, value in (record.fields or {}).items():
        said = statement(wordings, field, value, record.words, natural=True)
        if said is None:
            continue
        first, last = span_of(said, record.words)
        for start in range(first, max(-1, first - REACH - 1), -1):
            phrase = tuple(record.words[start : last + 1])
            if statement(wordings, field, value, phrase, natural=True) is not None:
                found.append((field_key(field), str(value), phrase))
                break
    return found


def main() -> None:
    corpus, path = Path(sys.argv[1]), Path(sys.argv[2])
    wordings = read_wordings(path.parent)
    counts: dict[tuple[str, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for record in read_corpus(corpus, sniff(corpus)):
        for field, value, phrase in phrases_of(record, wordings):
            counts[field, value][phrase] += 1
    said: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for (field, value), found in sorted(counts.items()):
        said[field][value] = [" ".join(phrase) for phrase, count in found.most_common(MOST) if count >= LEAST]
    whole = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**whole, "said": said}, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
