"""The GPT-2 architecture (Radford et al. 2019): from ids to logits, nothing else.

It scores texts, and with attention to all positions it is the network of DiffuGPT (Gong et al. 2025).

``transformers`` has it too, and training uses that (``dlmctl.training.scorer``); but importing it takes twice as long
as torch itself, at every generation with a scorer. The weights have the same names, so both can read a folder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.attention import attention
from dlmctl.models.block_attention import positions_of

# Epsilon of the norms, as in every published GPT-2.
EPSILON = 1e-5


class GPT2Sizes(NamedTuple):
    """Sizes, named as in ``config.json``."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None


class Scores(NamedTuple):
    """Logits of the next token ``[B, L, V]``."""

    logits: Tensor


class Projection(nn.Module):
    """x W + b, with the weight stored as ``[in, out]``, as in OpenAI's code."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, out))
        self.bias = nn.Parameter(torch.empty(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention(nn.Module):
    """Self-attention: causal, or to the positions of a mask."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.heads = sizes.n_head
        self.c_attn = Projection(sizes.n_embd, 3 * sizes.n_embd)
        self.c_proj = Projection(sizes.n_embd, sizes.n_embd)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """``x [B, L, H]``; ``mask`` broadcasts to ``[B, heads, L, L]``, None if ``causal`` or for all positions."""
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1)
        )
        if causal:
            attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            attended = attention(queries, keys, values, mask)
        out: Tensor = self.c_proj(attended.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        inner = sizes.n_inner or 4 * sizes.n_embd
        self.c_fc = Projection(sizes.n_embd, inner)
        self.c_proj = Projection(inner, sizes.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.n_embd, EPSILON)
        self.attn = Attention(sizes)
        self.ln_2 = nn.LayerNorm(sizes.n_embd, EPSILON)
        self.mlp = MLP(sizes)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Arguments as for ``Attention``."""
        x = x + self.attn(self.ln_1(x), mask, causal)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT2(nn.Module):
    """A GPT-2 with its output layer tied to the word embeddings."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.config = sizes
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(sizes.vocab_size, sizes.n_embd),
                "wpe": nn.Embedding(sizes.n_positions, sizes.n_embd),
                "h": nn.ModuleList(Block(sizes) for _ in range(sizes.n_layer)),
                "ln_f": nn.LayerNorm(sizes.n_embd, EPSILON),
            }
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def table(self) -> Tensor:
        """The embeddings ``[rows, H]``, of the input and of the output."""
        embedding = self.transformer["wte"]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Scores:
        """The logits of the token after each of ``input_ids [B, L]``. ``use_cache`` is ignored; there is no cache."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return Scores(self.head(self._states(input_ids, positions, None, causal=True)))

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        return F.linear(hidden, self.table)

    def _states(self, ids: Tensor, positions: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Hidden states ``[B, L, H]`` of ``ids [B, L]``; ``positions`` broadcast to them."""
        x = self.transformer["wte"](ids) + self.transformer["wpe"](positions)
        for block in self.transformer["h"].children():
            x = block(x, mask, causal)
        out: Tensor = self.transformer["ln_f"](x)
        return out


class BidirectionalGPT2(GPT2):
    """A GPT-2 that attends to all positions."""

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                as by ``positions_of``.
        """
        if mask is None:
            return self._states(ids, torch.arange(ids.shape[1], device=ids.device), None, causal=False)
        return self._states(ids, positions_of(mask), mask[:, None, None], causal=False)
