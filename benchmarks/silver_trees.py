"""Trees of plain sentences by a larger parser than the bundled one, for the bundled one to learn from.

    python benchmarks/silver_trees.py train TEACHER.pt --encoder FOLDER --trees train.ptb --dev dev.ptb
    python benchmarks/silver_trees.py parse TEACHER.pt --encoder FOLDER --sentences text.jsonl --out silver.ptb

The teacher is a span-based chart parser (Stern et al. 2017) like the bundled one, on top of a pretrained encoder from
Hugging Face, which is trained along. ``dlmctl train parser --silver silver.ptb`` then trains a small parser on its
trees as well as on a treebank. The card of the bundled parser names the encoder used for it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from dlmctl.annotators.brackets import corpus_f1
from dlmctl.annotators.parsing import best_spans, span_states
from dlmctl.annotators.trees import Tree, from_spans
from dlmctl.datasets.dataset import BatchPlan
from dlmctl.text.penn import split_penn
from dlmctl.training.parser import TreeTargets, read_treebank, words_of

LSTM, SPAN, WORD, CASES = 256, 256, 400, 16
DROPOUT, LOWERCASE = 0.3, 0.1
# Words times longest sentence of a batch.
TRAIN_SIZE, PARSE_SIZE = 800, 8000
LEARNING_RATE, ENCODER_RATE, WARMUP = 2e-3, 2e-4, 150
MOST_PIECES, MOST_WORDS = 8, 30
# Treebanks write these in place of quotes.
ESCAPED = {"``": '"', "''": '"'}


class Batch(NamedTuple):
    """Sentences of one batch with an edge before and behind each.

    Attributes:
        ids, mask: pieces of words ``[B, P]`` and which are no padding.
        first, last: the first and the last piece of each word and edge ``[B, L + 2]``.
        cases: how each is capitalised ``[B, L + 2]``.
        counts: words of each sentence ``[B]``.
    """

    ids: Tensor
    mask: Tensor
    first: Tensor
    last: Tensor
    cases: Tensor
    counts: Tensor


class Teacher(nn.Module):
    """Scores of labels for every span and of tags for every word, from an encoder and a bidirectional LSTM."""

    def __init__(self, encoder: Path, labels: list[str], tags: list[str]) -> None:
        super().__init__()
        self.labels, self.tags = labels, tags
        self.encoder = AutoModel.from_pretrained(encoder)
        sizes = self.encoder.config
        self.mix = nn.Parameter(torch.zeros(sizes.num_hidden_layers + 1))
        self.words = nn.Linear(2 * sizes.hidden_size, WORD)
        self.cases = nn.Embedding(8, CASES)
        self.lstm = nn.LSTM(WORD + CASES, LSTM, 2, batch_first=True, bidirectional=True, dropout=DROPOUT)
        self.ends, self.norm = nn.Linear(2 * LSTM, SPAN, bias=False), nn.LayerNorm(SPAN)
        self.span_out, self.tag_out = nn.Linear(SPAN, len(labels)), nn.Linear(2 * LSTM, len(tags))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Label scores ``[B, spans, labels]`` in the order of ``all_spans``, and tag scores ``[B, L, tags]``."""
        layers = self.encoder(batch.ids, batch.mask, output_hidden_states=True).hidden_states
        pieces = (torch.stack(layers, -1) * self.mix.softmax(0)).sum(-1)
        ends = [pieces.gather(1, at[..., None].expand(-1, -1, pieces.shape[-1])) for at in (batch.first, batch.last)]
        h = self._drop(torch.cat([self.words(torch.cat(ends, -1)), self.cases(batch.cases)], -1).float())
        packed = nn.utils.rnn.pack_padded_sequence(h, batch.counts + 2, batch_first=True, enforce_sorted=False)
        h = self._drop(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])
        spans = self.norm(span_states(h, self.ends))
        return self.span_out(F.relu(spans)), self.tag_out(h[:, 1:-1])

    def _drop(self, h: Tensor) -> Tensor:
        return h * F.dropout(torch.ones_like(h[:, :1]), DROPOUT) if self.training else h


