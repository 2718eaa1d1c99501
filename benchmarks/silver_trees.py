"""Trees of plain sentences by a larger parser than the bundled one, for the bundled one to learn from.

    python benchmarks/silver_trees.py train TEACHER.pt --encoder FOLDER --trees train.ptb --dev dev.ptb
    python benchmarks/silver_trees.py parse TEACHER.pt --encoder FOLDER --sentences text.jsonl --out silver.ptb

The teacher is a span-based chart parser (Stern et al. 2017) like the bundled one, on top of a pretrained encoder from
Hugging Face, which is trained along. ``dlmctl train parser --silver silver.ptb`` then trains a small parser on its
trees as well as on a treebank. The card of the bundled parser names the encoder used for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from silver_encoder import LSTM, READ_SIZE, Batch, Reader, WordStates, batches, fit, run_script, write_annotated
from torch import Tensor, nn

from dlmctl.annotators.brackets import corpus_f1
from dlmctl.annotators.parsing import best_spans, span_states
from dlmctl.annotators.trees import Tree, from_spans
from dlmctl.training.parser import TreeTargets, read_treebank, words_of

SPAN = 256


class Teacher(WordStates):
    """Scores of labels for every span and of tags for every word."""

    def __init__(self, encoder: Path, labels: list[str], tags: list[str]) -> None:
        super().__init__(encoder)
        self.labels, self.tags = labels, tags
        self.ends, self.norm = nn.Linear(2 * LSTM, SPAN, bias=False), nn.LayerNorm(SPAN)
        self.span_out, self.tag_out = nn.Linear(SPAN, len(labels)), nn.Linear(2 * LSTM, len(tags))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Label scores ``[B, spans, labels]`` in the order of ``all_spans``, and tag scores ``[B, L, tags]``."""
        h = self.states(batch)
        spans = self.norm(span_states(h, self.ends))
        return self.span_out(F.relu(spans)), self.tag_out(h[:, 1:-1])


@torch.no_grad()
def parse(teacher: Teacher, read: Reader, sentences: Sequence[Sequence[str]]) -> list[Tree]:
    """The best tree of each sentence."""
    trees = [Tree("ROOT")] * len(sentences)
    teacher.eval()
    for rows in batches(list(map(len, sentences)), READ_SIZE):
        batch = read([sentences[at] for at in rows])
        with torch.autocast("cpu", torch.bfloat16):
            label_scores, tag_scores = teacher(batch)
        spans = best_spans(label_scores.float(), batch.counts.tolist(), teacher.labels)
        for at, row_spans, tags in zip(rows, spans, tag_scores.argmax(-1).tolist(), strict=True):
            names = [teacher.tags[tag] for tag in tags[: len(sentences[at])]]
            trees[at] = from_spans(sentences[at], names, row_spans)
    return trees


def train(arguments: argparse.Namespace) -> None:
    """Train a teacher and print its F1 on held-out trees after every third epoch."""
    trees = [tree for path in arguments.gold for tree in read_treebank(path)]
    dev = read_treebank(arguments.dev)
    targets = TreeTargets(trees)
    teacher, read = Teacher(arguments.encoder, targets.labels, targets.tags), Reader(arguments.encoder)

    def save(epoch: int) -> None:
        predicted = parse(teacher, read, [words_of(tree) for tree in dev])
        print(f"epoch {epoch}: F1 {corpus_f1(zip(dev, predicted, strict=True)).f1:.4f}", flush=True)
        saved = {"weights": teacher.state_dict(), "labels": targets.labels, "tags": targets.tags}
        torch.save(saved, arguments.teacher)

    def nats(scores: tuple[Tensor, Tensor], rows: list[int]) -> Tensor:
        return targets.nats(*(score.float() for score in scores), rows)

    fit(teacher, read, [words_of(tree) for tree in trees], nats, epochs=arguments.epochs, after_epoch=save)


def write_silver(arguments: argparse.Namespace) -> None:
    """Parse the sentences of a file and write their trees."""
    saved = torch.load(arguments.teacher, weights_only=True)
    teacher, read = Teacher(arguments.encoder, saved["labels"], saved["tags"]), Reader(arguments.encoder)
    teacher.load_state_dict(saved["weights"])
    write_annotated(arguments, lambda sentences: (f"{tree}\n" for tree in parse(teacher, read, sentences)))


if __name__ == "__main__":
    run_script(__doc__, "trees", "F1", "parse", train, write_silver, epochs=12)
