"""Count how a corpus states the values of its fields: the phrases that ``semantic`` requires of texts.

    python benchmarks/count_wordings.py train.txt WORDINGS.json

Adds ``said`` to a wordings.json: for each field and value the phrases that state it by themselves, according to the
check, the most frequent first; each occurs at least ``MIN_COUNT`` times, and there are at most ``MAX_PHRASES``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from controls.wordings import Wordings, read_wordings, span_of, statement
from dlmctl.datasets.readers import Record, read_corpus, sniff
from dlmctl.text.fields import field_key

# MAX_EXTENSION: the most words by which a phrase is extended to the left.
MIN_COUNT, MAX_PHRASES, MAX_EXTENSION = 15, 12, 5


def phrases_of(record: Record, wordings: Wordings) -> list[tuple[str, str, tuple[str, ...]]]:
    """Field, value and the shortest phrase that states it, for the fields that a text states."""
    phrases = []
    for field, value in (record.fields or {}).items():
        stated = statement(wordings, field, value, record.words, natural=True)
        if stated is None:
            continue
        first, last = span_of(stated, record.words)
        for start in range(first, max(-1, first - MAX_EXTENSION - 1), -1):
            phrase = tuple(record.words[start : last + 1])
            if statement(wordings, field, value, phrase, natural=True) is not None:
                phrases.append((field_key(field), str(value), phrase))
                break
    return phrases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("wordings", type=Path, help="the wordings.json of a control")
    arguments = parser.parse_args()
    corpus, path = arguments.corpus, arguments.wordings
    wordings = read_wordings(path.parent)
    counts: dict[tuple[str, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for record in read_corpus(corpus, sniff(corpus)):
        for field, value, phrase in phrases_of(record, wordings):
            counts[field, value][phrase] += 1
    said: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for (field, value), phrase_counts in sorted(counts.items()):
        frequent = phrase_counts.most_common(MAX_PHRASES)
        said[field][value] = [" ".join(phrase) for phrase, count in frequent if count >= MIN_COUNT]
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, "said": said}, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
