"""Train the rivals of comparison.py on annotated E2E text: a conditional autoregressive model for each control, and
the predictor of FUDGE.

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
from rivals.future import EncodedTexts, Future, loss, names_of, save_future
from rivals.network import Inputs, aligned_ids, hidden_states, logits_of, widened_scorer
from rivals.prefixes import (
    CONTROLS,
    MAX_ALIGNED,
    MAX_PREFIX,
    ControlTokens,
    control_vocabulary,
    encode,
    satisfied_controls,
)
from rivals.tuned import save_tuned
from torch import Tensor, nn

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.resolve import resolve
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer

WARMUP = 50
# Tokens in a batch, and the learning rates of new tokens and of the scorer's weights. With a field as the only control
# and a higher rate, the model memorises its training text before it learns to follow the control.
POSITIONS = {"semantic": 3_000, "spans": 1_500, "length": 1_500, "pos": 12_000, "syntax_tree": 12_000}
RATES = {"semantic": (1e-3, 1e-4), "spans": (1e-2, 4e-4), "length": (1e-2, 4e-4)}
# Of all weights, for controls that determine much of the text; and of a network trained from scratch.
TUNING_RATE, RATE = 4e-4, 1e-3
# Validation tokens per check, and the number of checks.
CHECKED, CHECKS = 36_000, 12


Row = tuple[ControlTokens[int], list[int]]
"""A control and a text, as ids."""


class TrainingTexts:
    """Texts as ids, each with a new random control in every epoch."""

    def __init__(self, texts: list[Text], vocabulary: Tokenizer, control: str, tokens: list[str]) -> None:
        self.texts = [vocabulary.encode(text.words) for text in texts]
        self.token_ids = {token: len(vocabulary) + at for at, token in enumerate(tokens)}
        self.controls = [satisfied_controls(control, text) for text in texts]
        self.offset = 0

    def batches(self, positions: int, seed: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs and the next token of each position, -1 where that is not part of the text."""
        rng = random.Random(seed)
        pairs = zip(self.controls, self.texts, strict=True)
        rows = [(encode(rng.choice(controls)(), self.token_ids), ids) for controls, ids in pairs]
        order = sorted(range(len(rows)), key=lambda at: (_length(rows[at]), rng.random()))
        groups, start = [], 0
        while start < len(order):
            longest = _length(rows[order[min(len(order), start + 256) - 1]])
            groups.append(order[start : start + max(1, positions // longest)])
            start += len(groups[-1])
        rng.shuffle(groups)
        for group in groups:
            yield self._stacked([rows[at] for at in group])

    def _stacked(self, rows: list[Row]) -> tuple[Inputs, Tensor]:
        width = max(map(_length, rows)) - 1
        ids, positions = np.zeros((2, len(rows), width), np.int64)
        targets, mask = np.full((len(rows), width), -1), np.zeros((len(rows), width), bool)
        aligned = torch.full((len(rows), width, MAX_ALIGNED), -1)
        for row, (control, text_ids) in enumerate(rows):
            start, prefix = width - len(text_ids) + 1, len(control.prefix)
            ids[row, start - prefix : start], ids[row, start:] = control.prefix, text_ids[:-1]
            positions[row, start - prefix : start] = self.offset + np.arange(prefix)
            positions[row, start:] = np.arange(len(text_ids) - 1)
            aligned[row, start:] = aligned_ids(control)[: len(text_ids) - 1]
            targets[row, start:], mask[row, start - prefix :] = text_ids[1:], True
        return Inputs(*(torch.from_numpy(part) for part in (ids, positions, mask)), aligned), torch.from_numpy(targets)


def _length(row: Row) -> int:
    return len(row[0].prefix) + len(row[1])


def summed_nats(model: GPT2, batch: tuple[Inputs, Tensor], vocab_size: int) -> tuple[Tensor, int]:
    """Summed -log p of the words and END, and their number."""
    device = next(model.parameters()).device
    inputs, targets = Inputs(*(part.to(device, non_blocking=True) for part in batch[0])), batch[1].to(device)
    logits = logits_of(model, hidden_states(model, inputs), vocab_size)
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
    return nats, int((batch[1] >= 0).sum())


def fit(
    model: nn.Module,
    step: Callable[[int], Iterator[Tensor]],
    check: Callable[[], float],
    seconds: float,
    groups: list[dict[str, Any]],
) -> float:
    """AdamW with a linear decay over a time limit; keeps the weights of the best check and returns its nats.

    Args:
        groups: parameters with their rate ``lr``.
        seconds: wall-clock time, or on a CPU the time of this thread.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    clock = time.thread_time if next(model.parameters()).device.type == "cpu" else time.time
    started, epoch, count, checks = clock(), 0, 0, 0
    best, best_state = float("inf"), {}
    while True:
        for batch_loss in step(epoch):
            progress = (clock() - started) / seconds
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min((count + 1) / WARMUP, max(0.02, 1 - progress))
            optimizer.zero_grad(set_to_none=True)
            batch_loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            count += 1
            if progress > (checks + 1) / CHECKS:
                checks += 1
                nats = check()
                print(f"  {clock() - started:.0f} s, epoch {epoch}, step {count}: {nats:.4f}", flush=True)
                if nats < best:
                    best, best_state = nats, {name: value.clone() for name, value in model.state_dict().items()}
            if progress >= 1:
                model.load_state_dict(best_state)
                return best
        epoch += 1


def train_tuned(control: str, texts: list[list[Text]], seconds: float, device: str, out: Path) -> None:
    scorer, vocabulary = load_scorer(resolve("e2e") / "scorer")
    vocab_size, tokens = len(vocabulary), control_vocabulary(control, texts[0])
    torch.manual_seed(0)
    model = widened_scorer(scorer, len(tokens)).to(device)
    train, valid = (TrainingTexts(part, vocabulary, control, tokens) for part in texts)
    train.offset = valid.offset = model.config.n_positions - MAX_PREFIX
    positions = POSITIONS[control]
    held_out = list(valid.batches(positions, 0))[: 40 if control not in RATES else CHECKED // positions]
    autocast = torch.autocast(device.partition(":")[0], torch.bfloat16)

    def step(epoch: int) -> Iterator[Tensor]:
        for batch in train.batches(positions, epoch):
            model.train()
            with autocast:
                total, count = summed_nats(model, batch, vocab_size)
            yield total / count

    @torch.no_grad()
    def check() -> float:
        model.eval()
        with autocast:
            sums = [summed_nats(model, batch, vocab_size) for batch in held_out]
        return sum(float(total) for total, _ in sums) / sum(count for _, count in sums)

    print(f"{control}: {check():.4f} nats per token before", flush=True)
    groups = [{"params": model.parameters(), "lr": TUNING_RATE}]
    if control in RATES:
        groups = parameter_groups(model, vocab_size, model.config.n_positions - MAX_PREFIX, *RATES[control])
    best = fit(model, step, check, seconds, groups)
    print(f"{control}: {best:.4f} nats per token of the validation part, given the control", flush=True)
    save_tuned(model, control, tokens, out)


def parameter_groups(
    model: GPT2, vocab_size: int, positions: int, new_rate: float, old_rate: float
) -> list[dict[str, Any]]:
    """Groups for ``fit``: embeddings of controls learn fast, those of texts are frozen, all else is tuned."""
    for name, old_rows in (("wte", vocab_size), ("wpe", positions)):
        weight = model.transformer[name].weight
        is_new = (torch.arange(len(weight), device=weight.device) >= old_rows)[:, None]
        weight.register_hook(partial(torch.mul, is_new))
    embeddings = [model.transformer[name].weight for name in ("wte", "wpe")]
    others = [weight for weight in model.parameters() if all(weight is not embedding for embedding in embeddings)]
    return [{"params": embeddings, "lr": new_rate, "weight_decay": 0.0}, {"params": others, "lr": old_rate}]


def train_future(texts: list[list[Text]], seconds: float, device: str, out: Path) -> None:
    _, vocabulary = load_scorer(resolve("e2e") / "scorer")
    names = names_of(texts[0], len(vocabulary))
    torch.manual_seed(0)
    model = Future(names).to(device)
    train, valid = (
        EncodedTexts.encode(part, [vocabulary.encode(text.words)[1:-1] for text in part], names) for part in texts
    )
    rng = random.Random(0)

    def step(_: int) -> Iterator[Tensor]:
        for chosen in torch.randperm(len(train.ids)).split(256):
            model.train()
            yield loss(model, train, chosen, rng)

    @torch.no_grad()
    def check() -> float:
        model.eval()
        parts = torch.arange(len(valid.ids))[:2048].split(512)
        return sum(float(loss(model, valid, part, random.Random(1))) for part in parts) / len(parts)

    groups = [{"params": model.parameters(), "lr": RATE}]
    print(f"future: {fit(model, step, check, seconds, groups):.4f} nats per prefix, all heads", flush=True)
    save_future(model, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    annotate_parser = commands.add_parser("annotate")
    annotate_parser.add_argument("source", type=Path)
    annotate_parser.add_argument("out", type=Path)
    train_parser = commands.add_parser("train")
    train_parser.add_argument("folder", type=Path)
    train_parser.add_argument("--out", type=Path, required=True)
    train_parser.add_argument("--seconds", type=float, default=150.0, help="of each model")
    train_parser.add_argument("--only", action="append", choices=[*CONTROLS, "future"])
    train_parser.add_argument("--limit", type=int, help="train on the first so many texts")
    train_parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.command == "annotate":
        annotate(arguments.source, arguments.out)
        return
    texts = [read_annotated(arguments.folder / f"{part}.jsonl.gz")[: arguments.limit] for part in ("train", "valid")]
    for control in CONTROLS:
        if control in (arguments.only or CONTROLS):
            train_tuned(control, texts, arguments.seconds, arguments.device, arguments.out)
    if "future" in (arguments.only or ["future"]):
        train_future(texts, arguments.seconds, arguments.device, arguments.out)


if __name__ == "__main__":
    main()
