"""Tags of plain sentences by a larger tagger than the bundled one, for the bundled one to learn from.

    python benchmarks/silver_tags.py train TEACHER.pt --encoder FOLDER --words train.conllu --dev dev.conllu
    python benchmarks/silver_tags.py tag TEACHER.pt --encoder FOLDER --sentences text.jsonl --out silver.conllu

The teacher is a pretrained encoder from Hugging Face, which is trained along, with a bidirectional LSTM on top.
``dlmctl train tagger --silver silver.conllu`` then trains a small tagger on its tags as well as on a treebank. The card
of the bundled tagger names the encoder used for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from silver_encoder import LSTM, READ_SIZE, Batch, Reader, WordStates, batches, fit, padded, run_script, write_annotated
from torch import Tensor, nn

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.training.tagger import accuracy, read_conllu


class Teacher(WordStates):
    """Scores of UPOS tags for every word."""

    def __init__(self, encoder: Path) -> None:
        super().__init__(encoder)
        self.tag_out = nn.Linear(2 * LSTM, len(UPOS_TAGS))

    def forward(self, batch: Batch) -> Tensor:
        """Scores ``[B, L, tags]`` in the order of ``UPOS_TAGS``."""
        scores: Tensor = self.tag_out(self.states(batch)[:, 1:-1])
        return scores


@torch.no_grad()
def tag(teacher: Teacher, read: Reader, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """The likeliest tag of each word."""
    tags: list[list[str]] = [[] for _ in sentences]
    teacher.eval()
    for rows in batches(list(map(len, sentences)), READ_SIZE):
        with torch.autocast("cpu", torch.bfloat16):
            best = teacher(read([sentences[at] for at in rows])).argmax(-1)
        for at, row in zip(rows, best.tolist(), strict=True):
            tags[at] = [UPOS_TAGS[number] for number in row[: len(sentences[at])]]
    return tags


def train(arguments: argparse.Namespace) -> None:
    """Train a teacher and print its accuracy on held-out sentences after every third epoch."""
    tagged = [sentence for path in arguments.gold for sentence in read_conllu(path)]
    dev = read_conllu(arguments.dev)
    teacher, read = Teacher(arguments.encoder), Reader(arguments.encoder)
    numbers = {name: number for number, name in enumerate(UPOS_TAGS)}
    targets = [[numbers[name] for name in sentence.tags] for sentence in tagged]

    def save(epoch: int) -> None:
        share = accuracy(lambda sentences: tag(teacher, read, sentences), dev)
        print(f"epoch {epoch}: accuracy {share:.4f}", flush=True)
        torch.save(teacher.state_dict(), arguments.teacher)

    def nats(scores: Tensor, rows: list[int]) -> Tensor:
        wanted = padded([targets[at] for at in rows], fill=-100)
        return F.cross_entropy(scores.float().transpose(1, 2), wanted, ignore_index=-100, reduction="sum")

    fit(teacher, read, [s.words for s in tagged], nats, epochs=arguments.epochs, after_epoch=save)


def write_silver(arguments: argparse.Namespace) -> None:
    """Tag the sentences of a file and write them as CoNLL-U."""
    teacher, read = Teacher(arguments.encoder), Reader(arguments.encoder)
    teacher.load_state_dict(torch.load(arguments.teacher, weights_only=True))
    write_annotated(arguments, lambda sentences: map(conllu, sentences, tag(teacher, read, sentences)))


def conllu(words: Sequence[str], tags: Sequence[str]) -> str:
    """A tagged sentence as CoNLL-U, with the line behind it."""
    cells = enumerate(zip(words, tags, strict=True), start=1)
    return "\n".join("\t".join((str(at), word, "_", name, *"______")) for at, (word, name) in cells) + "\n\n"


if __name__ == "__main__":
    run_script(__doc__, "words", "accuracy", "tag", train, write_silver, epochs=6)
