"""The GPT-2 architecture (Radford et al. 2019) for scoring texts: from ids to logits, nothing else.

``transformers`` has it too, and training uses that (``dlmctl.training.scorer``); but importing it takes twice as long
as torch itself, at every generation with a scorer. The weights have the same names, so both can read a folder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """Causal self-attention."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.heads = sizes.n_head
        self.c_attn = Projection(sizes.n_embd, 3 * sizes.n_embd)
        self.c_proj = Projection(sizes.n_embd, sizes.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
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

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
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

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Scores:
        """The logits of the token after each of ``input_ids [B, L]``. ``use_cache`` is ignored; there is no cache."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.transformer["wte"](input_ids) + self.transformer["wpe"](positions)
        for block in self.transformer["h"].children():
            x = block(x)
        embedding = self.transformer["wte"]
        assert isinstance(embedding, nn.Embedding)
        return Scores(F.linear(self.transformer["ln_f"](x), embedding.weight))
