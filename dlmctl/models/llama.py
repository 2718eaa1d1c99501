"""Llama blocks with full attention: the denoiser of masked diffusion (Touvron et al. 2023; Nie et al. 2025).

RMSNorm before each sublayer, rotary positions, SwiGLU, no biases, the output layer tied to the word embeddings, and no
time input: the number of masked words implies the time. Weights are saved under the names of ``LlamaForCausalLM``, so
either side reads the other's files; in memory, the query, key and value matrices are fused, and so are gate and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dlmctl.models.attention import attention
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.packing import Packing

# Standard deviation of the initial weights (Radford et al. 2019).
INIT_STD = 0.02


class LlamaConfig(BaseModel):
    """Sizes of a stack of Llama blocks."""

    model_config = ConfigDict(extra="forbid")

    hidden: int = Field(default=384, gt=0, le=16384, description="width of the residual stream")
    layers: int = Field(default=10, gt=0, le=256, description="number of blocks")
    heads: int = Field(
        default=6, gt=0, le=256, description="attention heads; must divide hidden, each of an even width"
    )
    inner: int = Field(default=1024, gt=0, le=131072, description="inner width of the SwiGLU")
    max_length: int = Field(default=64, gt=0, le=65536, description="most positions of a sequence")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout probability, in training only")
    rope_base: float = Field(default=1e4, gt=1, description="base of the rotary frequencies")
    norm_eps: float = Field(default=1e-5, gt=0, lt=1, description="epsilon of RMSNorm")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden}) into even widths")
        return self

    def summary(self) -> str:
        """The sizes in words."""
        return f"{self.layers} Llama blocks of width {self.hidden}, {self.heads} heads"


class FusedLinear(nn.Linear):
    """Several linear layers over one input as one matrix ``[sum of parts, width]``.

    Args:
        parts: the output width of each layer; optimisers that treat weights as matrices need it.
    """

    def __init__(self, width: int, parts: tuple[int, ...]) -> None:
        super().__init__(width, sum(parts), bias=False)
        self.parts = parts


@dataclass(eq=False)
class _SplitOnSave:
    """Hook that splits a fused matrix when it is saved. A class, because local functions cannot be pickled."""

    name: str
    parts: dict[str, int]

    def __call__(self, _: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
        pieces = torch.split(state.pop(f"{prefix}{self.name}.weight"), list(self.parts.values()))
        state.update({f"{prefix}{part}.weight": piece for part, piece in zip(self.parts, pieces, strict=True)})


@dataclass(eq=False)
class _FuseOnLoad:
    """Hook that fuses a matrix when its parts are loaded."""

    name: str
    parts: dict[str, int]

    def __call__(self, _: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
        names = [f"{prefix}{part}.weight" for part in self.parts]
        if all(part in state for part in names):
            state[f"{prefix}{self.name}.weight"] = torch.cat([state.pop(part) for part in names])


def fused(holder: nn.Module, name: str, width: int, parts: dict[str, int]) -> FusedLinear:
    """Fuse several linear layers over one input into layer ``name`` of ``holder``; they are saved under separate names.

    Args:
        width: width of the input.
        parts: the output width of each layer, by the name that its weight is saved under.
    """

    holder.register_state_dict_post_hook(_SplitOnSave(name, parts))
    holder.register_load_state_dict_pre_hook(_FuseOnLoad(name, parts))
    return FusedLinear(width, tuple(parts.values()))


class SelfAttention(nn.Module):
    """Attention of every position to every other, with rotary positions (Su et al. 2021)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = fused(self, "qkv", config.hidden, dict.fromkeys(("q_proj", "k_proj", "v_proj"), config.hidden))
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """``x [B, L, H]``; ``rotation``: cosines and sines as for ``rotated``; ``mask [B, 1, 1, L]``."""
        batch, length, hidden = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        qk, (v,) = qkv.split((2, 1))  # one copy in the backward pass, where slices would take three
        q, k = rotated(qk, *rotation)
        attended = attention(q, k, v, mask)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, hidden))


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """``x [..., L, d]`` rotated by position: components i and i + d / 2 form a pair (Su et al. 2021, eq. 34).

    Args:
        cosines: ``[L, d]``, of each component.
        sines: ``[L, d]``, negated for the first half of the components.
    """
    first, second = x.chunk(2, -1)
    # All components at once: halves are too narrow for a CPU's loops.
    return torch.addcmul(x * cosines.to(x.dtype), torch.cat([second, first], -1), sines.to(x.dtype))


