"""Recall and false alarms of the semantic control's check, against the fields that a corpus annotates.

    python benchmarks/semantic_check.py valid.txt

For every field, over the texts that have it: the share of texts in which the check finds the value (recall), and the
share of (text, other value) pairs in which it finds that value (false alarms). Writers leave out facts and reword them
freely, so recall is a property of the corpus as much as of the check.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from controls.wordings import read_wordings, statement
from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.datasets.readers import Record, read_corpus, sniff


def measure(records: list[Record], *, natural: bool) -> dict[tuple[str, str], list[int]]:
    """For each field and value: texts with it, and those where it is found; texts with another value, and those where
    it is found."""
    values: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for field, value in (record.fields or {}).items():
            values[field].add(value)
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    wordings = read_wordings(bundled_path("models", "e2e") / "controls" / "semantic")
    for record in records:
        for field, value in (record.fields or {}).items():
            for other in values[field]:
                is_found = statement(wordings, field, other, record.words, natural=natural) is not None
                count = counts[field, other]
                first = 0 if other == value else 2
                count[first] += 1
                count[first + 1] += is_found
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--values", action="store_true", help="a row for each value instead of each field")
    arguments = parser.parse_args()
    path = arguments.corpus
    records = list(read_corpus(path, sniff(path)))
    print(f"{len(records)} texts of {path.name}; recall / false alarms in %")
    exact, natural = measure(records, natural=False), measure(records, natural=True)
    rows = sorted(exact) if arguments.values else [(field, "") for field in dict.fromkeys(field for field, _ in exact)]
    print("| field | texts | exact: recall | false alarms | natural: recall | false alarms |")
    print("|---|---|---|---|---|---|")
    for field, value in rows:
        cells = []
        for counts in (exact, natural):
            chosen = [count for (name, other), count in counts.items() if name == field and other == (value or other)]
            positives, hits, negatives, false_alarms = (sum(column) for column in zip(*chosen, strict=True))
            cells += [f"{100 * hits / positives:.1f}", f"{100 * false_alarms / max(1, negatives):.2f}"]
        print(f"| {field}{': ' + value if value else ''} | {positives} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
