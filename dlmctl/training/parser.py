"""Training the constituency parser on a treebank: every span's label by cross-entropy (Teng and Zhang 2018)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.annotators.brackets import corpus_f1
from dlmctl.annotators.parsing import (
    NONE,
    PARSER_FILE,
    PARSER_FORMAT,
    UNSEEN,
    ChartParser,
    ParserConfig,
    all_spans,
    feature_ids,
    features,
    parse,
    stack_ids,
)
from dlmctl.annotators.tagging import load_tagger, upos_tagger
from dlmctl.annotators.trees import JOIN, Tree, labelled_spans, read_trees, simplify
from dlmctl.checkpoint.precision import round_matrices
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.datasets.conllu import TaggedSentence
from dlmctl.datasets.dataset import BatchPlan
from dlmctl.errors import DataError
from dlmctl.text.files import require_file
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.run_folder import check_run_folder
from dlmctl.training.tagger import fit_crf, read_conllu, save_tagger

# Feature values and labels rarer than this in training are treated as unseen.
MIN_FEATURE, MIN_LABEL = 2, 5
# A word seen c times is replaced by the unseen word in a / (a + c) of its occurrences (Stern et al. 2017).
WORD_DROPOUT = 0.8
# Share of sentences shown in lower case.
LOWERCASE = 0.1
FOLDS = 4
# Significant bits of saved matrices; F1 is the same as with all.
BITS = 8


class ParserSizes(BaseModel):
    """Sizes of the parser."""

    model_config = ConfigDict(extra="forbid")

    hidden: int = Field(default=200, gt=0, description="width of the LSTM in each direction")
    layers: int = Field(default=2, gt=0, description="LSTM layers")
    span_hidden: int = Field(default=250, gt=0, description="width of the layer between a span and its label scores")
    dropout: float = Field(default=0.35, ge=0, lt=1, description="dropout between layers")
    widths: list[int] = Field(
        default=[100, 30, 30, 30, 20, 30], min_length=6, max_length=6, description="embedding width of each feature"
    )


class ParserTrainingConfig(BaseModel):
    """A configuration file of ``dlmctl train parser``."""

    model_config = ConfigDict(extra="forbid")

    model: ParserSizes = Field(default_factory=ParserSizes, description="sizes of the parser")
    values: list[int] = Field(
        default=[10_000, 2_500, 2_500, 1_000, 200, 20],
        min_length=6,
        max_length=6,
        description="most values with an embedding of their own: of words, prefixes, two suffixes, shapes, tags",
    )
    gold_passes: int = Field(
        default=1, gt=0, description="passes over the treebank in each pass over the trees of another parser"
    )
    loop: LoopConfig


class TreeTargets:
    """What a parser learns from trees: the classes of the spans and the tags of the words.

    Attributes:
        labels: of the spans that are frequent enough, the first for none.
        tags: of the words.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        spans = [labelled_spans(tree) for tree in trees]
        self.labels = [NONE, *_frequent(Counter(span.label for tree_spans in spans for span in tree_spans), MIN_LABEL)]
        self.tags = _frequent(Counter(leaf.label for tree in trees for leaf in tree.leaves()), 1)
        label_row = {label: row for row, label in enumerate(self.labels)}
        self._spans = [
            [
                (start, end, label_row.get(label) or label_row.get(label.split(JOIN)[0], 0))
                for start, end, label in tree_spans
            ]
            for tree_spans in spans
        ]
        tag_row = {tag: row for row, tag in enumerate(self.tags)}
        self._tags = [torch.tensor([tag_row[leaf.label] for leaf in tree.leaves()]) for tree in trees]

    def nats(self, scores: Tensor, tag_scores: Tensor, batch: Sequence[int]) -> Tensor:
        """Cross-entropy of all span labels and all tags of some trees, summed, in nats.

        Args:
            scores: of labels ``[B, spans, labels]``, in the order of ``all_spans``.
            tag_scores: ``[B, n, tags]``.
        """
        counts = torch.tensor([len(self._tags[at]) for at in batch])
        longest = int(counts.max())
        labels = torch.zeros(len(batch), longest, longest, dtype=torch.long)
        tags = torch.full((len(batch), longest), -1)
        for row, at in enumerate(batch):
            for start, end, label in self._spans[at]:
                labels[row, start, end] = label
            tags[row, : len(self._tags[at])] = self._tags[at]
        starts, ends = all_spans(longest)
        labels = labels[:, starts, ends].masked_fill(ends >= counts[:, None], -1)
        labels, tags = labels.to(scores.device), tags.to(scores.device)
        nats = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum")
        return nats + F.cross_entropy(tag_scores.flatten(0, 1), tags.flatten(), ignore_index=-1, reduction="sum")


