"""Train the rivals of comparison.py on annotated E2E text: a conditional autoregressive model for each control, and
what foretells a text for FUDGE.

Usage: python benchmarks/finetune.py annotate train.txt FOLDER/train.jsonl.gz   (and valid.txt; some minutes)
       python benchmarks/finetune.py train FOLDER --out RIVALS --seconds 150 [--only pos] [--device cuda]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rivals.annotated import Text, annotate, read_annotated
from rivals.future import Future, Rows, loss, names_of, save_future
from rivals.network import Read, besides, hidden, logits_of, widened_scorer
from rivals.prefixes import BESIDE, CONTROLS, ROOM, Told, choices, numbered, tokens_of
from rivals.tuned import save_tuned
from torch import Tensor, nn

from dlmctl.checkpoint.resolve import resolve
from dlmctl.metrics.lm_score import load_scorer
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer

WARMUP = 50
# Tokens in a batch, and the rates of tokens that the scorer did not have and of the scorer. Told of a field alone, at a
# higher rate it learns its training text by heart before it heeds it.
POSITIONS = {"semantic": 3_000, "spans": 1_500, "length": 1_500, "pos": 12_000, "syntax_tree": 12_000}
RATES = {"semantic": (1e-3, 1e-4), "spans": (1e-2, 4e-4), "length": (1e-2, 4e-4)}
# Of all of it, where much is told; of a network from nothing.
TUNING_RATE, RATE = 4e-4, 1e-3
# Tokens of the validation part that are looked at, and how often.
CHECKED, CHECKS = 36_000, 12


Row = tuple[Told[int], list[int]]
"""What is told, and a text as ids."""


class Coded:
    """Texts as ids, each with a control drawn anew at every epoch."""

    def __init__(self, texts: list[Text], vocabulary: Tokenizer, control: str, tokens: list[str]) -> None:
        self.words = [vocabulary.encode(text.words) for text in texts]
        self.number = {token: len(vocabulary) + at for at, token in enumerate(tokens)}
        # Of each text what it may be asked for.
        self.choices = [choices(control, text) for text in texts]
        self.offset = 0

    def batches(self, positions: int, seed: int) -> Iterator[tuple[Read, Tensor]]:
        """What is read, and the next token of each place, -1 where it is none of the text's."""
        chance = random.Random(seed)
        pairs = zip(self.choices, self.words, strict=True)
        rows = [(numbered(chance.choice(some)(), self.number), words) for some, words in pairs]
        order = sorted(range(len(rows)), key=lambda at: (_length(rows[at]), chance.random()))
        groups, start = [], 0
        while start < len(order):
            longest = _length(rows[order[min(len(order), start + 256) - 1]])
            groups.append(order[start : start + max(1, positions // longest)])
            start += len(groups[-1])
        chance.shuffle(groups)
        for group in groups:
            yield self._stacked([rows[at] for at in group])

    def _stacked(self, rows: list[Row]) -> tuple[Read, Tensor]:
        most = max(map(_length, rows)) - 1
        ids, places = np.zeros((2, len(rows), most), np.int64)
        wanted, real = np.full((len(rows), most), -1), np.zeros((len(rows), most), bool)
        beside = torch.full((len(rows), most, BESIDE), -1)
        for row, (told, words) in enumerate(rows):
            start, front = most - len(words) + 1, len(told.front)
            ids[row, start - front : start], ids[row, start:] = told.front, words[:-1]
            places[row, start - front : start] = self.offset + np.arange(front)
            places[row, start:] = np.arange(len(words) - 1)
            beside[row, start:] = besides(told)[: len(words) - 1]
            wanted[row, start:], real[row, start - front :] = words[1:], True
        return Read(*(torch.from_numpy(part) for part in (ids, places, real)), beside), torch.from_numpy(wanted)


def _length(row: Row) -> int:
    return len(row[0].front) + len(row[1])


def nats(model: GPT2, batch: tuple[Read, Tensor], words: int) -> tuple[Tensor, int]:
    """Summed -log p of the words and END, and how many they are."""
    device = next(model.parameters()).device
    read, wanted = Read(*(part.to(device, non_blocking=True) for part in batch[0])), batch[1].to(device)
    logits = logits_of(model, hidden(model, read), words)
    found = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="sum")
    return found, int((batch[1] >= 0).sum())


def fit(
    model: nn.Module,
    step: Callable[[int], Iterator[Tensor]],
    check: Callable[[], float],
    seconds: float,
    groups: list[dict[str, Any]],
) -> float:
    """AdamW with a linear decay over a time limit; the weights of the best check stay. Returns its nats.

    Args:
        groups: parameters with their rate ``lr``.
        seconds: on a CPU those that it works for this, whatever else runs there.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    clock = time.thread_time if next(model.parameters()).device.type == "cpu" else time.time
    started, epoch, count, looks = clock(), 0, 0, 0
    best, kept = float("inf"), {}
    while True:
        for value in step(epoch):
            spent = (clock() - started) / seconds
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min((count + 1) / WARMUP, max(0.02, 1 - spent))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            count += 1
            if spent > (looks + 1) / CHECKS:
                looks += 1
                found = check()
                print(f"  {clock() - started:.0f} s, epoch {epoch}, step {count}: {found:.4f}", flush=True)
                if found < best:
                    best, kept = found, {name: value.clone() for name, value in model.state_dict().items()}
            if spent >= 1:
                model.load_state_dict(kept)
                return best
        epoch += 1


def train_tuned(control: str, texts: list[list[Text]], seconds: float, device: str, out: Path) -> None:
    scorer, vocabulary = load_scorer(resolve("e2e") / "scorer")
    words, tokens = len(vocabulary), tokens_of(control, texts[0])
    torch.manual_seed(0)
    model = widened_scorer(scorer, len(tokens)).to(device)
    train, valid = (Coded(part, vocabulary, control, tokens) for part in texts)
    train.offset = valid.offset = model.config.n_positions - ROOM
    positions = POSITIONS[control]
    held = list(valid.batches(positions, 0))[: 40 if control not in RATES else CHECKED // positions]
    half = torch.autocast(device.partition(":")[0], torch.bfloat16)

    def step(epoch: int) -> Iterator[Tensor]:
        for batch in train.batches(positions, epoch):
            model.train()
            with half:
                total, count = nats(model, batch, words)
            yield total / count

    @torch.no_grad()
    def check() -> float:
        model.eval()
        with half:
            found = [nats(model, batch, words) for batch in held]
        return sum(float(total) for total, _ in found) / sum(count for _, count in found)

    print(f"{control}: {check():.4f} nats a token before", flush=True)
    groups = [{"params": model.parameters(), "lr": TUNING_RATE}]
    if control in RATES:
        groups = newcomers(model, words, model.config.n_positions - ROOM, *RATES[control])
    best = fit(model, step, check, seconds, groups)
    print(f"{control}: {best:.4f} nats a token of the validation part, given the control", flush=True)
    save_tuned(model, control, tokens, out)


def newcomers(model: GPT2, words: int, places: int, fast: float, slow: float) -> list[dict[str, Any]]:
    """Groups for ``fit``: tokens and places of controls learn fast, those of texts stay, all else is tuned."""
    for name, old in (("wte", words), ("wpe", places)):
        weight = model.transformer[name].weight
        weight.register_hook(partial(torch.mul, (torch.arange(len(weight), device=weight.device) >= old)[:, None]))
    new = [model.transformer[name].weight for name in ("wte", "wpe")]
    rest = [weight for weight in model.parameters() if all(weight is not one for one in new)]
    return [{"params": new, "lr": fast, "weight_decay": 0.0}, {"params": rest, "lr": slow}]


def train_future(texts: list[list[Text]], seconds: float, device: str, out: Path) -> None:
    _, vocabulary = load_scorer(resolve("e2e") / "scorer")
    names = names_of(texts[0], len(vocabulary))
    torch.manual_seed(0)
    model = Future(names).to(device)
    train, valid = (Rows.of(part, [vocabulary.encode(t.words)[1:-1] for t in part], names) for part in texts)
    chance = random.Random(0)

    def step(_: int) -> Iterator[Tensor]:
        for chosen in torch.randperm(len(train.ids)).split(256):
            model.train()
            yield loss(model, train, chosen, chance)

    @torch.no_grad()
    def check() -> float:
        model.eval()
        parts = torch.arange(len(valid.ids))[:2048].split(512)
        return sum(float(loss(model, valid, part, random.Random(1))) for part in parts) / len(parts)

    groups = [{"params": model.parameters(), "lr": RATE}]
    print(f"future: {fit(model, step, check, seconds, groups):.4f} nats a prefix, all heads", flush=True)
    save_future(model, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("annotate")
    one.add_argument("source", type=Path)
    one.add_argument("out", type=Path)
    two = commands.add_parser("train")
    two.add_argument("folder", type=Path)
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--seconds", type=float, default=150.0, help="of each model")
    two.add_argument("--only", action="append", choices=[*CONTROLS, "future"])
    two.add_argument("--limit", type=int, help="train on the first so many texts")
    two.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.command == "annotate":
        annotate(given.source, given.out)
        return
    texts = [read_annotated(given.folder / f"{part}.jsonl.gz")[: given.limit] for part in ("train", "valid")]
    for control in CONTROLS:
        if control in (given.only or CONTROLS):
            train_tuned(control, texts, given.seconds, given.device, given.out)
    if "future" in (given.only or ["future"]):
        train_future(texts, given.seconds, given.device, given.out)


if __name__ == "__main__":
    main()