def turns(width: int, length: int, base: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[length, width]`` of the rotary positions, as ``rotated`` takes them.

    Args:
        width: width of a head.
        base: base of the frequencies.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * base ** (-exponents / width)
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_up = fused(self, "gate_up", config.hidden, dict.fromkeys(("gate_proj", "up_proj"), config.inner))
        self.down_proj = nn.Linear(config.inner, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class LlamaBlock(nn.Module):
    """Attention and SwiGLU, each after an RMSNorm and with a residual connection."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, h: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Arguments as for ``SelfAttention``."""
        h = h + F.dropout(self.self_attn(self.input_layernorm(h), rotation, mask), self.dropout, self.training)
        return h + F.dropout(self.mlp(self.post_attention_layernorm(h)), self.dropout, self.training)


class LlamaTrunk(nn.Module):
    """Word embeddings, blocks and the final norm: the ``model`` of a ``LlamaForCausalLM``."""

    def __init__(self, config: LlamaConfig, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, config.hidden)
        self.layers = nn.ModuleList(LlamaBlock(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.config = config
        self.cosines: Tensor
        self.sines: Tensor
        for name in ("cosines", "sines"):
            self.register_buffer(name, None, persistent=False)
        self.rebuild_buffers()

    def rebuild_buffers(self) -> None:
        """Compute the tensors that are not weights."""
        device = self.embed_tokens.weight.device
        self.cosines, self.sines = (table.to(device) for table in rotations(self.config))

    def forward(self, h: Tensor, mask: Tensor | None, hints: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, L, H]`` for the embedded input ``h [B, L, H]`` and ``mask [B, 1, 1, L]``.

        ``hints`` as for ``LlamaDenoiser``.
        """
        length = h.shape[1]
        rotation = self.cosines[:length], self.sines[:length]
        packing = Packing.of(self, h) if mask is None and hints is None else None
        if packing is not None:
            h, mask = packing.pack(h), packing.mask(h)
            rotation = rotation[0].repeat(packing.together, 1), rotation[1].repeat(packing.together, 1)
        for index, block in enumerate(self.layers):
            h = block(h if hints is None else h + hints[index].to(h.dtype), rotation, mask)
        return self.norm(h if packing is None else packing.unpack(h))


def rotations(config: LlamaConfig) -> tuple[Tensor, Tensor]:
    """The ``turns`` of all positions ``[max_length, hidden / heads]``."""
    # On the CPU even if the model is built on the meta device, where arange imports sympy, which takes half a second.
    return turns(config.hidden // config.heads, config.max_length, config.rope_base, "cpu")


class LlamaDenoiser(nn.Module):
    """Predicts the words of a text from its unmasked words.

    Args:
        config: sizes.
        vocabulary: rows of the embedding table, MASK included.
        tags: number of labels that a position can have, such as parts of speech; 0 for a model that takes none.
            Label 0 means "not given", and its embedding stays zero.
    """

    def __init__(self, config: LlamaConfig, vocabulary: int, tags: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaTrunk(config, vocabulary)
        self.tag_embed = nn.Embedding(tags + 1, config.hidden, padding_idx=0) if tags else None
        self._init_weights()

    def _init_weights(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=INIT_STD / (math.sqrt(2 * self.config.layers) if is_residual else 1.0))
        if self.tag_embed is not None:
            nn.init.zeros_(self.tag_embed.weight[0])

    def forward(
        self,
        ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        aligned: Tensor | None = None,
        hints: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ``[B, L, H]`` of every position.

        Args:
            ids: word ids ``[B, L]``.
            inputs_embeds: ``[B, L, H]`` in place of ``ids``, such as expected embeddings.
            attention_mask: bool ``[B, L]``, true for the positions that are attended to; all if not given.
            aligned: the label of each position ``[B, L]``, 0 where none is given.
            hints: added to the input of each block, ``[layers, B, L, H]``; see ``models.hints``.

        Raises:
            ValueError: neither or both of ids and embeddings are given, the sequence is longer than ``max_length``, or
                labels are given to a model that takes none.
        """
        if (ids is None) == (inputs_embeds is None):
            raise ValueError("give either ids or inputs_embeds")
        h = self.model.embed_tokens(ids) if inputs_embeds is None else inputs_embeds
        if h.shape[1] > self.config.max_length:
            raise ValueError(f"{h.shape[1]} positions, but the denoiser has max_length {self.config.max_length}")
        if aligned is not None:
            if self.tag_embed is None:
                raise ValueError("this model takes no labels of positions")
            h = h + self.tag_embed(aligned)
        return self.model(h, None if attention_mask is None else attention_mask[:, None, None], hints)

    def logits(self, hidden: Tensor, positions: Tensor | None = None) -> Tensor:
        """``scores`` in at least float32."""
        return at_least_float32(self.scores(hidden, positions))

    def scores(self, hidden: Tensor, positions: Tensor | None = None) -> Tensor:
        """Word scores ``[B, L, vocabulary]`` of hidden states ``[B, L, H]``.

        With a large vocabulary the output layer is a large part of the cost, so score only the positions needed.

        Args:
            positions: indices of the positions to score, of any shape, into the flattened batch (row x L + place). The
                result is then ``[*positions.shape, vocabulary]``.
        """
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions]
        return F.linear(hidden, self.model.embed_tokens.weight)
