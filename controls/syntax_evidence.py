"""Syntax by word evidence: how well each word fits its place in a tree, or its parts in the spans asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.annotators.trees import JOIN, Span, Tree, labelled_spans, read_tree
from dlmctl.control.evidence.beside import Counted, count_table_of, fingerprint_of, known_or_negative
from dlmctl.control.evidence.prepared import PreparedEvidence
from dlmctl.control.evidence.spans import (
    LeafEvidence,
    SpanEvidence,
    count_leaves,
    count_spans,
    leaf_classes,
    span_parts,
)
from dlmctl.control.evidence.table import CountTable, fingerprint, pruned
from dlmctl.control.evidence.tags import count_tags, tag_evidence
from dlmctl.control.hints import hints_for
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.text.tokenizer import WordTokenizer

from .syntax_params import SyntaxTreeParams, require_labels
from .syntax_shapes import shapes_of

LEAVES_FILE, SPANS_FILE, UPOS_FILE = "leaves.safetensors", "spans.safetensors", "upos.safetensors"
SHAPES_FILE = "shapes.safetensors"
# Of words between the tags of their neighbours, as trees have them.
PENN_FILE = "tags.safetensors"
# Of the evidence, and of that of trees where the model is told the parts of speech; chosen on validation text.
WEIGHT, WITH_TAGS = 2.0, 1.0
# Beside a classifier, which sees whole texts: of trees and of spans; of tags, and of those beside them.
BESIDE_TREES, BESIDE_SPANS, BESIDE_TAGS = 1.0, 0.5, (0.5, 0.375)
# Of what the network is told of spans, beyond what it learned to be told, and of the table beside that; chosen on
# validation text. Of trees more than 1 brings nothing.
TOLD_SPANS, WITH_HINTS = 1.8, 1.5
# Parts of spans seen less often with a word are left out: two thirds of the table, and next to nothing of what it says.
LEAST_COUNT = 2
# The parts of constituents that a whole tree is told by; what is inside follows.
ENDS = ("only", "first", "last")


def count_syntax(
    sentences: Sequence[Sequence[str]],
    trees: Sequence[Tree],
    tags: Sequence[Sequence[str]],
    vocabulary: WordTokenizer,
) -> Counted:
    """The tables of leaves, parts of spans and tags, and of parts of speech by leaves, for models that are told such.

    Args:
        trees, tags: of each sentence its tree and its UPOS tags.
    """
    rows = [known_or_negative(words, vocabulary) for words in sentences]
    leaves = [leaf_classes(tree) for tree in trees]
    penn = [[tag for tag, _, _ in row] for row in leaves]
    spans = ((ids, found, labelled_spans(tree)) for ids, found, tree in zip(rows, penn, trees, strict=True))
    names = {tag: at for at, tag in enumerate(sorted({tag for row in penn for tag in row}))}
    tagged = zip(rows, [[names[tag] for tag in row] for row in penn], strict=True)
    size, words = len(vocabulary), fingerprint_of(vocabulary)
    number = {tag: at for at, tag in enumerate(UPOS_TAGS)}
    upos = zip([[number[tag] for tag in row] for row in tags], leaves, strict=True)
    return {
        LEAVES_FILE: count_leaves(zip(rows, leaves, strict=True), size, words),
        PENN_FILE: count_tags(tagged, list(names), size, words),
        SPANS_FILE: pruned(count_spans(spans, size, words), LEAST_COUNT),
        SHAPES_FILE: shapes_of(trees),
        UPOS_FILE: pruned(count_leaves(upos, len(UPOS_TAGS), fingerprint(UPOS_TAGS)), LEAST_COUNT),
    }


def by_evidence(folder: Path, alone: bool, batch: BatchContext[SyntaxTreeParams], whole: bool) -> Prepared:
    """Guidance by the table of leaves where ``whole`` trees are asked for, by that of parts of spans elsewhere.

    Args:
        folder: of the tables.
        alone: False where a classifier guides as well.

    Raises:
        RecipeError: a label was never counted.
    """
    table = count_table_of(folder / (LEAVES_FILE if whole else SPANS_FILE), fingerprint_of(batch.vocabulary))
    labels = [span.label for params in batch.params for span in params.wanted]
    require_labels([part for label in labels for part in label.split(JOIN)] if whole else labels, table.axes[1])
    counts = [params.words for params in batch.params]
    if not whole:
        sizes = [layout.positions - SPECIAL if layout.words is None else layout.words for layout in batch.layouts]
        texts = [(size, params.wanted) for size, params in zip(sizes, batch.params, strict=True)]
        told = _told(folder, batch, [None] * len(batch))
        weight = BESIDE_SPANS if not alone else WEIGHT if told is None else WITH_HINTS
        evidence = _span_evidence(table).evidence(texts, batch.length).scaled(weight)
        found = PreparedEvidence(evidence, counts, batch)
        found.hints = None if told is None else TOLD_SPANS * told
        return found
    trees = [read_tree(params.tree or "") for params in batch.params]
    weight = BESIDE_TREES if not alone else WITH_TAGS if batch.reads else WEIGHT
    evidence = _leaf_evidence(table).evidence(trees, batch.length).scaled(weight)
    found = PreparedEvidence(evidence, counts, batch, [_upos(folder / UPOS_FILE, tree) for tree in trees])
    if not alone:
        tags = count_table_of(folder / PENN_FILE, fingerprint_of(batch.vocabulary))
        of_trees = [[tag for tag, _, _ in leaf_classes(tree)] for tree in trees]
        beside = tag_evidence(tags, *BESIDE_TAGS).evidence(of_trees, batch.length)
        found.evidence = found.evidence + PreparedEvidence(beside, counts, batch).evidence
    found.hints = _told(folder, batch, trees)
    return found


def _told(folder: Path, batch: BatchContext[SyntaxTreeParams], trees: Sequence[Tree | None]) -> Tensor | None:
    """What the network is told of each tree or, where there is none, of the spans."""
    pairs = zip(batch.params, trees, strict=True)
    return hints_for(folder, batch, [features_of(one.words, one.wanted, tree) for one, tree in pairs])


def features_of(words: int, spans: Sequence[Span], tree: Tree | None) -> list[list[str]]:
    """What a tree or some spans ask of each word: its leaf, and where constituents begin and end.

    Args:
        tree: all of the text; None where the spans are only some of its constituents.
    """
    found: list[list[str]] = [[] for _ in range(words)]
    if tree is not None:
        for place, leaf in zip(found, leaf_classes(tree), strict=True):
            place += [f"{axis} {name}" for axis, name in zip(("tag", "parent", "next"), leaf, strict=True)]
    kind = "span" if tree is None else "tree"
    for at, (part, label, width) in span_parts(spans, words):
        if tree is None or part in ENDS:
            found[at] += [f"{kind} {part} {label}", f"{kind} {part} {width}"]
    return found


def _upos(path: Path, tree: Tree) -> list[str]:
    """The most frequent part of speech of each leaf of a tree."""
    counts = _leaf_evidence(count_table_of(path, fingerprint(UPOS_TAGS)))
    rows = counts.table.sums(np.stack([counts.classes(leaf) for leaf in leaf_classes(tree)]))
    return [UPOS_TAGS[row.argmax()] for row in rows]


@lru_cache(maxsize=4)
def _leaf_evidence(table: CountTable) -> LeafEvidence:
    return LeafEvidence(table)


@lru_cache(maxsize=4)
def _span_evidence(table: CountTable) -> SpanEvidence:
    return SpanEvidence(table)
