"""Syntax: the whole constituency tree of a text, or some of its labelled spans."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl import (
    BatchContext,
    Check,
    ControlState,
    Energy,
    LabelledText,
    Labels,
    Mark,
    Prepared,
    Pretrained,
    guide,
)
from dlmctl.annotators.brackets import compare_spans
from dlmctl.annotators.gold import TREE_FIELD, by_judges, is_outside, require_judges, sentence_of, tags_of, trees_of
from dlmctl.annotators.parsing import NONE, all_spans, constituency_parser, parser_tags
from dlmctl.annotators.trees import Span, Tree, labelled_spans, read_tree
from dlmctl.control.evidence.beside import Counted, evidence_file
from dlmctl.control.evidence.spans import Leaf, leaf_classes
from dlmctl.control.hints import Ask
from dlmctl.control.prepared import NO_ROOM
from dlmctl.control.row_groups import grouped
from dlmctl.control.word_latents import looks, word_latents
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import ModelConfig
from dlmctl.models.numerics import widened
from dlmctl.models.spans import SpanClassifier
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

from .phrases import WordControl
from .syntax_evidence import LEAVES_FILE, SHAPES_FILE, by_evidence, count_syntax, features_of
from .syntax_params import SpanParams, SyntaxTreeParams, require_labels, require_tags
from .syntax_shapes import Shapes, shapes_beside

# Rarer labels of the training parses are parsing accidents that nobody asks for.
MIN_COUNT = 5
# A few spans are outvoted by the model; a tree has a term for every pair of words. Chosen on validation text.
SPAN_WEIGHT = 8
# Of what says that no constituent crosses a span: twice as much is no better. Chosen on validation text.
CROSSING = 0.5
# What is left of a tree's energy where counts guide as well; chosen on validation text.
TREE_BESIDE_COUNTS = 0.5
# Spans that a text is asked at once while the model learns to be told of them.
MOST_SPANS = 4


@dataclass(frozen=True)
class SpanLabels(Labels):
    """The labels of constituents in the training parses. See ``dlmctl.control.labels.Labels``."""

    takes = ("judge",)
    counts, counts_too = LEAVES_FILE, True
    names: list[str]

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        """The labels that these sentences' trees have often enough: the data's own (its field ``tree``), else those
        that the outside parser gives.
        """
        counts = Counter(span.label for tree in parsed(data) for span in labelled_spans(tree))
        return cls([NONE, *sorted(name for name, count in counts.items() if count >= MIN_COUNT)])

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        tags = tags_of(data.sentences, data.fields)
        return cls.from_data(data), count_syntax(data.sentences, parsed(data), tags, vocabulary)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]) -> Prepared:
        return grouped(batch, [params.tree is not None for params in wanted], partial(by_evidence, folder, True))

    @classmethod
    def beside(
        cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]
    ) -> tuple[Tensor, Sequence[float]]:
        whole = [params.tree is not None for params in wanted]
        found = grouped(batch, whole, partial(by_evidence, folder, False)).evidence
        assert found is not None
        return found, [TREE_BESIDE_COUNTS if one else 1.0 for one in whole]

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """Its whole tree, with its tags and without, and twice some of its spans."""
        random = np.random.default_rng(0)
        pairs = zip(parsed(data), tags_of(data.sentences, data.fields), strict=True)
        return [_asks(len(tags), tree, tags, random) for tree, tags in pairs]

    def to_json(self) -> list[str]:
        return self.names

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return cls([str(name) for name in saved])

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return SpanClassifier(config.embed_dim, config.length, len(self.names))

    def labels(self, data: LabelledText) -> list[Tensor]:
        """For each sentence the class of every span, ``[words, words]`` by first and last word."""
        place = {name: at for at, name in enumerate(self.names)}
        charts = []
        for words, tree in zip(data.sentences, parsed(data), strict=True):
            chart = torch.zeros(len(words), len(words), dtype=torch.uint8)
            for start, end, label in labelled_spans(tree):
                chart[start, end] = place.get(label, 0)
            charts.append(chart)
        return charts

    def by_classifier(
        self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]
    ) -> Prepared:
        """Guidance by a noise-aware span classifier."""
        ends_at = [layout.positions - SPECIAL for layout in batch.layouts]
        rows = [
            _cells(params, self, min(end, params.words) if layout.words is None else layout.words)
            for params, layout, end in zip(wanted, batch.layouts, ends_at, strict=True)
        ]
        room = [[cell for cell in found if cell[1] < end] for found, end in zip(rows, ends_at, strict=True)]
        beyond = torch.tensor([len(found) - len(near) for found, near in zip(rows, room, strict=True)])
        beyond = NO_ROOM * beyond.to(batch.device)
        # Each row's spans, filled up with the first word at no weight; in one array: a tensor a row costs a call each.
        most = max(1, *map(len, room))
        filled = np.array([[*found, *[(0, 0, 0, 0)] * (most - len(found))] for found in room], dtype=np.float32)
        *cells, weights = torch.from_numpy(filled).to(batch.device).unbind(-1)
        asked = *(cell.long() for cell in cells), weights, beyond

        def energy(
            state: ControlState, starts: Tensor, ends: Tensor, classes: Tensor, weights: Tensor, beyond: Tensor
        ) -> Tensor:
            """-log p(labels given the latent), summed over all spans of a tree, those without a label included, or
            over the spans asked for, ``SPAN_WEIGHT`` times each, and those that cross them, ``CROSSING`` times."""
            logits = widened(classifier(word_latents(state), state.t, starts, ends, state.mask))
            # Span by span: over a transposed tensor the same sums come out otherwise among other rows.
            nats = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
            return (nats.view_as(weights) * weights).sum(-1) + beyond

        return Energy(energy, looks=looks(batch.vocabulary), asked=asked)

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Nats per word of the whole chart, and accuracy over constituents and what is taken for one, both ``[B]``."""
        counts = torch.tensor([len(chart) for chart in labels]).clamp(max=x.shape[1] - SPECIAL)
        most = int(counts.max())
        target = torch.zeros(len(labels), most, most, dtype=torch.long)
        for row, chart in enumerate(labels):
            target[row, : len(chart), : len(chart)] = chart[:most, :most]
        starts, ends = all_spans(most)
        inside = (ends < counts[:, None]).to(x.device)
        target = target[:, starts, ends].to(x.device)
        logits = classifier(x, t, starts.to(x.device), ends.to(x.device)).float()
        nats = F.cross_entropy(logits.transpose(1, 2), target, reduction="none") * inside
        guess = logits.argmax(-1)
        either = ((target > 0) | (guess > 0)) & inside
        accuracy = ((guess == target) & either).sum(1) / either.sum(1).clamp(min=1)
        return nats.sum(1) / counts.to(x.device), accuracy