class ParserTask(StatelessTask):
    """A parser for a treebank, for the training loop.

    Args:
        train, dev: trees.
        tags: the UPOS tags of their sentences.
    """

    def __init__(
        self,
        config: ParserTrainingConfig,
        train: list[Tree],
        dev: list[Tree],
        tags: tuple[list[list[str]], list[list[str]]],
    ) -> None:
        self.config, self.dev, self.dev_tags = config, dev, tags[1]
        words = [words_of(tree) for tree in train]
        columns = zip(*(row for pair in zip(words, tags[0], strict=True) for row in features(*pair)), strict=True)
        counts = [Counter(column) for column in columns]
        self.targets = TreeTargets(train)
        sizes = ParserConfig(
            **config.model.model_dump(),
            labels=self.targets.labels,
            tags=self.targets.tags,
            vocabularies=[
                {value: row for row, value in enumerate(_frequent(count, MIN_FEATURE, most), UNSEEN + 1)}
                for count, most in zip(counts, config.values, strict=True)
            ],
        )
        torch.manual_seed(config.loop.seed)
        self.model = ChartParser(sizes)
        seen = torch.tensor([0, 0, 0, *(counts[0][word] for word in sizes.vocabularies[0])])
        self.word_dropout = torch.where(seen > 0, WORD_DROPOUT / (WORD_DROPOUT + seen), 0.0)

        self.ids = [feature_ids(sizes, *pair) for pair in zip(words, tags[0], strict=True)]
        lower = [[word.lower() for word in sentence] for sentence in words]
        self.lower_ids = [feature_ids(sizes, *pair) for pair in zip(lower, tags[0], strict=True)]

    def batches(self, skip: int, rank: int, world: int) -> Iterator[list[int]]:
        """Indices of sentences of similar length."""
        lengths = np.array([len(row) for row in self.ids])
        loop = self.config.loop
        plan = BatchPlan(loop.batch_positions, int(lengths.max()), loop.bucket, 0.0, loop.seed)
        epoch = 0
        while True:
            for rows, _ in plan.epoch(lengths, epoch)[rank::world]:
                if skip:
                    skip -= 1
                else:
                    yield rows.tolist()
            epoch += 1

    def loss(self, model: nn.Module, batch: list[int]) -> tuple[Tensor, int]:
        """Cross-entropy of all span labels and all tags, in nats per word."""
        lower = (torch.rand(len(batch)) < LOWERCASE).tolist()
        ids, counts = stack_ids(
            [(self.lower_ids if low else self.ids)[at] for at, low in zip(batch, lower, strict=True)]
        )
        ids[..., 0].masked_fill_(torch.rand(ids.shape[:2]) < self.word_dropout[ids[..., 0]], UNSEEN)
        scores, tag_scores = model(ids.to(next(model.parameters()).device), counts)
        return self.targets.nats(scores, tag_scores, batch) / counts.sum(), int(counts.sum())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Labelled bracket scores as evalb counts them, with punctuation deleted, and the tagging accuracy."""
        assert isinstance(model, ChartParser)
        predicted = parse(model, [words_of(tree) for tree in self.dev], self.dev_tags)
        score = corpus_f1(zip(self.dev, predicted, strict=True))
        gold_tags = [leaf.label for tree in self.dev for leaf in tree.leaves()]
        predicted_tags = [leaf.label for tree in predicted for leaf in tree.leaves()]
        tag_accuracy = sum(map(str.__eq__, gold_tags, predicted_tags)) / len(gold_tags)
        return {"f1": score.f1, "precision": score.precision, "recall": score.recall, "tags": tag_accuracy}

    def loss_of(self, figures: dict[str, float]) -> float:
        return -figures["f1"]


def words_of(tree: Tree) -> list[str]:
    """The words of a tree."""
    return [leaf.word for leaf in tree.leaves()]


def _frequent(counts: Counter[str], min_count: int, most: int | None = None) -> list[str]:
    frequent = [value for value, count in sorted(counts.items()) if count >= min_count]
    return sorted(sorted(frequent, key=lambda value: -counts[value])[:most])


def save_parser(model: ChartParser, folder: Path) -> None:
    """Write a parser for ``dlmctl.annotators.parsing.load_parser``, with weights in half precision or less.

    Raises:
        UserError: the folder cannot be written; what was there is unchanged.
    """
    saved = {"format": PARSER_FORMAT, **model.config.model_dump()}
    with staged(folder) as staging:
        (staging / PARSER_FILE).write_text(json.dumps(saved, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
        write_shards(round_matrices(model.state_dict(), BITS), staging)


def read_treebank(path: Path) -> list[Tree]:
    """The trees of a bracketed file, without function tags and traces.

    Raises:
        DataError: the file cannot be read, is not well bracketed, or has a leaf without a word.
    """
    require_file(path, error=DataError)
    try:
        trees = [tree for tree in map(simplify, read_trees(path.read_text("utf-8"))) if tree is not None]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", where=str(path)) from None
    except ValueError as error:
        raise DataError(f"not bracketed trees: {error}.", where=str(path)) from None
    for tree in trees:
        if not all(words_of(tree)):
            raise DataError(f"a leaf has no word: {tree}", where=str(path))
    if not trees:
        raise DataError("holds no trees.", where=str(path))
    return trees


def jackknifed(tagged: list[TaggedSentence]) -> dict[tuple[str, ...], list[str]]:
    """Each sentence with the tags of a tagger that was trained on the other folds.

    A tagger memorises its training text, and a parser trained on such tags would trust them too much.
    """
    tags_of: dict[tuple[str, ...], list[str]] = {}
    for fold in range(FOLDS):
        rest = [sentence for at, sentence in enumerate(tagged) if at % FOLDS != fold]
        held_out = [sentence.words for sentence in tagged[fold::FOLDS]]
        with tempfile.TemporaryDirectory() as scratch:
            save_tagger(fit_crf(rest), Path(scratch))
            tagger = load_tagger(Path(scratch))
        tags_of |= {tuple(words): tags for words, tags in zip(held_out, tagger(held_out), strict=True)}
    return tags_of


def train_parser(
    config: ParserTrainingConfig,
    train: Path,
    dev: Path,
    conllu: Path,
    out: Path,
    *,
    silver: Path | None = None,
    resume: bool = False,
) -> float:
    """Train a parser, keep the best in ``out / "parser"`` and return its F1 on ``dev``.

    Args:
        train, dev: bracketed trees.
        conllu: the training data of the bundled tagger, so that the training sentences can be tagged by taggers that
            have not seen them.
        silver: trees of other sentences by a better parser, to learn from as well (Hinton et al. 2015).

    Raises:
        DataError: a file cannot be read.
        UserError: python-crfsuite is missing, or ``out`` and ``resume`` do not fit together.
    """
    check_run_folder(out, resume=resume)
    trees, held_out = read_treebank(train), read_treebank(dev)
    files = {"data": train, "dev": dev}
    if silver is not None:
        trees, files["silver"] = trees * config.gold_passes + read_treebank(silver), silver
    sentences, tags_of = [tuple(words_of(tree)) for tree in trees], jackknifed(read_conllu(conllu))
    rest = [words for words in dict.fromkeys(sentences) if words not in tags_of]
    tags_of.update(zip(rest, upos_tagger()(rest), strict=True))
    tags = [tags_of[words] for words in sentences]
    dev_tags = upos_tagger()([words_of(tree) for tree in held_out])
    task = ParserTask(config, trees, held_out, (tags, dev_tags))
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    model = fit(task, config.loop, out, identity={**config.model_dump(mode="json"), **digests}, resume=resume)
    assert isinstance(model, ChartParser)
    save_parser(model, out / "parser")
    return task.validate(model)["f1"]
