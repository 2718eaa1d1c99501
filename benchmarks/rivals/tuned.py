"""Conditional autoregressive models on disk, and texts from them: sampled, or by beam search (FT-search)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlmctl.checkpoint.resolve import resolve
from dlmctl.metrics.lm_score import load_scorer
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer

from .network import Writer, widened_scorer
from .prefixes import Told, numbered

LONGEST = 62


class Tuned(NamedTuple):
    """A model of texts given one kind of control."""

    model: GPT2
    vocabulary: Tokenizer
    number: dict[str, int]


def save_tuned(model: GPT2, control: str, tokens: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{control}.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    save_file(_packed(model.state_dict()), folder / f"{control}.safetensors")


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as bytes with a scale for each row: half of float16, and no loss that shows."""
    found = {}
    for name, tensor in state.items():
        tensor = tensor.float().cpu().contiguous()
        if tensor.dim() < 2:
            found[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        found[name], found[f"{name}.scale"] = (tensor / scale).round().to(torch.int8), scale
    return found


def _unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    whole = {name: tensor for name, tensor in state.items() if not name.endswith(".scale")}
    return {name: tensor.float() * state.get(f"{name}.scale", 1.0) for name, tensor in whole.items()}


def load_tuned(folder: Path, control: str) -> Tuned:
    scorer, vocabulary = load_scorer(resolve("e2e") / "scorer")
    tokens = json.loads((folder / f"{control}.json").read_text("utf-8"))
    model = widened_scorer(scorer, len(tokens))
    model.load_state_dict(_unpacked(load_file(folder / f"{control}.safetensors")))
    return Tuned(model.eval(), vocabulary, {token: len(vocabulary) + at for at, token in enumerate(tokens)})


@torch.no_grad()
def sampled(tuned: Tuned, told: Sequence[Told[str]], seed: int) -> list[list[str]]:
    """One text after each control, at temperature 1."""
    words = tuned.vocabulary
    writer = Writer(tuned.model, [numbered(one, tuned.number) for one in told], words.start_id, len(words))
    chance = torch.Generator(writer.logits.device).manual_seed(seed)
    found: list[Tensor] = []
    done = torch.zeros(len(told), dtype=torch.bool, device=writer.logits.device)
    for _ in range(LONGEST):
        ids = torch.multinomial(allowed(writer.logits, words).softmax(-1), 1, generator=chance)[:, 0]
        ids = torch.where(done, words.end_id, ids)
        found.append(ids)
        done |= ids == words.end_id
        if bool(done.all()):
            break
        writer.write(ids)
    return [_text(row, words) for row in torch.stack(found, 1).tolist()]


@torch.no_grad()
def searched(tuned: Tuned, told: Told[str], beams: int = 4) -> list[str]:
    """The likeliest text after a control that a beam finds (FT-search of Li et al. 2022), by mean log p a token."""
    words = tuned.vocabulary
    writer = Writer(tuned.model, [numbered(told, tuned.number)] * beams, words.start_id, len(words))
    device = writer.logits.device
    scores = torch.full((beams,), -torch.inf, device=device)
    scores[0] = 0.0
    written = torch.zeros(beams, 0, dtype=torch.long, device=device)
    best: tuple[float, list[int]] = (-float("inf"), [])
    for _ in range(LONGEST):
        total = scores[:, None] + allowed(writer.logits, words).log_softmax(-1)
        length = written.shape[1] + 1
        for beam, value in enumerate(total[:, words.end_id].tolist()):
            best = max(best, (value / length, written[beam].tolist()))
        total[:, words.end_id] = -torch.inf
        scores, flat = total.flatten().topk(beams)
        if float(scores[0]) / length <= best[0]:  # as usual: those that go on are not expected to become likelier
            break
        rows, ids = flat // total.shape[1], flat % total.shape[1]
        written = torch.cat([written.index_select(0, rows), ids[:, None]], 1)
        writer.take(rows)
        writer.write(ids)
    return words.words([words.start_id, *best[1], words.end_id])


def allowed(logits: Tensor, words: Tokenizer) -> Tensor:
    """Logits without what no text has in it."""
    logits = logits.float().clone()
    logits[:, [words.start_id, words.pad_id, words.unk_id]] = -torch.inf
    return logits


def _text(ids: list[int], words: Tokenizer) -> list[str]:
    end = ids.index(words.end_id) if words.end_id in ids else len(ids)
    return words.words([words.start_id, *ids[:end], words.end_id])
