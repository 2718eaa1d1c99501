"""The bundled scorer's network with a memory of what it has read, and room for a control in front of the text.

A conditional model reads [control; START; words; END], and beside START and each word what it is told of the word to
come, as a sum of embeddings. The words keep the positions that they have in the scorer, from whose weights it starts;
the control has tokens and positions of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.gpt2 import GPT2, GPT2Sizes

from .prefixes import BESIDE, PLACES, ROOM, Told

DROPOUT = 0.1

Memory = list[tuple[Tensor, Tensor]]
"""Keys and values ``[B, heads, n, width]`` of each block."""


class Read(NamedTuple):
    """Tokens with their positions, and which may be looked at, all ``[B, L]``; padding stands in front. What is told
    beside each, ``[B, L, BESIDE]``, is -1 where there is nothing."""

    ids: Tensor
    places: Tensor
    real: Tensor
    beside: Tensor


def widened_scorer(scorer: GPT2, tokens: int) -> GPT2:
    """A copy with ``tokens`` more words and ``ROOM`` more positions, of small random embeddings."""
    sizes = scorer.config._replace(
        vocab_size=scorer.config.vocab_size + tokens, n_positions=scorer.config.n_positions + ROOM
    )
    wide = GPT2(GPT2Sizes(*sizes))
    state = scorer.state_dict()
    for name, rows in (("wte", tokens), ("wpe", ROOM)):
        key = f"transformer.{name}.weight"
        state[key] = torch.cat([state[key], 0.02 * torch.randn(rows, state[key].shape[1])])
    wide.load_state_dict(state)
    return wide


def hidden(model: GPT2, read: Read, memory: Memory | None = None, seen: Tensor | None = None) -> Tensor:
    """States ``[B, L, D]`` of what is read now.

    Args:
        memory: of what was read before, grown in place; None to keep nothing.
        seen: which of the remembered positions may be looked at ``[B, n]``, with a memory that is not empty.
    """
    parts = model.transformer
    told = parts["wte"](read.beside.clamp(min=0)) * (read.beside >= 0)[..., None]
    x = parts["wte"](read.ids) + parts["wpe"](read.places) + told.sum(-2)
    length = read.ids.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=x.device).tril() & read.real[:, None, :]
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=x.device)  # padding looks at itself
    if seen is not None:
        allowed = torch.cat([seen[:, None, :].expand(-1, length, -1), allowed], -1)
    for number, block in enumerate(parts["h"].children()):
        x = x + _drop(model, _attended(block.attn, block.ln_1(x), allowed[:, None], memory, number))
        x = x + _drop(model, block.mlp(block.ln_2(x)))
    states: Tensor = parts["ln_f"](x)
    return states


def logits_of(model: GPT2, states: Tensor, words: int) -> Tensor:
    """Logits of the next word ``[..., words]``; tokens of controls are never written."""
    return F.linear(states, model.transformer["wte"].weight[:words])


def _attended(layer: nn.Module, x: Tensor, allowed: Tensor, memory: Memory | None, number: int) -> Tensor:
    q, k, v = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in layer.c_attn(x).chunk(3, -1))
    if memory is not None:
        if number < len(memory):
            k, v = torch.cat([memory[number][0], k], 2), torch.cat([memory[number][1], v], 2)
            memory[number] = (k, v)
        else:
            memory.append((k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    out: Tensor = layer.c_proj(attended.transpose(1, 2).flatten(2))
    return out


def _drop(model: GPT2, x: Tensor) -> Tensor:
    return F.dropout(x, DROPOUT, model.training)


class Writer:
    """A batch of texts being written word by word, each as it is told."""

    def __init__(self, model: GPT2, told: Sequence[Told[int]], start: int, words: int) -> None:
        self.model, self.words = model, words
        device = next(model.parameters()).device
        self.beside = torch.stack([besides(one) for one in told]).to(device)
        most = max(len(one.front) for one in told) + 1
        offset = model.config.n_positions - ROOM
        ids, places, real = (torch.zeros(len(told), most, dtype=torch.long) for _ in range(3))
        for row, one in enumerate(told):
            count = len(one.front) + 1
            ids[row, most - count :] = torch.tensor([*one.front, start])
            places[row, most - count :] = torch.tensor([*(offset + at for at in range(len(one.front))), 0])
            real[row, most - count :] = 1
        self.memory: Memory = []
        self.seen = real.bool().to(device)
        self.place = 0
        beside = F.pad(self.beside[:, :1], (0, 0, most - 1, 0), value=-1)
        states = hidden(model, Read(ids.to(device), places.to(device), self.seen, beside), self.memory)
        self.logits = logits_of(model, states[:, -1], words)

    def write(self, ids: Tensor) -> None:
        """Go on with the words ``ids [B]``; ``logits [B, V]`` are those of the words after them."""
        self.place += 1
        one = torch.ones_like(ids)[:, None]
        read = Read(ids[:, None], self.place * one, one.bool(), self.beside[:, self.place : self.place + 1])
        states = hidden(self.model, read, self.memory, self.seen)
        self.seen = torch.cat([self.seen, one.bool()], 1)
        self.logits = logits_of(self.model, states[:, -1], self.words)

    def take(self, rows: Tensor) -> None:
        """Go on from the texts ``rows``, each in place of another."""
        self.memory = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.memory]
        self.beside = self.beside.index_select(0, rows)
        self.seen, self.logits = self.seen.index_select(0, rows), self.logits.index_select(0, rows)


def besides(told: Told[int]) -> Tensor:
    """What is told beside START and each word ``[PLACES, BESIDE]``, -1 where there is nothing."""
    rows = [*told.beside[:PLACES], *[[]] * (PLACES - len(told.beside))]
    return torch.tensor([[*row, *[-1] * (BESIDE - len(row))] for row in rows])
