"""The bundled scorer's network with a key-value cache, and with room for a control before the text.

A conditional model reads [control; START; words; END]. To the embeddings of START and of each word it adds those of the
control tokens aligned with the next word. Words keep their positions in the scorer, from whose weights the model
starts; the control has its own tokens and positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.gpt2 import GPT2, GPT2Sizes

from .prefixes import MAX_ALIGNED, MAX_POSITIONS, MAX_PREFIX, ControlTokens

DROPOUT = 0.1

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values ``[B, heads, n, width]`` of each block."""


class Inputs(NamedTuple):
    """Left-padded tokens, their positions and their attention mask, all ``[B, L]``, and the control tokens aligned with
    each, ``[B, L, MAX_ALIGNED]``, -1 for none."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    aligned: Tensor


def widened_scorer(scorer: GPT2, tokens: int) -> GPT2:
    """A copy with ``tokens`` more words and ``MAX_PREFIX`` more positions, with small random embeddings."""
    sizes = scorer.config._replace(
        vocab_size=scorer.config.vocab_size + tokens, n_positions=scorer.config.n_positions + MAX_PREFIX
    )
    wide = GPT2(GPT2Sizes(*sizes))
    state = scorer.state_dict()
    for name, rows in (("wte", tokens), ("wpe", MAX_PREFIX)):
        key = f"transformer.{name}.weight"
        state[key] = torch.cat([state[key], 0.02 * torch.randn(rows, state[key].shape[1])])
    wide.load_state_dict(state)
    return wide


def hidden_states(model: GPT2, inputs: Inputs, cache: Cache | None = None, cached_mask: Tensor | None = None) -> Tensor:
    """States ``[B, L, D]`` of the inputs.

    Args:
        cache: of earlier inputs, extended in place; None for no cache.
        cached_mask: attention mask of the cached positions ``[B, n]``, for a cache that is not empty.
    """
    parts = model.transformer
    aligned = parts["wte"](inputs.aligned.clamp(min=0)) * (inputs.aligned >= 0)[..., None]
    x = parts["wte"](inputs.ids) + parts["wpe"](inputs.positions) + aligned.sum(-2)
    length = inputs.ids.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=x.device).tril() & inputs.mask[:, None, :]
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=x.device)  # padding attends to itself
    if cached_mask is not None:
        allowed = torch.cat([cached_mask[:, None, :].expand(-1, length, -1), allowed], -1)
    for number, block in enumerate(parts["h"].children()):
        x = x + _dropout(model, _attention(block.attn, block.ln_1(x), allowed[:, None], cache, number))
        x = x + _dropout(model, block.mlp(block.ln_2(x)))
    states: Tensor = parts["ln_f"](x)
    return states


def logits_of(model: GPT2, states: Tensor, vocab_size: int) -> Tensor:
    """Logits of the next word ``[..., vocab_size]``; control tokens are never generated."""
    return F.linear(states, model.transformer["wte"].weight[:vocab_size])


def _attention(layer: nn.Module, x: Tensor, allowed: Tensor, cache: Cache | None, number: int) -> Tensor:
    q, k, v = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in layer.c_attn(x).chunk(3, -1))
    if cache is not None:
        if number < len(cache):
            k, v = torch.cat([cache[number][0], k], 2), torch.cat([cache[number][1], v], 2)
            cache[number] = (k, v)
        else:
            cache.append((k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    out: Tensor = layer.c_proj(attended.transpose(1, 2).flatten(2))
    return out


def _dropout(model: GPT2, x: Tensor) -> Tensor:
    return F.dropout(x, DROPOUT, model.training)


class Writer:
    """A batch of texts written word by word, each under its control; ``logits [B, V]`` are of the next words."""

    def __init__(self, model: GPT2, controls: Sequence[ControlTokens[int]], start: int, vocab_size: int) -> None:
        self.model, self.vocab_size = model, vocab_size
        device = next(model.parameters()).device
        self.aligned = torch.stack([aligned_ids(control) for control in controls]).to(device)
        width = max(len(control.prefix) for control in controls) + 1
        offset = model.config.n_positions - MAX_PREFIX
        ids, positions, mask = (torch.zeros(len(controls), width, dtype=torch.long) for _ in range(3))
        for row, control in enumerate(controls):
            count = len(control.prefix) + 1
            ids[row, width - count :] = torch.tensor([*control.prefix, start])
            positions[row, width - count :] = torch.tensor([*(offset + at for at in range(len(control.prefix))), 0])
            mask[row, width - count :] = 1
        self.cache: Cache = []
        self.mask = mask.bool().to(device)
        self.position = 0
        aligned = F.pad(self.aligned[:, :1], (0, 0, width - 1, 0), value=-1)
        inputs = Inputs(ids.to(device), positions.to(device), self.mask, aligned)
        states = hidden_states(model, inputs, self.cache)
        self.logits = logits_of(model, states[:, -1], vocab_size)

    def write(self, ids: Tensor) -> None:
        """Append the words ``ids [B]`` and update ``logits``."""
        self.position += 1
        ones, aligned = torch.ones_like(ids)[:, None], self.aligned[:, self.position : self.position + 1]
        inputs = Inputs(ids[:, None], self.position * ones, ones.bool(), aligned)
        states = hidden_states(self.model, inputs, self.cache, self.mask)
        self.mask = torch.cat([self.mask, ones.bool()], 1)
        self.logits = logits_of(self.model, states[:, -1], self.vocab_size)

    def reorder(self, rows: Tensor) -> None:
        """Continue with the texts ``rows`` in place of the current ones."""
        self.cache = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cache]
        self.aligned = self.aligned.index_select(0, rows)
        self.mask, self.logits = self.mask.index_select(0, rows), self.logits.index_select(0, rows)


def aligned_ids(control: ControlTokens[int]) -> Tensor:
    """The tokens aligned with START and each word ``[MAX_POSITIONS, MAX_ALIGNED]``, -1 for none."""
    rows = [*control.aligned[:MAX_POSITIONS], *[[]] * (MAX_POSITIONS - len(control.aligned))]
    return torch.tensor([[*row, *[-1] * (MAX_ALIGNED - len(row))] for row in rows])