def _asks(words: int, tree: Tree, tags: Sequence[str], random: np.random.Generator) -> list[Ask]:
    spans = labelled_spans(tree)
    whole = features_of(words, spans, tree)
    inner = [span for span in spans if 1 < span.end - span.start + 1 < words] or spans
    some = [random.permutation(len(inner))[: random.integers(1, MOST_SPANS + 1)] for _ in range(2)]
    parts = [Ask(features_of(words, [inner[at] for at in sorted(chosen)], None)) for chosen in some]
    return [Ask(whole, tags), Ask(whole), *parts]


def parsed(data: LabelledText) -> list[Tree]:
    """The trees of the sentences, see ``trees_of``; asked again at once, as training does, they are the same."""
    trees = tuple(str(row.get(TREE_FIELD, "")) for row in data.fields or ())
    return _parsed(tuple(map(tuple, data.sentences)), trees, data.judge)


@lru_cache(maxsize=1)
def _parsed(sentences: tuple[tuple[str, ...], ...], trees: tuple[str, ...], judge: str | None) -> list[Tree]:
    return trees_of(sentences, [{TREE_FIELD: tree} for tree in trees] or None, judge)


@lru_cache(maxsize=256)
def _cells_of(words: int) -> list[tuple[int, int]]:
    """First and last word of all spans of so many words."""
    starts, ends = all_spans(words)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@lru_cache(maxsize=1024)
def _crossing(spans: tuple[tuple[int, int], ...], words: int) -> list[tuple[int, int]]:
    """The spans of so many words that cannot be constituents beside these, as they share only a part with one."""
    spans = tuple(span for span in spans if span[1] < words)
    return [
        (first, last)
        for first, last in _cells_of(words)
        if any(first < start <= last < end or start < first <= end < last for start, end in spans)
    ]


def _cells(params: SyntaxTreeParams, labels: SpanLabels, words: int) -> list[tuple[int, int, int, float]]:
    """First word, last word, class and weight of the spans in the energy: all of a tree, or those asked for and, at no
    label, those that would cross one of them in a text of so many words."""
    require_labels([span.label for span in params.wanted], labels.names[1:])
    wanted = {(start, end): labels.names.index(label) for start, end, label in params.wanted}
    if params.tree is None:
        asked = [(*cell, label, SPAN_WEIGHT) for cell, label in wanted.items()]
        return [*asked, *((*cell, 0, CROSSING) for cell in _crossing(tuple(wanted), words))]
    return [(*cell, wanted.get(cell, 0), 1) for cell in _cells_of(params.words)]


