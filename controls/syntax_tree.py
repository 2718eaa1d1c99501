"""Syntax: the whole constituency tree of a text, or some of its labelled spans."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl import (
    BatchContext,
    Check,
    ControlState,
    DataError,
    Energy,
    Labels,
    Mark,
    Prepared,
    RecipeError,
    load_classifier,
)
from dlmctl.annotators.brackets import compare
from dlmctl.annotators.gold import TREE_FIELD, by_judges, tags_of, trees_of
from dlmctl.annotators.parsing import NONE, all_spans, constituency_parser
from dlmctl.annotators.trees import Span, Tree, labelled_spans, read_tree
from dlmctl.control.classifier import load_labels
from dlmctl.control.evidence.beside import Counted, evidence_file
from dlmctl.control.evidence.spans import leaf_classes
from dlmctl.control.prepared import NO_ROOM
from dlmctl.control.word_latents import word_latents
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import nearest
from dlmctl.models.numerics import widened
from dlmctl.models.transformer import LatentEncoder, TransformerConfig
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

from .phrases import WordControl
from .syntax_evidence import LEAVES_FILE, PreparedSyntax, count_syntax
from .syntax_params import SpanParams, SyntaxTreeParams

# Rarer labels of the training parses are parsing accidents that nobody asks for.
MIN_COUNT = 5
# A few spans are outvoted by the model; a tree has a term for every pair of words. Chosen on validation text.
SPAN_WEIGHT = 8


class SpanClassifier(nn.Module):
    """The label of any span of a latent's words, from the encoder's states on both sides of its two ends."""

    def __init__(self, embed_dim: int, length: int, labels: int) -> None:
        super().__init__()
        sizes = TransformerConfig(
            hidden=192, layers=2, heads=4, feedforward=512, dropout=0.1, max_length=length, time_channels=64
        )
        self.encoder = LatentEncoder(sizes, embed_dim)
        # The first layer of an MLP over both ends, taken apart so that it runs once a word and not once a span.
        self.start = nn.Linear(2 * sizes.hidden, 128)
        self.end = nn.Linear(2 * sizes.hidden, 128, bias=False)
        self.out = nn.Linear(128, labels)

    def forward(self, x: Tensor, t: Tensor, starts: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents ``[B, L, D]`` at times ``[B]`` in [0, 1] to logits ``[B, S, labels]``.

        Args:
            starts, ends: first and last words of the spans, from 0, ``[S]`` or, where rows differ, ``[B, S]``; a
                position is left on either side of them, as START and END take.
        """
        h = self.encoder(x, 1000 * t.float(), mask=mask)
        # What stands before a constituent and behind it tells as much as its own first and last word.
        start = self.start(torch.cat([h[:, :-2], h[:, 1:-1]], -1))
        end = self.end(torch.cat([h[:, 1:-1], h[:, 2:]], -1))
        # As rows of one table: unlike that of an index in two dimensions, its backward pass is quick and adds in order.
        row = start.shape[1] * torch.arange(len(h), device=h.device)[:, None]
        first, last = row + starts, row + ends
        ends_of = end.flatten(0, 1).index_select(0, last.flatten())
        spans = F.gelu(start.flatten(0, 1).index_select(0, first.flatten()) + ends_of)
        return self.out(spans).view(*first.shape, -1)


