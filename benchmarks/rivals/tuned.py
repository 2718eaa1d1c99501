"""Conditional autoregressive models on disk, and texts from them: sampled, or by beam search (FT-search)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.resolve import resolve
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer

from .network import Writer, widened_scorer
from .prefixes import ControlTokens, encode

MAX_WORDS = 62


class Tuned(NamedTuple):
    """A model of texts conditioned on one kind of control."""

    model: GPT2
    vocabulary: Tokenizer
    token_ids: dict[str, int]


def save_tuned(model: GPT2, control: str, tokens: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{control}.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    save_file(_packed(model.state_dict()), folder / f"{control}.safetensors")


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with a scale for each row: half the size of float16, without visible loss."""
    packed = {}
    for name, tensor in state.items():
        tensor = tensor.float().cpu().contiguous()
        if tensor.dim() < 2:
            packed[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        packed[name], packed[f"{name}.scale"] = (tensor / scale).round().to(torch.int8), scale
    return packed


def _unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith(".scale")}
    return {name: tensor.float() * state.get(f"{name}.scale", 1.0) for name, tensor in tensors.items()}


def load_tuned(folder: Path, control: str) -> Tuned:
    scorer, vocabulary = load_scorer(resolve("e2e") / "scorer")
    tokens = json.loads((folder / f"{control}.json").read_text("utf-8"))
    model = widened_scorer(scorer, len(tokens))
    model.load_state_dict(_unpacked(load_file(folder / f"{control}.safetensors")))
    return Tuned(model.eval(), vocabulary, {token: len(vocabulary) + at for at, token in enumerate(tokens)})


@torch.no_grad()
def sample(tuned: Tuned, controls: Sequence[ControlTokens[str]], seed: int) -> list[list[str]]:
    """One text for each control, at temperature 1."""
    vocabulary = tuned.vocabulary
    encoded = [encode(control, tuned.token_ids) for control in controls]
    writer = Writer(tuned.model, encoded, vocabulary.start_id, len(vocabulary))
    generator = torch.Generator(writer.logits.device).manual_seed(seed)
    columns: list[Tensor] = []
    done = torch.zeros(len(controls), dtype=torch.bool, device=writer.logits.device)
    for _ in range(MAX_WORDS):
        ids = torch.multinomial(allowed(writer.logits, vocabulary).softmax(-1), 1, generator=generator)[:, 0]
        ids = torch.where(done, vocabulary.end_id, ids)
        columns.append(ids)
        done |= ids == vocabulary.end_id
        if bool(done.all()):
            break
        writer.write(ids)
    return [_decoded(row, vocabulary) for row in torch.stack(columns, 1).tolist()]


@torch.no_grad()
def beam_search(tuned: Tuned, control: ControlTokens[str], beams: int = 4) -> list[str]:
    """The best text for a control by beam search on mean log p per token (FT-search of Li et al. 2022)."""
    vocabulary = tuned.vocabulary
    writer = Writer(tuned.model, [encode(control, tuned.token_ids)] * beams, vocabulary.start_id, len(vocabulary))
    device = writer.logits.device
    scores = torch.full((beams,), -torch.inf, device=device)
    scores[0] = 0.0
    written = torch.zeros(beams, 0, dtype=torch.long, device=device)
    best: tuple[float, list[int]] = (-float("inf"), [])
    for _ in range(MAX_WORDS):
        total = scores[:, None] + allowed(writer.logits, vocabulary).log_softmax(-1)
        length = written.shape[1] + 1
        for beam, value in enumerate(total[:, vocabulary.end_id].tolist()):
            best = max(best, (value / length, written[beam].tolist()))
        total[:, vocabulary.end_id] = -torch.inf
        scores, flat = total.flatten().topk(beams)
        if float(scores[0]) / length <= best[0]:  # the usual heuristic: unfinished texts are not expected to improve
            break
        rows, ids = flat // total.shape[1], flat % total.shape[1]
        written = torch.cat([written.index_select(0, rows), ids[:, None]], 1)
        writer.reorder(rows)
        writer.write(ids)
    return vocabulary.words([vocabulary.start_id, *best[1], vocabulary.end_id])


def allowed(logits: Tensor, vocabulary: Tokenizer) -> Tensor:
    """Logits with the tokens masked that occur in no text."""
    logits = logits.float().clone()
    logits[:, [vocabulary.start_id, vocabulary.pad_id, vocabulary.unk_id]] = -torch.inf
    return logits


def _decoded(ids: list[int], vocabulary: Tokenizer) -> list[str]:
    end = ids.index(vocabulary.end_id) if vocabulary.end_id in ids else len(ids)
    return vocabulary.words([vocabulary.start_id, *ids[:end], vocabulary.end_id])