class SyntaxTree(WordControl[SyntaxTreeParams]):
    """Steers by word evidence and a noise-aware span classifier (Li et al. 2022), checks by an outside parser."""

    name = "syntax_tree"
    Params = SyntaxTreeParams
    Labels = SpanLabels
    shapes: Shapes | None = None
    only_trees = False

    def word_range(self, params: SyntaxTreeParams) -> tuple[int, int]:
        return params.words, params.words if params.tree is not None else sys.maxsize

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        require_judges((one.judge for one in self.sets), constituency_parser)
        for judge in dict.fromkeys(one.judge for one in self.sets if one.tree is not None):
            if (known := parser_tags(judge)) is not None:
                require_tags((one.tree for one in self.sets if one.tree is not None and one.judge == judge), known)
        self.shapes = shapes_beside(evidence_file(model, self.name, SHAPES_FILE))
        self.only_trees = all(one.tree is not None for one in self.sets)

    def lengths(self, params: SyntaxTreeParams, most: int) -> Sequence[float]:
        """Those of texts that have the spans asked for; a tree has its own number of words."""
        if self.shapes is None or params.tree is not None:
            return ()
        return _lengths(self.shapes, tuple(sorted(params.wanted)), most)

    def prepare(self, batch: BatchContext[SyntaxTreeParams]) -> Prepared:
        found = guide(self, batch, batch.params)
        found.one_update = self.only_trees
        return found

    def checks_aside(self) -> bool:
        return not any(is_outside(one.judge) for one in self.sets)

    def check_many(self, params: Sequence[SyntaxTreeParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Labelled F1 with the outside parser's tree, all words counted, or the share of spans that are in it."""
        trees = by_judges(texts, [one.judge for one in params], constituency_parser)
        return [_judged(*each) for each in zip(params, texts, trees, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[SyntaxTreeParams]:
        """For each sentence the tree that the outside parser gives it."""
        return [SyntaxTreeParams(tree=str(tree)) for tree in constituency_parser()(sentences)]

    @classmethod
    def from_target(cls, record: Any) -> SyntaxTreeParams:
        """Of an object with ``tree``, with ``spans`` as ``[start, end, label]``, or with ``words`` to parse."""
        judge = record.get("judge")
        if "spans" in record:
            spans = [SpanParams(start=start, end=end, label=label) for start, end, label in record["spans"]]
            return SyntaxTreeParams(spans=spans, judge=judge)
        tree = record.get("tree") or str(constituency_parser(judge)([sentence_of(record)])[0])
        return SyntaxTreeParams(tree=tree, judge=judge)


# Asked for every draw, and few samples ask for different spans.
@lru_cache(maxsize=1024)
def _lengths(shapes: Shapes, spans: tuple[Span, ...], most: int) -> tuple[float, ...]:
    return shapes.lengths_having(spans, most)


@lru_cache(maxsize=4096)
def _leaves_of(tree: str) -> list[Leaf]:
    return leaf_classes(read_tree(tree))


def _judged(params: SyntaxTreeParams, words: Sequence[str], tree: Tree) -> Check:
    wanted, found = params.wanted, labelled_spans(tree)
    missing = [span for span in wanted if span not in found]
    extra = [span for span in found if span not in wanted] if params.tree is not None else []
    score = compare_spans(wanted, found).f1 if params.tree is not None else 1 - len(missing) / len(wanted)
    why = "all constituents found"
    if missing:
        start, end, label = missing[0]
        why = f"no {label} over words {start} to {end} ({' '.join(words[start : end + 1])})"
    elif score < 1:
        why = "constituents beyond the tree's"
    where = {place for start, end, _ in (*missing, *extra) for place in (start, end) if place < len(words)}
    if params.tree is not None and score < 1:
        pairs = zip(_leaves_of(params.tree), leaf_classes(tree), strict=False)
        where |= {place for place, (one, other) in enumerate(pairs) if one[1:] != other[1:]}
    marks = tuple(_marks(params, found, len(words)))
    return Check(score, score >= params.pass_at, why, tuple(sorted(where)), marks)


def _marks(params: SyntaxTreeParams, found: Sequence[Span], count: int) -> Iterator[Mark]:
    """The parser's constituents, all where a tree is asked for, and what it read where others were wanted."""
    wanted = {(start, end): label for start, end, label in params.wanted}
    read = {(start, end): label for start, end, label in found}
    for ends, label in read.items():
        asked = wanted.get(ends, "")
        if asked or params.tree is not None:
            yield Mark(*ends, label, label == asked, "" if label == asked else asked)
    for (start, end), label in wanted.items():
        if (start, end) not in read:
            inside = end < count
            yield Mark(start if inside else None, end if inside else None, met=False, wanted=label)
