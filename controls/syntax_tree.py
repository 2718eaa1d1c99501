"""The syntax of a text: its whole constituency tree, or some labelled spans of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

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
from dlmctl.annotators.gold import (
    TREE_FIELD,
    annotate_by_judges,
    is_external_judge,
    require_judges,
    sentence_of,
    tags_of,
    trees_of,
)
from dlmctl.annotators.parsing import NONE, all_spans, constituency_parser, parser_tags
from dlmctl.annotators.trees import Span, Tree, labelled_spans, read_tree
from dlmctl.control.evidence.beside import EvidenceFiles, evidence_file
from dlmctl.control.evidence.spans import Leaf, leaf_classes
from dlmctl.control.hints import HintRequest
from dlmctl.control.prepared import NO_ROOM
from dlmctl.control.row_groups import grouped
from dlmctl.control.word_latents import reads_words, word_latents
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import ModelConfig
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.spans import SpanClassifier
from dlmctl.text.tokenizer import Tokenizer

from .phrases import WordControl
from .syntax_evidence import LEAVES_FILE, SHAPES_FILE, by_evidence, count_syntax, features_of
from .syntax_params import SpanParams, SyntaxTreeParams, require_labels, require_tags
from .syntax_shapes import Shapes, load_shapes

# Rarer labels of the training parses are parsing errors that nobody wants.
MIN_COUNT = 5
# The model outweighs a few spans, whereas a tree has a term for every pair of words. Chosen on validation text.
SPAN_WEIGHT = 8
# Weight of the terms against constituents that cross a span: twice as much is no better. Chosen on validation text.
CROSSING = 0.5
# Factor of a tree's energy if counts guide as well; chosen on validation text.
TREE_BESIDE_COUNTS = 0.5
# The most spans of a text in an example for hints.
MAX_SPANS = 4


@dataclass(frozen=True)
class SpanLabels(Labels):
    """The labels of constituents in the training parses. See ``dlmctl.control.labels.Labels``."""

    takes = ("judge",)
    counts, counts_too = LEAVES_FILE, True
    # Trees say more than labels.
    hints: ClassVar[Mapping[str, int]] = {"width": 96, "blocks": 2}
    names: list[str]

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        """The labels that are frequent enough in the trees of the sentences: those of the data (its field ``tree``), or
        else those of the independent parser.
        """
        counts = Counter(span.label for tree in parsed(data) for span in labelled_spans(tree))
        return cls([NONE, *sorted(name for name, count in counts.items() if count >= MIN_COUNT)])

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: Tokenizer) -> tuple[Self, EvidenceFiles]:
        tags = tags_of(data.sentences, data.fields)
        return cls.from_data(data), count_syntax(data.sentences, parsed(data), tags, vocabulary)

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]) -> Prepared:
        return grouped(batch, [params.tree is not None for params in wanted], partial(by_evidence, folder, True))

    @classmethod
    def beside(
        cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]
    ) -> tuple[Tensor, Sequence[float]]:
        is_tree = [params.tree is not None for params in wanted]
        evidence = grouped(batch, is_tree, partial(by_evidence, folder, False)).evidence
        assert evidence is not None
        return evidence, [TREE_BESIDE_COUNTS if tree else 1.0 for tree in is_tree]

    def asks(self, data: LabelledText) -> list[list[HintRequest]]:
        """The whole tree of each sentence, with its tags and without, and two samples of its spans."""
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
        class_ids = {name: at for at, name in enumerate(self.names)}
        charts = []
        for words, tree in zip(data.sentences, parsed(data), strict=True):
            chart = torch.zeros(len(words), len(words), dtype=torch.uint8)
            for start, end, label in labelled_spans(tree):
                chart[start, end] = class_ids.get(label, 0)
            charts.append(chart)
        return charts

    def by_classifier(
        self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[SyntaxTreeParams]
    ) -> Prepared:
        """Guidance by a noise-aware span classifier."""
        limits = [layout.positions - SPECIAL for layout in batch.layouts]
        rows = [
            _cells(params, self, min(limit, params.words) if layout.words is None else layout.words)
            for params, layout, limit in zip(wanted, batch.layouts, limits, strict=True)
        ]
        inside = [[cell for cell in cells if cell[1] < limit] for cells, limit in zip(rows, limits, strict=True)]
        no_room = torch.tensor([len(cells) - len(kept) for cells, kept in zip(rows, inside, strict=True)])
        no_room = NO_ROOM * no_room.to(batch.device)
        # The spans of each row, padded with the first word at weight 0, in one array: a tensor per row costs a call.
        most = max(1, *map(len, inside))
        padded = np.array([[*cells, *[(0, 0, 0, 0)] * (most - len(cells))] for cells in inside], dtype=np.float32)
        *columns, weights = torch.from_numpy(padded).to(batch.device).unbind(-1)
        targets = *(column.long() for column in columns), weights, no_room

        def energy(
            state: ControlState, starts: Tensor, ends: Tensor, classes: Tensor, weights: Tensor, no_room: Tensor
        ) -> Tensor:
            """-log p(labels given the latent), summed over all spans of a tree, including those without a label, or
            over the wanted spans, ``SPAN_WEIGHT`` times each, and those that cross them, ``CROSSING`` times each."""
            logits = at_least_float32(classifier(word_latents(state), state.t, starts, ends, state.mask))
            # One row per span: over a transposed tensor the sums of a text would depend on the other texts.
            nats = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
            return (nats.view_as(weights) * weights).sum(-1) + no_room

        return Energy(energy, looks=reads_words(batch.vocabulary), asked=targets)

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Nats per word of the whole chart, and accuracy over true and predicted constituents, both ``[B]``."""
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
        predicted = logits.argmax(-1)
        is_constituent = ((target > 0) | (predicted > 0)) & inside
        accuracy = ((predicted == target) & is_constituent).sum(1) / is_constituent.sum(1).clamp(min=1)
        return nats.sum(1) / counts.to(x.device), accuracy


