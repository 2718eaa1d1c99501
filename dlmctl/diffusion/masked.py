"""Masked (absorbing state) diffusion: the model, its forward process, its objective and its bound.

A text is a canvas of word ids ``[B, L]``; noise replaces words by MASK, whose id is the size of the vocabulary. The
network predicts the words behind the masks. It receives no time, which the number of masks implies (Ou et al. 2024;
Zheng et al. 2024). MASK itself is never predicted, and an unmasked word never changes (Sahoo et al. 2024, "SUBS").
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self, Unpack

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel, NetworkInputs, Scores, TextSettings
from dlmctl.models.llama import LlamaConfig, LlamaDenoiser
from dlmctl.models.word_head import WordHead, token_nats
from dlmctl.text.tokenizer import Tokenizer


class MaskedSettings(BaseModel):
    """The user's settings for a masked model."""

    model_config = ConfigDict(extra="forbid")

    family: Literal["masked", "uniform"] = "masked"
    length: int = Field(default=64, gt=2, le=65536, description="longest sequence in positions, START and END included")
    denoiser: LlamaConfig = Field(default_factory=lambda: LlamaConfig(), description="sizes of the network")
    lengths: Literal["data", "model"] = Field(
        default="data",
        description="data: the number of words is drawn from the lengths of the training texts, or set by a control; "
        "model: END and the PADs after it are masked and predicted like words",
    )
    objective: Literal["count", "time"] = Field(
        default="count",
        description="count: k of the n words are masked, k uniform, weight n / k; time: each with probability t, "
        "weight 1 / t",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length > self.denoiser.max_length:
            raise ValueError(f"length is {self.length}, but the denoiser has max_length {self.denoiser.max_length}")
        if self.family == "uniform" and (self.lengths, self.objective) != ("data", "count"):
            raise ValueError("a uniform model has lengths: data, and no objective to choose")
        return self


class MaskedConfig(MaskedSettings):
    """Everything that determines the shape and meaning of a masked model's weights: settings and data statistics."""

    vocab_size: int = Field(gt=4, le=10_000_000, description="number of words, with special tokens but without MASK")
    sentence_lengths: list[NonNegativeInt] = Field(
        default_factory=list, description="training sentences by length in words; index 0 counts empty ones"
    )
    tags: list[str] = Field(
        default_factory=list, description="names of the labels that a position can have, numbered from 1"
    )

    @property
    def mask_id(self) -> int:
        """The id of MASK: the first id after the vocabulary."""
        return self.vocab_size

    @property
    def embed_dim(self) -> int:
        """Width of the word embeddings."""
        return self.denoiser.hidden


class MaskedLM(MaskedModel):
    """A masked model trained with dlmctl.

    Weights are saved under the names of ``LlamaForCausalLM``; MASK is the last row of its embeddings.
    """

    family: ClassVar[MaskedFamily] = "masked"
    counts_words = True
    config: MaskedConfig

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = LlamaDenoiser(config.denoiser, config.vocab_size + 1, len(config.tags))
        self.register_state_dict_post_hook(_without_denoiser)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_denoiser)  # type: ignore[no-untyped-call]

    @property
    def mask_id(self) -> int:
        """The id of MASK."""
        return self.config.mask_id

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks, which take most of the time; they are identical, so only the first one costs."""
        for block in self.denoiser.model.layers:
            block.compile(*args, **kwargs)

    @property
    def tied_weights(self) -> int:
        """The embedding weights that the output layer uses per training position, on average.

        Half of all weights: the number of masked positions is uniform, so half of the positions are scored.
        """
        return self.embedding_table.numel() // 2

    @property
    def hides_padding(self) -> bool:
        """Whether PAD behind a text is hidden from the network, as it was in training."""
        return self.config.lengths == "data"

    @property
    def embeddings(self) -> Tensor:
        """The embeddings ``[V, H]`` of all words, without MASK."""
        return self.embedding_table[: self.config.vocab_size]

    @property
    def embedding_table(self) -> Tensor:
        """The embeddings as saved, MASK in the last row."""
        return self.denoiser.model.embed_tokens.weight

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings ``[..., H]`` of ids of any shape, MASK allowed."""
        return self.denoiser.model.embed_tokens(ids)

    def scores_of(self, canvas: Tensor, **read: Unpack[NetworkInputs]) -> Scores:
        """As ``MaskedModel.scores_of``.

        Raises:
            ValueError: a context is given; these models take none.
        """
        if read.pop("context", None) is not None:
            raise ValueError("this model takes no context")
        hidden = self.denoiser(canvas, **read)
        return lambda positions: self.denoiser.scores(hidden, positions)[..., : self.config.vocab_size]

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """As ``MaskedModel.nats``, with the scores of all words in memory for only a few positions at a time."""
        return self.nats_after(self.denoiser(canvas, **read), positions, targets)

    def nats_after(self, hidden: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """As ``nats``, from the network's last hidden states ``[B, L, H]``."""
        head = WordHead(self.embedding_table, words=self.config.vocab_size)
        return token_nats(hidden.flatten(0, 1).index_select(0, positions), head, targets)


def _without_denoiser(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
    inner = f"{prefix}denoiser."
    for name in [name for name in state if name.startswith(inner)]:
        state[prefix + name.removeprefix(inner)] = state.pop(name)


def _with_denoiser(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}denoiser.{name.removeprefix(prefix)}"] = state.pop(name)


def maskable_places(ids: Tensor, tokenizer: Tokenizer, lengths: Literal["data", "model"] = "data") -> Tensor:
    """The positions of ``ids [B, L]`` that can be masked: bool ``[B, L]``.

    START is never masked, nor is UNK: it only serves as context, since no generated text should contain it. END and
    PAD can be masked only if the model chooses the length.
    """
    fixed = [tokenizer.start_id, tokenizer.unk_id]
    if lengths == "data":
        fixed += [tokenizer.end_id, tokenizer.pad_id]
    places = torch.ones_like(ids, dtype=torch.bool)
    for token in fixed:
        places &= ids != token
    return places


def attended(ids: Tensor, tokenizer: Tokenizer, lengths: Literal["data", "model"] = "data") -> Tensor | None:
    """The attention mask ``[B, L]`` of ``ids``: false on PAD; None, for all positions, if the model predicts PAD."""
    if lengths == "model":
        return None
    is_other = ids != tokenizer.pad_id
    if tokenizer.pad_id not in (tokenizer.start_id, tokenizer.end_id):
        return is_other
    # PAD is START or END, too, as for GPT-2: a text ends after the last of its other tokens, END one place later.
    place = torch.arange(ids.shape[1], device=ids.device)
    return place <= (place * is_other).amax(1, keepdim=True) + (tokenizer.pad_id == tokenizer.end_id)


class Noise(NamedTuple):
    """The random numbers of the forward process: ``offset``, a uniform scalar, and ``order [B, L]``, uniform."""

    offset: Tensor
    order: Tensor

    @classmethod
    def drawn(cls, ids: Tensor, generator: torch.Generator | None = None) -> Noise:
        """Draw the noise for ``ids [B, L]``, from a generator on the device of ``ids``.

        Without a generator, the offset, which determines how many words are masked, is drawn on the CPU.
        """
        offset_device = torch.device("cpu") if generator is None else ids.device
        offset = torch.rand((), generator=generator, device=offset_device, dtype=torch.float64)
        return cls(offset, torch.rand(ids.shape, generator=generator, device=ids.device, dtype=torch.float64))


def length_nats(config: TextSettings, words: Tensor) -> Tensor:
    """-log p(length) for word counts ``words`` of any shape: the length's term of the bound, inf for unseen lengths.

    Raises:
        ValueError: the configuration has no ``sentence_lengths``.
    """
    if not sum(config.sentence_lengths):
        raise ValueError("the configuration has no sentence_lengths")
    counts = torch.tensor(config.sentence_lengths, dtype=torch.float64, device=words.device)
    counts = F.pad(counts, (0, max(0, config.length - len(counts))))
    return -(counts / counts.sum()).log()[words]
