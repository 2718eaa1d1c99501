"""A pretrained encoder that reads words, and its training: the larger annotators whose output the bundled ones learn.

``silver_trees.py`` and ``silver_tags.py`` put heads on it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from dlmctl.datasets.dataset import BatchPlan
from dlmctl.text.penn import split_penn

LSTM, WORD, CASES = 256, 400, 16
DROPOUT, LOWERCASE = 0.3, 0.1
# Words times longest sentence of a batch.
TRAIN_SIZE, READ_SIZE = 800, 8000
LEARNING_RATE, ENCODER_RATE, WARMUP = 2e-3, 2e-4, 150
MOST_PIECES, MOST_WORDS = 8, 30
# Treebanks write these in place of quotes.
ESCAPED = {"``": '"', "''": '"'}

Action = Callable[[argparse.Namespace], None]


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


class WordStates(nn.Module):
    """States of every word from an encoder, whose layers are mixed, and a bidirectional LSTM."""

    def __init__(self, encoder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(encoder)
        sizes = self.encoder.config
        self.mix = nn.Parameter(torch.zeros(sizes.num_hidden_layers + 1))
        self.words = nn.Linear(2 * sizes.hidden_size, WORD)
        self.cases = nn.Embedding(8, CASES)
        self.lstm = nn.LSTM(WORD + CASES, LSTM, 2, batch_first=True, bidirectional=True, dropout=DROPOUT)

    def states(self, batch: Batch) -> Tensor:
        """States ``[B, L + 2, 2 LSTM]`` of the words and of the edges around them."""
        layers = self.encoder(batch.ids, batch.mask, output_hidden_states=True).hidden_states
        pieces = (torch.stack(layers, -1) * self.mix.softmax(0)).sum(-1)
        ends = [pieces.gather(1, at[..., None].expand(-1, -1, pieces.shape[-1])) for at in (batch.first, batch.last)]
        h = self._drop(torch.cat([self.words(torch.cat(ends, -1)), self.cases(batch.cases)], -1).float())
        packed = nn.utils.rnn.pack_padded_sequence(h, batch.counts + 2, batch_first=True, enforce_sorted=False)
        return self._drop(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])

    def _drop(self, h: Tensor) -> Tensor:
        return h * F.dropout(torch.ones_like(h[:, :1]), DROPOUT) if self.training else h


class Reader:
    """Makes batches of words for an encoder."""

    def __init__(self, encoder: Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(encoder)
        self.pieces: dict[str, list[int]] = {}

    def __call__(self, sentences: Sequence[Sequence[str]]) -> Batch:
        rows = [self._row(words) for words in sentences]
        ids, first, last, cases = (padded(column) for column in zip(*rows, strict=True))
        mask = padded([[1] * len(row[0]) for row in rows])
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


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows of numbers as ``[B, longest]``."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def _case(word: str, first: bool) -> int:
    kind = 0 if word.islower() else 1 if word.isupper() and len(word) > 1 else 2 if word[:1].isupper() else 3
    return kind + 4 * first


def batches(lengths: Sequence[int], size: int, epoch: int = 0) -> list[list[int]]:
    """Indices of sentences of similar length, shuffled."""
    plan = BatchPlan(size, max(lengths), bucket=2, full_share=0.0)
    return [rows.tolist() for rows, _ in plan.epoch(np.array(lengths), epoch)]


def fit(
    teacher: WordStates,
    read: Reader,
    sentences: Sequence[Sequence[str]],
    nats: Callable[[Any, list[int]], Tensor],
    *,
    epochs: int,
    after_epoch: Callable[[int], None],
) -> None:
    """Train a teacher.

    Args:
        nats: the summed loss of a batch, from the teacher's output for it and the indices of its sentences.
        after_epoch: receives the number of every third epoch and of the last.
    """
    own = [weight for name, weight in teacher.named_parameters() if not name.startswith("encoder.")]
    groups: list[dict[str, Any]] = [{"params": own}, {"params": list(teacher.encoder.parameters()), "lr": ENCODER_RATE}]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=0.01)
    lengths = list(map(len, sentences))
    plan = [(epoch, rows) for epoch in range(epochs) for rows in batches(lengths, TRAIN_SIZE, epoch)]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / len(plan))
    )
    for step, (epoch, rows) in enumerate(plan):
        lower = random.random() < LOWERCASE
        batch = read([[word.lower() if lower else word for word in sentences[at]] for at in rows])
        with torch.autocast("cpu", torch.bfloat16):
            scores = teacher.train()(batch)
        optimizer.zero_grad()
        (nats(scores, rows) / batch.counts.sum()).backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        last = step + 1 == len(plan) or plan[step + 1][0] != epoch
        if last and (epoch % 3 == 2 or epoch + 1 == epochs):
            after_epoch(epoch + 1)


def sentences_of(path: Path) -> Iterator[list[str]]:
    """The words of each distinct text of a file of JSON lines; no long ones, and none with brackets."""
    texts = dict.fromkeys(str(json.loads(line)["text"]) for line in path.open(encoding="utf-8"))
    for words in map(split_penn, texts):
        if len(words) <= MOST_WORDS and not any(mark in word for word in words for mark in "()[]{}"):
            yield list(words)


def write_annotated(arguments: argparse.Namespace, annotate: Callable[[list[list[str]]], Iterable[str]]) -> None:
    """Write what ``annotate`` makes of the sentences of a file, thousands at a time."""
    sentences = sentences_of(arguments.sentences)
    with arguments.out.open("w", encoding="utf-8") as out:
        while chunk := list(islice(sentences, 20_000)):
            out.writelines(annotate(chunk))


def run_script(
    description: str | None, gold: str, measure: str, verb: str, train: Action, write: Action, *, epochs: int
) -> None:
    """The command line of a teacher: ``train``, and ``verb`` to annotate plain sentences.

    Args:
        gold: the option that names the files to train on.
        measure: what is measured on held-out ones.
        epochs: by default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    trainer = actions.add_parser("train", help="train a teacher on a treebank")
    trainer.add_argument(f"--{gold}", dest="gold", type=Path, nargs="+", required=True, help="files to train on")
    trainer.add_argument("--dev", type=Path, required=True, help=f"file to measure {measure} on")
    trainer.add_argument("--epochs", type=int, default=epochs)
    trainer.add_argument("--seed", type=int, default=0)
    writer = actions.add_parser(verb, help=f"{verb} sentences with a teacher")
    writer.add_argument("--sentences", type=Path, required=True, help='JSON lines with a "text"')
    writer.add_argument("--out", type=Path, required=True, help="file to write")
    for action, run in ((trainer, train), (writer, write)):
        action.add_argument("teacher", type=Path, help="file of the teacher's weights")
        action.add_argument("--encoder", type=Path, required=True, help="folder of a Hugging Face encoder")
        action.set_defaults(run=run, seed=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    arguments.run(arguments)
