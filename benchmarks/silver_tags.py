"""Tags of plain sentences by a larger tagger than the bundled one, for the bundled one to learn from.

    python benchmarks/silver_tags.py train TEACHER.pt --encoder FOLDER --words train.conllu --dev dev.conllu
    python benchmarks/silver_tags.py tag TEACHER.pt --encoder FOLDER --sentences text.jsonl --out silver.conllu

The teacher is a pretrained encoder from Hugging Face, which is trained along, with a bidirectional LSTM on top.
``dlmctl train tagger --silver silver.conllu`` then trains a small tagger on its tags as well as on a treebank. The card
of the bundled tagger names the encoder used for it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from silver_encoder import LSTM, READ_SIZE, Batch, Reader, WordStates, batches, fit, padded, sentences_of
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
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    tagged = [sentence for path in arguments.words for sentence in read_conllu(path)]
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
    sentences = sentences_of(arguments.sentences)
    with arguments.out.open("w", encoding="utf-8") as out:
        while chunk := list(islice(sentences, 20_000)):
            for words, tags in zip(chunk, tag(teacher, read, chunk), strict=True):
                cells = enumerate(zip(words, tags, strict=True), start=1)
                rows = ["\t".join((str(at), word, "_", name, *"______")) for at, (word, name) in cells]
                out.write("\n".join(rows) + "\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    trainer = actions.add_parser("train", help="train a teacher on a treebank")
    trainer.add_argument("--words", type=Path, nargs="+", required=True, help="CoNLL-U files to train on")
    trainer.add_argument("--dev", type=Path, required=True, help="CoNLL-U file to measure accuracy on")
    trainer.add_argument("--epochs", type=int, default=6)
    trainer.add_argument("--seed", type=int, default=0)
    writer = actions.add_parser("tag", help="tag sentences with a teacher")
    writer.add_argument("--sentences", type=Path, required=True, help='JSON lines with a "text"')
    writer.add_argument("--out", type=Path, required=True, help="CoNLL-U file for the tagged sentences")
    for action, run in ((trainer, train), (writer, write_silver)):
        action.add_argument("teacher", type=Path, help="file of the teacher's weights")
        action.add_argument("--encoder", type=Path, required=True, help="folder of a Hugging Face encoder")
        action.set_defaults(run=run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