def _asks(words: int, tree: Tree, tags: Sequence[str], random: np.random.Generator) -> list[HintRequest]:
    spans = labelled_spans(tree)
    features = features_of(words, spans, tree)
    inner = [span for span in spans if 1 < span.end - span.start + 1 < words] or spans
    samples = [random.permutation(len(inner))[: random.integers(1, MAX_SPANS + 1)] for _ in range(2)]
    span_asks = [HintRequest(features_of(words, [inner[at] for at in sorted(sample)], None)) for sample in samples]
    return [HintRequest(features, tags), HintRequest(features), *span_asks]


def parsed(data: LabelledText) -> list[Tree]:
    """The trees of the sentences (see ``trees_of``); the last result is cached, as training needs it repeatedly."""
    trees = tuple(str(row.get(TREE_FIELD, "")) for row in data.fields or ())
    return _parsed(tuple(map(tuple, data.sentences)), trees, data.judge)


@lru_cache(maxsize=1)
def _parsed(sentences: tuple[tuple[str, ...], ...], trees: tuple[str, ...], judge: str | None) -> list[Tree]:
    return trees_of(sentences, [{TREE_FIELD: tree} for tree in trees] or None, judge)


@lru_cache(maxsize=256)
def _cells_of(words: int) -> list[tuple[int, int]]:
    """First and last word of all spans in a text of ``words`` words."""
    starts, ends = all_spans(words)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@lru_cache(maxsize=1024)
def _crossing(spans: tuple[tuple[int, int], ...], words: int) -> list[tuple[int, int]]:
    """The spans in a text of ``words`` words that cross one of ``spans``, and so cannot be constituents."""
    spans = tuple(span for span in spans if span[1] < words)
    return [
        (first, last)
        for first, last in _cells_of(words)
        if any(first < start <= last < end or start < first <= end < last for start, end in spans)
    ]


def _cells(params: SyntaxTreeParams, labels: SpanLabels, words: int) -> list[tuple[int, int, int, float]]:
    """First word, last word, class and weight of the spans in the energy: all spans of a tree, or the wanted ones and,
    with no label, those that cross one of them in a text of ``words`` words."""
    require_labels([span.label for span in params.wanted], labels.names[1:])
    wanted = {(start, end): labels.names.index(label) for start, end, label in params.wanted}
    if params.tree is None:
        wanted_cells = [(*cell, label, SPAN_WEIGHT) for cell, label in wanted.items()]
        return [*wanted_cells, *((*cell, 0, CROSSING) for cell in _crossing(tuple(wanted), words))]
    return [(*cell, wanted.get(cell, 0), 1) for cell in _cells_of(params.words)]