class Reader:
    """Makes batches of words for an encoder."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.pieces = tokenizer, dict[str, list[int]]()

    def __call__(self, sentences: Sequence[Sequence[str]]) -> Batch:
        rows = [self._row(words) for words in sentences]
        ids, first, last, cases = (_padded(column) for column in zip(*rows, strict=True))
        mask = _padded([[1] * len(row[0]) for row in rows])
        return Batch(ids, mask, first, last, cases, torch.tensor(list(map(len, sentences))))

    def _row(self, words: Sequence[str]) -> tuple[list[int], list[int], list[int], list[int]]:
        ids, first, last = [self.tokenizer.cls_token_id], [0], [0]
        for word in words:
            first.append(len(ids))
            ids += self._pieces(word)
            last.append(len(ids) - 1)
        edge = len(ids)
        cases = [_case(word, at == 0) for at, word in enumerate(words)]
        return [*ids, self.tokenizer.sep_token_id], [*first, edge], [*last, edge], [3, *cases, 3]

    def _pieces(self, word: str) -> list[int]:
        if word not in self.pieces:
            ids = self.tokenizer(ESCAPED.get(word, word), add_special_tokens=False)["input_ids"]
            self.pieces[word] = ids[:MOST_PIECES] or [self.tokenizer.unk_token_id]
        return self.pieces[word]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def _case(word: str, first: bool) -> int:
    kind = 0 if word.islower() else 1 if word.isupper() and len(word) > 1 else 2 if word[:1].isupper() else 3
    return kind + 4 * first


def batches(lengths: Sequence[int], size: int, epoch: int = 0) -> list[list[int]]:
    """Indices of sentences of similar length, shuffled."""
    plan = BatchPlan(size, max(lengths), bucket=2, full_share=0.0)
    return [rows.tolist() for rows, _ in plan.epoch(np.array(lengths), epoch)]


@torch.no_grad()
def parse(teacher: Teacher, read: Reader, sentences: Sequence[Sequence[str]]) -> list[Tree]:
    """The best tree of each sentence."""
    trees = [Tree("ROOT")] * len(sentences)
    teacher.eval()
    for rows in batches(list(map(len, sentences)), PARSE_SIZE):
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
    torch.manual_seed(arguments.seed)
    trees = [tree for path in arguments.trees for tree in read_treebank(path)]
    dev = read_treebank(arguments.dev)
    sentences, targets = [words_of(tree) for tree in trees], TreeTargets(trees)
    teacher = Teacher(arguments.encoder, targets.labels, targets.tags)
    read = Reader(AutoTokenizer.from_pretrained(arguments.encoder))
    own = [weight for name, weight in teacher.named_parameters() if not name.startswith("encoder.")]
    groups: list[dict[str, Any]] = [{"params": own}, {"params": list(teacher.encoder.parameters()), "lr": ENCODER_RATE}]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=0.01)
    lengths = list(map(len, sentences))
    plan = [(epoch, rows) for epoch in range(arguments.epochs) for rows in batches(lengths, TRAIN_SIZE, epoch)]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / len(plan))
    )
    for step, (epoch, rows) in enumerate(plan):
        lower = random.random() < LOWERCASE
        batch = read([[word.lower() if lower else word for word in sentences[at]] for at in rows])
        with torch.autocast("cpu", torch.bfloat16):
            scores = teacher.train()(batch)
        nats = targets.nats(*(score.float() for score in scores), rows)
        optimizer.zero_grad()
        (nats / batch.counts.sum()).backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        last = step + 1 == len(plan) or plan[step + 1][0] != epoch
        if last and (epoch % 3 == 2 or epoch + 1 == arguments.epochs):
            predicted = parse(teacher, read, [words_of(tree) for tree in dev])
            print(f"epoch {epoch + 1}: F1 {corpus_f1(zip(dev, predicted, strict=True)).f1:.4f}", flush=True)
            saved = {"weights": teacher.state_dict(), "labels": targets.labels, "tags": targets.tags}
            torch.save(saved, arguments.teacher)


def sentences_of(path: Path) -> Iterator[list[str]]:
    """The words of each distinct text of a file of JSON lines; no long ones, and none with brackets."""
    texts = dict.fromkeys(str(json.loads(line)["text"]) for line in path.open(encoding="utf-8"))
    for words in map(split_penn, texts):
        if len(words) <= MOST_WORDS and not any(mark in word for word in words for mark in "()[]{}"):
            yield list(words)


def write_silver(arguments: argparse.Namespace) -> None:
    """Parse the sentences of a file and write their trees."""
    saved = torch.load(arguments.teacher, weights_only=True)
    teacher = Teacher(arguments.encoder, saved["labels"], saved["tags"])
    teacher.load_state_dict(saved["weights"])
    read = Reader(AutoTokenizer.from_pretrained(arguments.encoder))
    sentences = sentences_of(arguments.sentences)
    with arguments.out.open("w", encoding="utf-8") as out:
        while chunk := list(islice(sentences, 20_000)):
            out.writelines(f"{tree}\n" for tree in parse(teacher, read, chunk))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    trainer = actions.add_parser("train", help="train a teacher on a treebank")
    trainer.add_argument("--trees", type=Path, nargs="+", required=True, help="bracketed trees to train on")
    trainer.add_argument("--dev", type=Path, required=True, help="bracketed trees to measure F1 on")
    trainer.add_argument("--epochs", type=int, default=12)
    trainer.add_argument("--seed", type=int, default=0)
    writer = actions.add_parser("parse", help="parse sentences with a teacher")
    writer.add_argument("--sentences", type=Path, required=True, help='JSON lines with a "text"')
    writer.add_argument("--out", type=Path, required=True, help="file for the trees")
    for action, run in ((trainer, train), (writer, write_silver)):
        action.add_argument("teacher", type=Path, help="file of the teacher's weights")
        action.add_argument("--encoder", type=Path, required=True, help="folder of a Hugging Face encoder")
        action.set_defaults(run=run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
