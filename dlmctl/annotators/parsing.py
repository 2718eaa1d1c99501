"""Constituency parsing with the bundled parser, the user's own, or Stanza.

The bundled parser scores every label of every span from the difference of a bidirectional LSTM's states at its ends
(Stern et al. 2017) and finds the best tree with CKY. ``dlmctl.training.parser`` trains it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.annotators.annotator_files import read_annotator
from dlmctl.annotators.field import KNOWN_WORDS, shape
from dlmctl.annotators.locking import locked
from dlmctl.annotators.outside import stanza_parser
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import Span, Tree, from_spans
from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.weights import load_into
from dlmctl.errors import ModelError, UserError

PARSER_FILE = "parser.json"
PARSER_FORMAT = 1
# Entries of every vocabulary: padding, the ends of a sentence, and values not seen in training.
PAD, EDGE, UNSEEN = range(3)
# The label of a span that is not a constituent.
NONE = "-"
# Words that end a sentence, unless a bracket or quote is closed right after them.
STOPS = (".", "!", "?")
CLOSING = ("''", '"', "'", ")", "]", "”", *STOPS)
# Most spans in one batch, which bounds memory.
BATCH_SPANS = 40_000

Parser = Callable[[Sequence[Sequence[str]]], list[Tree]]

_DIGIT = re.compile(r"\d")


class ParserConfig(BaseModel):
    """Sizes of a parser and the vocabularies it was trained with."""

    model_config = ConfigDict(extra="forbid")

    hidden: int = Field(default=200, gt=0, description="width of the LSTM in each direction")
    layers: int = Field(default=2, gt=0, description="LSTM layers")
    span_hidden: int = Field(default=250, gt=0, description="width of the layer between a span and its label scores")
    widths: list[int] = Field(default=[100, 30, 30, 30, 20, 30], description="embedding width of each feature")
    dropout: float = Field(default=0.35, ge=0, lt=1, description="dropout between layers, in training only")
    labels: list[str] = Field(min_length=1, description="of spans, the first for none")
    tags: list[str] = Field(min_length=1, description="of words, as the treebank writes them")
    vocabularies: list[dict[str, int]] = Field(description="of each feature: value to row of its embedding")


def features(words: Sequence[str], tags: Sequence[str]) -> list[tuple[str, ...]]:
    """The features of each word: its lower-case form, affixes, shape and UPOS tag."""
    forms = [_DIGIT.sub("0", word.lower()) for word in words]
    return [
        (form, form[:3], form[-3:], form[-2:], shape(word), tag)
        for form, word, tag in zip(forms, words, tags, strict=True)
    ]


def feature_ids(config: ParserConfig, words: Sequence[str], tags: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the embeddings ``[words + 2, features]``, with an edge before the first word and after the last."""
    ids = np.full((len(words) + 2, len(config.vocabularies)), EDGE, np.int64)
    ids[1:-1] = [word_ids(config, values) for values in features(words, tags)]
    return ids


def word_ids(config: ParserConfig, values: Sequence[str]) -> list[int]:
    """Rows of the embeddings of one word's features."""
    return [vocabulary.get(value, UNSEEN) for vocabulary, value in zip(config.vocabularies, values, strict=True)]