class SyntaxTree(WordControl[SyntaxTreeParams]):
    """Steers by word evidence and a noise-aware span classifier (Li et al. 2022), checks with an independent parser."""

    name = "syntax_tree"
    Params = SyntaxTreeParams
    Labels = SpanLabels
    shapes: Shapes | None = None
    has_only_trees = False

    def word_range(self, params: SyntaxTreeParams) -> tuple[int, int]:
        return params.words, params.words if params.tree is not None else sys.maxsize

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        require_judges((params.judge for params in self.sets), constituency_parser)
        trees = [(params.tree, params.judge) for params in self.sets if params.tree is not None]
        for judge in dict.fromkeys(judge for _, judge in trees):
            if (known := parser_tags(judge)) is not None:
                require_tags((tree for tree, tree_judge in trees if tree_judge == judge), known)
        self.shapes = load_shapes(evidence_file(model, self.name, SHAPES_FILE))
        self.has_only_trees = all(params.tree is not None for params in self.sets)

    def lengths(self, params: SyntaxTreeParams, most: int) -> Sequence[float]:
        """The lengths of texts that have the wanted spans; a tree has its own number of words."""
        if self.shapes is None or params.tree is not None:
            return ()
        return _lengths(self.shapes, tuple(sorted(params.wanted)), most)

    def prepare(self, batch: BatchContext[SyntaxTreeParams]) -> Prepared:
        prepared = guide(self, batch, batch.params)
        prepared.one_update = self.has_only_trees
        return prepared

    def checks_aside(self) -> bool:
        return not any(is_external_judge(params.judge) for params in self.sets)

    def check_many(self, params: Sequence[SyntaxTreeParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Labelled F1 against the independent parser's tree, over all words, or the share of spans that are in it."""
        trees = annotate_by_judges(texts, [target.judge for target in params], constituency_parser)
        return [_verdict(*row) for row in zip(params, texts, trees, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[SyntaxTreeParams]:
        """The independent parser's tree of each sentence."""
        return [SyntaxTreeParams(tree=str(tree)) for tree in constituency_parser()(sentences)]

    @classmethod
    def from_target(cls, record: Any) -> SyntaxTreeParams:
        """From an object with ``tree``, with ``spans`` as ``[start, end, label]``, or with ``words`` to parse."""
        judge = record.get("judge")
        if "spans" in record:
            spans = [SpanParams(start=start, end=end, label=label) for start, end, label in record["spans"]]
            return SyntaxTreeParams(spans=spans, judge=judge)
        tree = record.get("tree") or str(constituency_parser(judge)([sentence_of(record)])[0])
        return SyntaxTreeParams(tree=tree, judge=judge)


# Cached, because it is needed for every draw, and most samples have the same spans.
@lru_cache(maxsize=1024)
def _lengths(shapes: Shapes, spans: tuple[Span, ...], most: int) -> tuple[float, ...]:
    return shapes.lengths_with_spans(spans, most)


@lru_cache(maxsize=4096)
def _leaves_of(tree: str) -> list[Leaf]:
    return leaf_classes(read_tree(tree))


def _verdict(params: SyntaxTreeParams, words: Sequence[str], tree: Tree) -> Check:
    wanted, parsed = params.wanted, labelled_spans(tree)
    missing = [span for span in wanted if span not in parsed]
    extra = [span for span in parsed if span not in wanted] if params.tree is not None else []
    score = compare_spans(wanted, parsed).f1 if params.tree is not None else 1 - len(missing) / len(wanted)
    why = "all constituents found"
    if missing:
        start, end, label = missing[0]
        why = f"no {label} over words {start} to {end} ({' '.join(words[start : end + 1])})"
    elif score < 1:
        why = "constituents beyond the tree's"
    where = {position for start, end, _ in (*missing, *extra) for position in (start, end) if position < len(words)}
    if params.tree is not None and score < 1:
        leaves = zip(_leaves_of(params.tree), leaf_classes(tree), strict=False)
        where |= {at for at, (wanted_leaf, parsed_leaf) in enumerate(leaves) if wanted_leaf[1:] != parsed_leaf[1:]}
    marks = tuple(_marks(params, parsed, len(words)))
    return Check(score, score >= params.pass_at, why, tuple(sorted(where)), marks)


def _marks(params: SyntaxTreeParams, parsed: Sequence[Span], count: int) -> Iterator[Mark]:
    """The parser's constituents, all for a tree and otherwise those on wanted spans, and the missing wanted ones."""
    wanted = {(start, end): label for start, end, label in params.wanted}
    parsed_labels = {(start, end): label for start, end, label in parsed}
    for span, label in parsed_labels.items():
        wanted_label = wanted.get(span, "")
        if wanted_label or params.tree is not None:
            yield Mark(*span, label, label == wanted_label, "" if label == wanted_label else wanted_label)
    for (start, end), label in wanted.items():
        if (start, end) not in parsed_labels:
            inside = end < count
            yield Mark(start if inside else None, end if inside else None, met=False, wanted=label)
