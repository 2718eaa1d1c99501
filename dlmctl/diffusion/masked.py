"""Masked (absorbing state) diffusion: the model, its forward process, its objective and its bound.

A text is a canvas of word ids ``[B, L]``; noise replaces words by MASK, whose id is the size of the vocabulary. The
network predicts the words behind the masks and sees no time: how many masks there are says it (Ou et al. 2024; Zheng
et al. 2024). MASK itself is never predicted, and a word that stands is never changed (Sahoo et al. 2024, "SUBS").
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self, Unpack

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel, Read, Scores, TextSettings
from dlmctl.models.llama import LlamaConfig, LlamaDenoiser
from dlmctl.models.word_head import WordHead, token_nats
from dlmctl.text.tokenizer import Tokenizer


class MaskedSettings(BaseModel):
    """What one chooses of a masked model."""

    model_config = ConfigDict(extra="forbid")

    family: Literal["masked", "uniform"] = "masked"
    length: int = Field(default=64, gt=2, le=65536, description="longest sequence in positions, START and END included")
    denoiser: LlamaConfig = Field(default_factory=lambda: LlamaConfig(), description="sizes of the network")
    lengths: Literal["data", "model"] = Field(
        default="data",
        description="data: a text's number of words is drawn like those of the training texts, or set by a control; "
        "model: END and the PADs behind it are masked and predicted like words",
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
    """Everything that fixes the shape and meaning of a masked model's weights: the settings, and what the data adds."""

    vocab_size: int = Field(gt=4, le=10_000_000, description="number of words, special tokens included, MASK not")
    sentence_lengths: list[NonNegativeInt] = Field(
        default_factory=list, description="training sentences by length in words; index 0 counts empty ones"
    )
    tags: list[str] = Field(
        default_factory=list, description="names of the labels that a position can be given, from number 1"
    )

    @property
    def mask_id(self) -> int:
        """The id of MASK: the one after the words."""
        return self.vocab_size

    @property
    def embed_dim(self) -> int:
        """Width of the word embeddings."""
        return self.denoiser.hidden


class MaskedLM(MaskedModel):
    """A masked model that was trained here.

    Weights are saved under the names of ``LlamaForCausalLM``; MASK is the last row of its embeddings.
    """

    family: ClassVar[MaskedFamily] = "masked"
    # How many words a text has the network is told.
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
        """torch.compile the blocks, which is where the time goes; as they are alike, that takes the time of one."""
        for block in self.denoiser.model.layers:
            block.compile(*args, **kwargs)

    @property
    def tied_weights(self) -> int:
        """Weights of the embeddings that a position of training text meets in the output layer, on average: half of the
        places are scored, as the number of those that are masked is drawn evenly."""
        return self.embedding_table.numel() // 2

    @property
    def hides_padding(self) -> bool:
        """Whether PAD behind a text is hidden from the network, as it was in training."""
        return self.config.lengths == "data"

    @property
    def embeddings(self) -> Tensor:
        """The embedding of every word ``[V, H]``, MASK left out."""
        return self.embedding_table[: self.config.vocab_size]

    @property
    def embedding_table(self) -> Tensor:
        """The embeddings as they are saved, MASK in the last row."""
        return self.denoiser.model.embed_tokens.weight

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of ids of any shape, MASK among them: ``[..., H]``."""
        return self.denoiser.model.embed_tokens(ids)

    def scores_of(self, canvas: Tensor, **read: Unpack[Read]) -> Scores:
        """As ``MaskedModel.scores_of``.

        Raises:
            ValueError: a context is given, which such a model does not take.
        """
        if read.pop("context", None) is not None:
            raise ValueError("this model takes no context")
        hidden = self.denoiser(canvas, **read)
        return lambda positions: self.denoiser.scores(hidden, positions)[..., : self.config.vocab_size]

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[Read]) -> Tensor:
        """As ``MaskedModel.nats``; the scores of all words stand for a few positions at a time."""
        return self.nats_after(self.denoiser(canvas, **read), positions, targets)

    def nats_after(self, hidden: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """As ``nats``, of the states ``[B, L, H]`` that the network ends with."""
        head = WordHead(self.embedding_table, words=self.config.vocab_size)
        return token_nats(hidden.flatten(0, 1).index_select(0, positions), head, targets)


def _without_denoiser(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
    inner = f"{prefix}denoiser."
    for name in [name for name in state if name.startswith(inner)]:
        state[prefix + name.removeprefix(inner)] = state.pop(name)


def _with_denoiser(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}denoiser.{name.removeprefix(prefix)}"] = state.pop(name)


def word_places(ids: Tensor, tokenizer: Tokenizer, lengths: Literal["data", "model"] = "data") -> Tensor:
    """The places ``[B, L]`` of ``ids`` that can be masked.

    START never, and UNK never: it is context, as no text is to contain it. END and PAD only where the model chooses
    the length.
    """
    fixed = [tokenizer.start_id, tokenizer.unk_id]
    if lengths == "data":
        fixed += [tokenizer.end_id, tokenizer.pad_id]
    places = torch.ones_like(ids, dtype=torch.bool)
    for token in fixed:
        places &= ids != token
    return places


def attended(ids: Tensor, tokenizer: Tokenizer, lengths: Literal["data", "model"] = "data") -> Tensor | None:
    """The places ``[B, L]`` that the network reads: all, unless PAD only fills rows of another length up."""
    return ids != tokenizer.pad_id if lengths == "data" else None


class Noise(NamedTuple):
    """What the forward process draws: ``offset``, a uniform scalar, and ``order [B, L]``, uniform."""

    offset: Tensor
    order: Tensor

    @classmethod
    def drawn(cls, ids: Tensor, generator: torch.Generator | None = None) -> Noise:
        """Noise for ``ids [B, L]``, from a generator on their device; without one the offset, of which follows how many
        words are masked, is drawn on the CPU."""
        where = torch.device("cpu") if generator is None else ids.device
        offset = torch.rand((), generator=generator, device=where, dtype=torch.float64)
        return cls(offset, torch.rand(ids.shape, generator=generator, device=ids.device, dtype=torch.float64))


def length_nats(config: TextSettings, words: Tensor) -> Tensor:
    """-log p of numbers of words of any shape: what the length of a text adds to its bound; infinite if never seen.

    Raises:
        ValueError: the configuration has no ``sentence_lengths``.
    """
    if not sum(config.sentence_lengths):
        raise ValueError("the configuration has no sentence_lengths")
    counts = torch.tensor(config.sentence_lengths, dtype=torch.float64, device=words.device)
    counts = F.pad(counts, (0, max(0, config.length - len(counts))))
    return -(counts / counts.sum()).log()[words]
