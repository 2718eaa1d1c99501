"""Guidance of syntax by word evidence: how well each word fits its leaf of a tree, or its parts of wanted spans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.annotators.trees import JOIN, Span, Tree, labelled_spans, read_tree
from dlmctl.control.evidence.beside import EvidenceFiles, count_table_of, fingerprint_of, ids_or_negative
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
from dlmctl.text.tokenizer import Tokenizer

from .syntax_params import SyntaxTreeParams, require_labels
from .syntax_shapes import shapes_of

LEAVES_FILE, SPANS_FILE, UPOS_FILE = "leaves.safetensors", "spans.safetensors", "upos.safetensors"
SHAPES_FILE = "shapes.safetensors"
# Counts of words between the tags of their neighbours, with the tags of trees.
PENN_FILE = "tags.safetensors"
# Weights of the evidence, and of that of trees if the model reads the parts of speech; chosen on validation text.
WEIGHT, WITH_TAGS = 2.0, 0.8
# Weights next to a classifier, which sees whole texts: of trees, of spans, and of tags and their neighbours.
BESIDE_TREES, BESIDE_SPANS, BESIDE_TAGS = 1.0, 0.5, (0.5, 0.375)
# The factors of the hints of trees and of spans, relative to training, and the weight of the table of spans next to
# hints; chosen on validation text.
TREE_HINTS, SPAN_HINTS, WITH_HINTS = 1.6, 1.4, 1.5
# Parts of spans seen less often with a word are left out: two thirds of the table, but next to none of its information.
MIN_COUNT = 2
# The parts of constituents in the features of a whole tree; those inside follow from them.
ENDS = ("only", "first", "last")


def count_syntax(
    sentences: Sequence[Sequence[str]],
    trees: Sequence[Tree],
    tags: Sequence[Sequence[str]],
    vocabulary: Tokenizer,
) -> EvidenceFiles:
    """The tables of leaves, parts of spans and tags, and of parts of speech by leaves, for models that read these.

    Args:
        trees, tags: the tree and the UPOS tags of each sentence.
    """
    token_ids = [ids_or_negative(words, vocabulary) for words in sentences]
    leaves = [leaf_classes(tree) for tree in trees]
    penn_tags = [[tag for tag, _, _ in row] for row in leaves]
    spans = (
        (ids, row_tags, labelled_spans(tree)) for ids, row_tags, tree in zip(token_ids, penn_tags, trees, strict=True)
    )
    penn_ids = {tag: at for at, tag in enumerate(sorted({tag for row in penn_tags for tag in row}))}
    tagged = zip(token_ids, [[penn_ids[tag] for tag in row] for row in penn_tags], strict=True)
    size, words = len(vocabulary), fingerprint_of(vocabulary)
    upos_ids = {tag: at for at, tag in enumerate(UPOS_TAGS)}
    upos = zip([[upos_ids[tag] for tag in row] for row in tags], leaves, strict=True)
    return {
        LEAVES_FILE: count_leaves(zip(token_ids, leaves, strict=True), size, words),
        PENN_FILE: count_tags(tagged, list(penn_ids), size, words),
        SPANS_FILE: pruned(count_spans(spans, size, words), MIN_COUNT),
        SHAPES_FILE: shapes_of(trees),
        UPOS_FILE: pruned(count_leaves(upos, len(UPOS_TAGS), fingerprint(UPOS_TAGS)), MIN_COUNT),
    }


def by_evidence(folder: Path, alone: bool, batch: BatchContext[SyntaxTreeParams], whole: bool) -> Prepared:
    """Guidance by the table of leaves for ``whole`` trees, or by that of parts of spans.

    Args:
        folder: the folder of the tables.
        alone: False if a classifier guides as well.

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
        hints = _hints(folder, batch, [None] * len(batch), SPAN_HINTS)
        weight = BESIDE_SPANS if not alone else WEIGHT if hints is None else WITH_HINTS
        evidence = _span_evidence(table).evidence(texts, batch.length).scaled(weight)
        prepared = PreparedEvidence(evidence, counts, batch)
        prepared.hints = hints
        return prepared
    trees = [read_tree(params.tree or "") for params in batch.params]
    weight = BESIDE_TREES if not alone else WITH_TAGS if batch.reads else WEIGHT
    evidence = _leaf_evidence(table).evidence(trees, batch.length).scaled(weight)
    prepared = PreparedEvidence(evidence, counts, batch, [_upos(folder / UPOS_FILE, tree) for tree in trees])
    if not alone:
        tag_table = count_table_of(folder / PENN_FILE, fingerprint_of(batch.vocabulary))
        tags = [[tag for tag, _, _ in leaf_classes(tree)] for tree in trees]
        tags_evidence = tag_evidence(tag_table, *BESIDE_TAGS).evidence(tags, batch.length)
        prepared.evidence = prepared.evidence + PreparedEvidence(tags_evidence, counts, batch).evidence
    prepared.hints = _hints(folder, batch, trees, TREE_HINTS)
    return prepared


def _hints(
    folder: Path, batch: BatchContext[SyntaxTreeParams], trees: Sequence[Tree | None], scale: float
) -> Tensor | None:
    """The scaled hints for each tree, or for the spans if it is None."""
    pairs = zip(batch.params, trees, strict=True)
    hints = hints_for(folder, batch, [features_of(params.words, params.wanted, tree) for params, tree in pairs])
    return None if hints is None else scale * hints


def features_of(words: int, spans: Sequence[Span], tree: Tree | None) -> list[list[str]]:
    """The features of each word according to a tree or some spans: its leaf, and where constituents begin and end.

    Args:
        words: the number of words.
        tree: the tree of the whole text; None if the spans are only some of its constituents.
    """
    features: list[list[str]] = [[] for _ in range(words)]
    if tree is not None:
        for names, leaf in zip(features, leaf_classes(tree), strict=True):
            names += [f"{axis} {name}" for axis, name in zip(("tag", "parent", "next"), leaf, strict=True)]
    kind = "span" if tree is None else "tree"
    for at, (part, label, width) in span_parts(spans, words):
        if tree is None or part in ENDS:
            features[at] += [f"{kind} {part} {label}", f"{kind} {part} {width}"]
    return features


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