@dataclass(frozen=True)
class SpanLabels(Labels):
    """The labels of constituents in the training parses. See ``dlmctl.control.classifier.Labels``."""

    names: list[str]
    judge: str | None = None

    @classmethod
    def from_data(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None
    ) -> SpanLabels:
        return cls.judged(sentences, fields, label, None)

    @classmethod
    def judged(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None, judge: str | None
    ) -> SpanLabels:
        """The labels that these sentences' trees have often enough: the data's own (its field ``tree``), else those
        that the outside parser gives.

        Raises:
            DataError: ``label`` is given: labels come from the parser, not from the data.
        """
        if label is not None:
            raise DataError("a syntax tree's labels come from the parser.", where="--label", remedy="Leave it out.")
        counts = Counter(span.label for tree in parsed(sentences, fields, judge) for span in labelled_spans(tree))
        return cls([NONE, *sorted(name for name, count in counts.items() if count >= MIN_COUNT)], judge)

    @classmethod
    def counted(
        cls,
        sentences: list[list[str]],
        fields: list[dict[str, Any]] | None,
        vocabulary: WordTokenizer,
        label: str | None,
        judge: str | None,
    ) -> tuple[SpanLabels, Counted]:
        own = cls.judged(sentences, fields, label, judge)
        trees, tags = parsed(sentences, fields, judge), tags_of(sentences, fields)
        return own, count_syntax(sentences, trees, tags, vocabulary)

    def to_json(self) -> list[str]:
        return self.names

    @classmethod
    def from_json(cls, saved: Any) -> SpanLabels:
        return cls([str(name) for name in saved])

    def number(self, name: str) -> int:
        """The class of a label.

        Raises:
            RecipeError: the training parses have no such label; the message names the nearest one.
        """
        if name not in self.names[1:]:
            raise RecipeError(
                f"the label {name!r} is not among those of this model's spans.", remedy=nearest(name, self.names[1:])
            )
        return self.names.index(name)

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return SpanClassifier(config.embed_dim, config.length, len(self.names))

    def labels(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[Tensor]:
        """For each sentence the class of every span, ``[words, words]`` by first and last word."""
        place = {name: at for at, name in enumerate(self.names)}
        charts = []
        for words, tree in zip(sentences, parsed(sentences, fields, self.judge), strict=True):
            chart = torch.zeros(len(words), len(words), dtype=torch.uint8)
            for start, end, label in labelled_spans(tree):
                chart[start, end] = place.get(label, 0)
            charts.append(chart)
        return charts

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
        logits = classifier(x, t, starts, ends).float()
        nats = F.cross_entropy(logits.transpose(1, 2), target, reduction="none") * inside
        guess = logits.argmax(-1)
        either = ((target > 0) | (guess > 0)) & inside
        accuracy = ((guess == target) & either).sum(1) / either.sum(1).clamp(min=1)
        return nats.sum(1) / counts.to(x.device), accuracy


def parsed(
    sentences: Sequence[Sequence[str]], fields: Sequence[Mapping[str, Any]] | None = None, judge: str | None = None
) -> list[Tree]:
    """The trees of these sentences, see ``trees_of``; asked again at once, as training does, they are the same."""
    trees = tuple(str(row.get(TREE_FIELD, "")) for row in fields or ())
    return _parsed(tuple(map(tuple, sentences)), trees, judge)


@lru_cache(maxsize=1)
def _parsed(sentences: tuple[tuple[str, ...], ...], trees: tuple[str, ...], judge: str | None) -> list[Tree]:
    return trees_of(sentences, [{TREE_FIELD: tree} for tree in trees] or None, judge)


def by_classifier(classifier: nn.Module, labels: SpanLabels, batch: BatchContext[SyntaxTreeParams]) -> Energy:
    """Guidance by a noise-aware span classifier."""
    rows = [_cells(params, labels) for params in batch.params]
    ends_at = [layout.positions - SPECIAL for layout in batch.layouts]
    room = [[cell for cell in found if cell[1] < end] for found, end in zip(rows, ends_at, strict=True)]
    beyond = torch.tensor([len(found) - len(near) for found, near in zip(rows, room, strict=True)])
    beyond = NO_ROOM * beyond.to(batch.device)
    # Each row's spans, filled up with the first word at no weight; in one array, as a tensor a row costs a call each.
    most = max(1, *map(len, room))
    filled = np.array([[*found, *[(0, 0, 0, 0)] * (most - len(found))] for found in room], dtype=np.int64)
    starts, ends, wanted, weights = torch.from_numpy(filled).to(batch.device).unbind(-1)

    def energy(state: ControlState) -> Tensor:
        """-log p(labels given the latent), summed over all spans of a tree, those without a label included, or
        over the spans asked for, each of these ``SPAN_WEIGHT`` times."""
        logits = widened(classifier(word_latents(state), state.t, starts, ends, state.mask))
        # Span by span: over a transposed tensor the same sums come out otherwise among other rows.
        nats = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return (nats.view_as(weights) * weights).sum(-1) + beyond

    return Energy(energy)


@lru_cache(maxsize=256)
def _cells_of(words: int) -> list[tuple[int, int]]:
    """First and last word of all spans of so many words."""
    starts, ends = all_spans(words)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _cells(params: SyntaxTreeParams, labels: SpanLabels) -> list[tuple[int, int, int, int]]:
    """First word, last word, class and weight of the spans in the energy: all of a tree, or those asked for."""
    wanted = {(start, end): labels.number(label) for start, end, label in params.wanted}
    if params.tree is None:
        return [(*cell, label, SPAN_WEIGHT) for cell, label in wanted.items()]
    return [(*cell, wanted.get(cell, 0), 1) for cell in _cells_of(params.words)]


class SyntaxTree(WordControl[SyntaxTreeParams]):
    """Steers by word evidence or a noise-aware span classifier (Li et al. 2022), checks by an outside parser.

    Evidence is tables beside the model's weights; where there are none, the classifier steers.
    """

    name = "syntax_tree"
    Params = SyntaxTreeParams
    Labels = SpanLabels

    def word_range(self, params: SyntaxTreeParams) -> tuple[int, int]:
        return params.words, params.words if params.tree is not None else sys.maxsize

    def prepare(self, batch: BatchContext[SyntaxTreeParams]) -> Prepared:
        path = evidence_file(batch, self.name, LEAVES_FILE)
        if path is not None:
            return PreparedSyntax(path.parent, batch)
        labels = load_labels(SpanLabels, type(self), batch)
        return by_classifier(load_classifier(type(self), batch), labels, batch)

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
        if "tree" in record:
            return SyntaxTreeParams(tree=record["tree"], judge=judge)
        (tree,) = constituency_parser(judge)([cast("list[str]", record["words"])])
        return SyntaxTreeParams(tree=str(tree), judge=judge)


def _judged(params: SyntaxTreeParams, words: Sequence[str], tree: Tree) -> Check:
    found = labelled_spans(tree)
    missing = [span for span in params.wanted if span not in found]
    extra = [span for span in found if span not in params.wanted] if params.tree is not None else []
    if params.tree is not None:
        score = compare(read_tree(params.tree), tree, ignore=()).f1
    else:
        score = 1 - len(missing) / len(params.wanted)
    why = "all constituents found"
    if missing:
        start, end, label = missing[0]
        why = f"no {label} over words {start} to {end} ({' '.join(words[start : end + 1])})"
    elif score < 1:
        why = "constituents beyond the tree's"
    where = {place for start, end, _ in (*missing, *extra) for place in (start, end) if place < len(words)}
    if params.tree is not None and score < 1:
        pairs = zip(leaf_classes(read_tree(params.tree)), leaf_classes(tree), strict=False)
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
