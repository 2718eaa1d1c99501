"""E2E texts with their tags, trees and attributes, annotated by the bundled tagger and parser."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import Span, Tree, labelled_spans, read_tree

CHUNK = 2000


@dataclass(frozen=True)
class Text:
    """A text: its words, their UPOS tags, its tree, and the values of its fields."""

    words: list[str]
    tags: list[str]
    tree: Tree
    fields: dict[str, str]

    @cached_property
    def spans(self) -> list[Span]:
        return labelled_spans(self.tree)


def annotate(source: Path, out: Path) -> None:
    """Tag and parse the lines ``field : value | ... || text`` of E2E, and write gzipped JSON lines. Takes minutes."""
    lines = source.read_text("utf-8").splitlines()
    tag, parse = upos_tagger(), constituency_parser()
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for start in range(0, len(lines), CHUNK):
            parts = [line.partition("||") for line in lines[start : start + CHUNK]]
            words = [text.split() for _, _, text in parts]
            rows = zip(parts, words, tag(words), parse(words), strict=True)
            for (meaning, _, _), tokens, tags, tree in rows:
                record = {"mr": meaning.strip(), "words": " ".join(tokens), "tags": " ".join(tags), "tree": str(tree)}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_annotated(path: Path, longest: int = 62) -> list[Text]:
    """The texts that ``annotate`` wrote, without those too long for the models."""
    return [text for text in _texts(path) if len(text.words) <= longest]


def _texts(path: Path) -> Iterator[Text]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            pairs = (part.partition(" : ") for part in record["mr"].split(" | "))
            fields = {name.strip(): value.strip() for name, _, value in pairs}
            yield Text(record["words"].split(), record["tags"].split(), read_tree(record["tree"]), fields)


def leaf_marks(tree: Tree) -> list[str]:
    """For each word the phrases that open before it, its tag, and a bracket per phrase that closes after it; together
    they determine the tree."""
    tags = [leaf.label for leaf in tree.leaves()]
    opens: list[list[str]] = [[] for _ in tags]
    closes = [0] * len(tags)
    for start, end, label in labelled_spans(tree):
        opens[start].append(label)
        closes[end] += 1
    rows = zip(opens, tags, closes, strict=True)
    return [f"{' '.join(opened)}({tag}{')' * closed}" for opened, tag, closed in rows]