def stack_ids(rows: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Feature rows of several sentences as ``[B, n + 2, features]``, and their numbers of words ``[B]``."""
    counts = torch.tensor([len(row) - 2 for row in rows])
    ids = torch.full((len(rows), int(counts.max()) + 2, rows[0].shape[1]), PAD)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.from_numpy(row)
    return ids, counts


class ChartParser(nn.Module):
    """Scores of labels for every span, and of tags for every word."""

    def __init__(self, config: ParserConfig) -> None:
        super().__init__()
        self.config = config
        # Cached rows of the embeddings for words with their tags.
        self.known: dict[tuple[str, str], list[int]] = {}
        sizes = zip(config.vocabularies, config.widths, strict=True)
        self.embeddings = nn.ModuleList(
            nn.Embedding(3 + len(vocabulary), width, padding_idx=PAD) for vocabulary, width in sizes
        )
        inputs = [sum(config.widths), *[2 * config.hidden] * (config.layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(width, config.hidden, batch_first=True) for width in inputs)
        self.backwards = nn.ModuleList(nn.LSTM(width, config.hidden, batch_first=True) for width in inputs)
        self.ends = nn.Linear(2 * config.hidden, config.span_hidden, bias=False)
        self.span_norm = nn.LayerNorm(config.span_hidden)
        self.span_out = nn.Linear(config.span_hidden, len(config.labels))
        self.tag_out = nn.Linear(2 * config.hidden, len(config.tags))

    def forward(self, ids: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Label and tag scores for ``ids [B, n + 2, features]`` of sentences of ``counts [B]`` words.

        Returns:
            Label scores ``[B, n (n + 1) / 2, labels]`` in the order of ``all_spans(n)``; tag scores ``[B, n, tags]``.
        """
        h = torch.cat([table(ids[..., at]) for at, table in enumerate(self.embeddings)], -1)
        # Reverses each sentence and leaves the padding after it in place.
        place = torch.arange(h.shape[1], device=h.device).expand(len(h), -1)
        last = counts[:, None].to(h.device) + 1
        reversal = torch.where(place <= last, last - place, place)[..., None]
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            h = self._drop(h)
            left_to_right = forwards(h)[0]
            right_to_left = backwards(h.gather(1, reversal.expand_as(h)))[0]
            h = torch.cat([left_to_right, right_to_left.gather(1, reversal.expand_as(right_to_left))], -1)
        h = self._drop(h)
        spans = self.span_norm(span_states(h, self.ends))
        return self.span_out(F.relu(spans)), self.tag_out(h[:, 1:-1])

    def _drop(self, h: Tensor) -> Tensor:
        # One mask for all positions of a sentence (Gal and Ghahramani 2016).
        if not self.training:
            return h
        return h * F.dropout(torch.ones_like(h[:, :1]), self.config.dropout)


def span_states(h: Tensor, project: nn.Module) -> Tensor:
    """States ``[B, spans, K]`` of all spans in the order of ``all_spans``: the differences between their boundaries.

    Args:
        h: states of a bidirectional LSTM ``[B, n + 2, 2 H]``, with an edge before the first word and after the last.
        project: maps the states of a boundary ``[..., 2 H]`` to ``[..., K]``.
    """
    left_to_right, right_to_left = h.chunk(2, -1)
    # The boundary between words i - 1 and i has the states up to it from the left and from the right.
    boundaries = project(torch.cat([left_to_right[:, :-1], -right_to_left[:, 1:]], -1))
    starts, ends = (index.to(h.device) for index in all_spans(boundaries.shape[1] - 1))
    difference: Tensor = boundaries.index_select(1, ends + 1) - boundaries.index_select(1, starts)
    return difference


@cache
def all_spans(count: int) -> tuple[Tensor, Tensor]:
    """First and last words of all spans of ``count`` words, ordered by first word, then by last."""
    starts, ends = torch.triu_indices(count, count)
    return starts, ends


def best_splits(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find where the best binary tree splits each span (CKY).

    Args:
        scores: of every span from word i to word j ``[B, i, j]``, both included.

    Returns:
        ``[B, i, width - 1]``: the number of words in the left part of the span of this width from word i.
    """
    batch, count, _ = scores.shape
    # The best score of a subtree by first word and width, and by last word and width.
    by_start, by_end = np.zeros((2, batch, count, count + 1), np.float32)
    splits = np.zeros((batch, count, count), np.int64)
    for width in range(1, count + 1):
        starts = np.arange(count - width + 1)
        best = scores[:, starts, starts + width - 1]
        if width > 1:
            parts = by_start[:, : len(starts), 1:width] + by_end[:, width - 1 :, 1:width][:, :, ::-1]
            splits[:, : len(starts), width - 1] = parts.argmax(-1) + 1
            best = best + parts.max(-1)
        by_start[:, : len(starts), width] = best
        by_end[:, width - 1 :, width] = best
    return splits


def best_spans(label_scores: Tensor, counts: Sequence[int], labels: Sequence[str]) -> list[list[Span]]:
    """The constituents of each sentence's best tree, from label scores ``[B, spans, labels]``.

    A tree's score is the sum over its spans; a span without a label scores 0 and is not a constituent, so nodes with
    more than two children need no explicit binarisation.
    """
    relative = label_scores - label_scores[..., :1]
    best, label = relative.max(-1)
    batch, longest = len(counts), max(counts)
    # As arrays: NumPy would treat a tensor of one element, for texts of one word, as a number.
    starts, ends = (index.numpy() for index in all_spans(longest))
    chart, best_labels = np.zeros((batch, longest, longest), np.float32), np.zeros((batch, longest, longest), np.int64)
    chart[:, starts, ends], best_labels[:, starts, ends] = best.numpy(), label.numpy()
    splits = best_splits(chart)
    sentence_spans = []
    # As lists, whose single entries Python reads much faster than those of arrays.
    for count, label_of, split_of in zip(counts, best_labels.tolist(), splits.tolist(), strict=True):
        spans, pending = [], [(0, count - 1)]
        while pending:
            start, end = pending.pop()
            if label_of[start][end]:
                spans.append(Span(start, end, labels[label_of[start][end]]))
            if end > start:
                left = split_of[start][end - start]
                pending += [(start + left, end), (start, start + left - 1)]
        sentence_spans.append(spans)
    return sentence_spans


@torch.no_grad()
def parse(model: ChartParser, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> list[Tree]:
    """The best tree of each sentence, given its words and UPOS tags; a sentence without words is a bare ``ROOT``."""
    config = model.config
    trees = [Tree("ROOT")] * len(sentences)
    rows = _known_ids(model, sentences, tags)
    order = sorted((at for at, words in enumerate(sentences) if words), key=lambda at: len(sentences[at]))
    while order:
        size = max(1, BATCH_SPANS // len(sentences[order[-1]]) ** 2)
        batch, order = order[-size:], order[:-size]
        ids, counts = stack_ids([rows[at] for at in batch])
        label_scores, tag_scores = model(ids, counts)
        sentence_spans = best_spans(label_scores, counts.tolist(), config.labels)
        for at, spans, tag_ids in zip(batch, sentence_spans, tag_scores.argmax(-1).tolist(), strict=True):
            words = sentences[at]
            trees[at] = from_spans(words, [config.tags[tag] for tag in tag_ids[: len(words)]], spans)
    return trees


def _known_ids(
    model: ChartParser, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
) -> list[NDArray[np.int64]]:
    """``feature_ids`` of each sentence, computed once for each word with its tag."""
    known = model.known
    pairs = [list(zip(words, upos, strict=True)) for words, upos in zip(sentences, tags, strict=True)]
    new = list({pair for row in pairs for pair in row if pair not in known})
    if len(known) + len(new) > KNOWN_WORDS:
        known.clear()
        new = list({pair for row in pairs for pair in row})
    for pair, values in zip(new, features(*map(list, zip(*new, strict=True))) if new else [], strict=True):
        known[pair] = word_ids(model.config, values)
    edge = [[EDGE] * len(model.config.vocabularies)]
    return [np.array([*edge, *(known[pair] for pair in row), *edge], np.int64) for row in pairs]


def split_sentences(words: Sequence[str]) -> list[tuple[str, ...]]:
    """The sentences of a text, split after full stops, question marks and exclamation marks."""
    sentences: list[list[str]] = [[]]
    for word, following in zip(words, [*words[1:], None], strict=False):
        sentences[-1].append(word)
        if word in STOPS and following is not None and following not in CLOSING:
            sentences.append([])
    return [tuple(sentence) for sentence in sentences]


def by_sentence(parser: Parser) -> Parser:
    """A parser of texts that parses each distinct sentence once, and puts a text's trees under one root."""

    def parse_texts(texts: Sequence[Sequence[str]]) -> list[Tree]:
        split = [split_sentences(words) for words in texts]
        distinct = list(dict.fromkeys(sentence for sentences in split for sentence in sentences))
        trees = dict(zip(distinct, parser(distinct), strict=True))
        return [
            Tree("ROOT", tuple(child for sentence in sentences for child in trees[sentence].children))
            for sentences in split
        ]

    return parse_texts


@cache
def constituency_parser(source: str | None = None) -> Parser:
    """A parser: texts, as lists of words, to one tree for each. Loaded once per process.

    The sentences of a text are parsed one by one, and are all children of its ``ROOT``.

    Args:
        source: None for the bundled parser, the folder of one trained by ``dlmctl train parser``, or ``stanza`` or
            ``stanza:LANGUAGE`` for Stanza's default models (English by default), downloaded if they are not on disk.

    Raises:
        UserError: there is no such parser, it is damaged, or Stanza's models are not available.
    """
    if source is None:
        folder = bundled_path("annotators", "constituency")
        if folder is None:
            raise ModelError(
                "the bundled constituency parser is missing.", remedy="Install dlmctl again, or use Stanza."
            )
        return by_sentence(locked(load_parser(folder)))
    program, _, model = source.partition(":")
    if program == "stanza":
        return by_sentence(locked(stanza_parser(model or "en")))
    if program == "spacy":
        raise UserError(
            "spaCy's models have no constituency parser.", where=source, remedy="Use a folder, or stanza:LANGUAGE."
        )
    return by_sentence(locked(load_parser(Path(source))))


@cache
def parser_tags(source: str | None = None) -> frozenset[str] | None:
    """The tags of words that a parser knows; None for other programs, whose tags are unknown. Read once per process.

    Args:
        source: as for ``constituency_parser``.

    Raises:
        ModelError: there is no such parser, or it is damaged.
    """
    folder = bundled_path("annotators", "constituency") if source is None else Path(source)
    if folder is None or (source or "").partition(":")[0] in ("stanza", "spacy"):
        return None
    with read_annotator(folder / PARSER_FILE, "parser", PARSER_FORMAT) as saved:
        return frozenset(ParserConfig.model_validate(saved).tags)


def load_parser(folder: Path) -> Parser:
    """The sentence parser saved in ``folder``; the bundled tagger tags its words.

    Raises:
        ModelError: it is missing or damaged.
    """
    with read_annotator(folder / PARSER_FILE, "parser", PARSER_FORMAT) as saved:
        model = ChartParser(ParserConfig.model_validate(saved))
    load_into(model, folder)
    model.eval()
    return lambda sentences: parse(model, sentences, upos_tagger()(sentences))
