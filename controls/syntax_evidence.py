"""Syntax by word evidence: how well each word fits its place in a tree, or its parts in the spans asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.annotators.trees import JOIN, Tree, labelled_spans, read_tree
from dlmctl.control.evidence.beside import Counted, count_table_of, fingerprint_of, known_or_negative
from dlmctl.control.evidence.prepared import Evidence, PreparedEvidence, joined
from dlmctl.control.evidence.spans import LeafEvidence, SpanEvidence, count_leaves, count_spans, leaf_classes
from dlmctl.control.evidence.table import CountTable, fingerprint, pruned
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.errors import RecipeError, nearest
from dlmctl.text.tokenizer import WordTokenizer

from .syntax_params import SyntaxTreeParams

LEAVES_FILE, SPANS_FILE, UPOS_FILE = "leaves.safetensors", "spans.safetensors", "upos.safetensors"
# Of the evidence, and of that of trees where the model is told the parts of speech; chosen on validation text.
WEIGHT, WITH_TAGS = 2.0, 1.0
# Parts of spans seen less often with a word are left out: two thirds of the table, and next to nothing of what it says.
LEAST_COUNT = 2


def count_syntax(
    sentences: Sequence[Sequence[str]],
    trees: Sequence[Tree],
    tags: Sequence[Sequence[str]],
    vocabulary: WordTokenizer,
) -> Counted:
    """The tables of leaves, of parts of spans, and of parts of speech by leaves, which models that read such are told.

    Args:
        trees, tags: of each sentence its tree and its UPOS tags.
    """
    rows = [known_or_negative(words, vocabulary) for words in sentences]
    leaves = [leaf_classes(tree) for tree in trees]
    spans = (
        (ids, [tag for tag, _, _ in found], labelled_spans(tree))
        for ids, found, tree in zip(rows, leaves, trees, strict=True)
    )
    size, words = len(vocabulary), fingerprint_of(vocabulary)
    number = {tag: at for at, tag in enumerate(UPOS_TAGS)}
    upos = zip([[number[tag] for tag in row] for row in tags], leaves, strict=True)
    return {
        LEAVES_FILE: count_leaves(zip(rows, leaves, strict=True), size, words),
        SPANS_FILE: pruned(count_spans(spans, size, words), LEAST_COUNT),
        UPOS_FILE: pruned(count_leaves(upos, len(UPOS_TAGS), fingerprint(UPOS_TAGS)), LEAST_COUNT),
    }


class PreparedSyntax(PreparedEvidence):
    """Guidance by the table of leaves for rows with a tree, and by that of parts of spans for the others.

    Args:
        folder: of the two tables.

    Raises:
        RecipeError: a label was never counted.
    """

    def __init__(self, folder: Path, batch: BatchContext[SyntaxTreeParams]) -> None:
        trees = [row for row, params in enumerate(batch.params) if params.tree is not None]
        others = [row for row, params in enumerate(batch.params) if params.tree is None]
        weight = WITH_TAGS if getattr(batch.model.config, "tags", ()) else WEIGHT
        parts = [(trees, _of_trees(folder, trees, batch).scaled(weight))] if trees else []
        parts += [(others, _of_spans(folder, others, batch).scaled(WEIGHT))] if others else []
        super().__init__(joined(parts), [params.words for params in batch.params], batch)
        self.tags = [_upos(folder / UPOS_FILE, params.tree) for params in batch.params]


def _upos(path: Path, tree: str | None) -> list[str]:
    """The most frequent part of speech of each leaf of a tree, empty where there is none."""
    if tree is None:
        return []
    counts = _leaf_evidence(count_table_of(path, fingerprint(UPOS_TAGS)))
    rows = counts.table.sums(np.stack([counts.classes(leaf) for leaf in leaf_classes(read_tree(tree))]))
    return [UPOS_TAGS[row.argmax()] for row in rows]


def _of_trees(folder: Path, rows: Sequence[int], batch: BatchContext[SyntaxTreeParams]) -> Evidence:
    maker = _leaf_evidence(count_table_of(folder / LEAVES_FILE, fingerprint_of(batch.vocabulary)))
    for row in rows:
        for label in {part for span in batch.params[row].wanted for part in span.label.split(JOIN)}:
            _require(label, maker.table.axes[1])
    return maker.evidence([read_tree(batch.params[row].tree or "") for row in rows], batch.length)


def _of_spans(folder: Path, rows: Sequence[int], batch: BatchContext[SyntaxTreeParams]) -> Evidence:
    maker = _span_evidence(count_table_of(folder / SPANS_FILE, fingerprint_of(batch.vocabulary)))
    for row in rows:
        for span in batch.params[row].wanted:
            _require(span.label, maker.table.axes[1])
    layouts = [batch.layouts[row] for row in rows]
    counts = [layout.positions - SPECIAL if layout.words is None else layout.words for layout in layouts]
    texts = [(count, batch.params[row].wanted) for count, row in zip(counts, rows, strict=True)]
    return maker.evidence(texts, batch.length)


def _require(label: str, known: Collection[str]) -> None:
    if label not in known:
        what = f"the label {label!r} is not among those that the words of this model were counted with."
        raise RecipeError(what, remedy=nearest(label, sorted(known)))


@lru_cache(maxsize=4)
def _leaf_evidence(table: CountTable) -> LeafEvidence:
    return LeafEvidence(table)


@lru_cache(maxsize=4)
def _span_evidence(table: CountTable) -> SpanEvidence:
    return SpanEvidence(table)
