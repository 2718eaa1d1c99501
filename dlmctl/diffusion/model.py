"""The Gaussian diffusion language model: its configuration, embeddings, x_0 prediction and rounding.

Latents are ``[batch, length, embed_dim]``, word ids ``[batch, length]``, times ``[batch]`` in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from torch import Tensor, nn

from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.process import x0_from_noise
from dlmctl.diffusion.schedule import Schedule, ScheduleName, betas
from dlmctl.models import Architecture, DenoiserConfig, build_denoiser, denoiser_config
from dlmctl.models.conditioner import Conditioner
from dlmctl.models.interface import Conditioning
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.transformer import MAX_LAYERS, MAX_LENGTH, MAX_WIDTH, TransformerDenoiser
from dlmctl.models.word_head import WordHead

Rounding = Literal["dot", "l2", "cosine"]
Objective = Literal["paper", "cross_entropy"]
PredictionTarget = Literal["x0", "epsilon"]

MAX_VOCABULARY = 4_000_000


class LabelSettings(BaseModel):
    """A model whose texts have one label each (``class_cond`` of Diffusion-LM)."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="the field of the data that holds the label")


class SourceSettings(BaseModel):
    """A model that writes about a source (``conditional_gen`` of Diffusion-LM)."""

    model_config = ConfigDict(extra="forbid")

    fields: list[str] = Field(
        default_factory=list, description="the fields of the data that form the source, in this order; all by default"
    )
    length: int = Field(
        default=96,
        gt=2,
        le=MAX_LENGTH,
        description="longest source in words, with START, END and a word for each field name",
    )
    layers: int = Field(
        default=2, gt=0, le=MAX_LAYERS, description="blocks of the source encoder; its width is the denoiser's"
    )
    min_count: int = Field(default=2, ge=1, description="words seen less often in the sources become UNK")


class ModelSettings(BaseModel):
    """The user's settings for a model."""

    model_config = ConfigDict(extra="forbid")

    length: int = Field(
        default=64, gt=2, le=MAX_LENGTH, description="longest sequence in positions, START and END included"
    )
    embed_dim: int = Field(default=16, gt=0, le=MAX_WIDTH, description="width of the word embeddings and of the latent")
    architecture: Architecture = "transformer"
    denoiser: DenoiserConfig = Field(
        default={}, validate_default=True, description="sizes of the network, depending on the architecture"
    )
    schedule: ScheduleName = "sqrt"
    schedule_steps: int | None = Field(
        default=None, gt=1, le=100_000, description="T of a discrete schedule; none for continuous time"
    )
    objective: Objective = Field(
        default="cross_entropy",
        description="cross_entropy: logits over words; paper: end-to-end loss of Li et al. 2022",
    )
    prediction: PredictionTarget = Field(default="x0", description="what the denoiser of the paper objective predicts")
    rounding: Rounding = Field(default="dot", description="how a latent becomes words: dot product, L2 or cosine")
    self_conditioning: bool = Field(default=True, description="the denoiser also receives its previous x_0 estimate")
    label: LabelSettings | None = Field(default=None, description="the texts have labels, to condition generation on")
    source: SourceSettings | None = Field(default=None, description="the texts are generated from a source")

    @field_validator("denoiser", mode="before")
    @classmethod
    def _of_the_architecture(cls, value: Any, info: ValidationInfo) -> Any:
        return denoiser_config(info.data.get("architecture", "transformer"), value)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        longest = getattr(self.denoiser, "max_length", self.length)  # convolutions take any length
        if self.length > longest:
            raise ValueError(f"length is {self.length}, but the denoiser has max_length {longest}")
        if self.schedule_steps is not None:
            betas(self.schedule, self.schedule_steps)  # raises if there are too few steps
        return self


class ModelConfig(ModelSettings):
    """Everything that determines the shape and meaning of a model's weights: settings and data statistics."""

    vocab_size: int = Field(gt=4, le=MAX_VOCABULARY, description="number of words, special tokens included")
    labels: list[str] = Field(default_factory=list, description="names of the labels, in the order of their numbers")
    source_vocab_size: int = Field(
        default=0, ge=0, le=MAX_VOCABULARY, description="number of words of the sources, special tokens included"
    )
    source_closed: list[str] = Field(
        default_factory=list, description="source fields with few values, in which unknown words are rejected"
    )
    sentence_lengths: list[NonNegativeInt] = Field(
        default_factory=list, description="training sentences by length in words; index 0 counts empty ones"
    )

    @model_validator(mode="after")
    def _is_conditioned(self) -> Self:
        if (self.label is None) == bool(self.labels) or (self.source is None) == bool(self.source_vocab_size):
            raise ValueError("label goes with the names of the labels, and source with the size of its vocabulary")
        if self.source is not None and self.architecture != "transformer":
            raise ValueError(f"source needs the transformer, which has cross-attention, not {self.architecture!r}")
        return self


class DiffusionLM(nn.Module):
    """Word embeddings, a denoiser over them, and a rounding head.

    With the ``cross_entropy`` objective the embeddings have fixed norm sqrt(embed_dim), the denoiser returns
    logits over words, and x_0 = softmax(logits) E (Dieleman et al. 2022). With ``paper`` the denoiser
    predicts in the latent space and a rounding head maps x_0 to words (Li et al. 2022).
    """

    family: ClassVar[Literal["gaussian"]] = "gaussian"
    # Whether the number of words is settled before the first step even if no control determines it.
    counts_words = False
    # Whether PAD behind a text is hidden from the network, as it was in training.
    hides_padding = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.schedule, config.schedule_steps)
        self.embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.predicts_words = config.objective == "cross_entropy"
        # Whether it takes an attention mask, so that texts of different lengths may share a batch.
        self.takes_mask = config.architecture == "transformer"
        in_dim = config.embed_dim * (2 if config.self_conditioning else 1)
        out_dim = config.vocab_size if self.predicts_words else config.embed_dim
        self.denoiser = build_denoiser(
            config.architecture, config.denoiser, in_dim, out_dim, cross_attention=config.source is not None
        )
        self.conditioner = _conditioner(config)
        if not self.predicts_words:
            # The word head is tied to the embeddings, so only its bias is a parameter.
            self.rounding_bias = nn.Parameter(torch.zeros(config.vocab_size))

    @property
    def embeddings(self) -> Tensor:
        """The word embeddings E ``[V, D]`` used in the latent space."""
        weight = self.embedding.weight
        if self.predicts_words:
            return F.normalize(weight, dim=-1) * math.sqrt(self.config.embed_dim)
        return weight

    @property
    def embedding_table(self) -> Tensor:
        """The word embeddings as saved, before normalisation."""
        return self.embedding.weight

    @property
    def tied_weights(self) -> int:
        """The embedding weights that the output layer uses per training position."""
        return 0 if self.predicts_words else self.embedding_table.numel()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks of a transformer, identical so that only the first costs; else the whole denoiser."""
        whole = [self.denoiser]
        for module in self.denoiser.encoder.blocks if isinstance(self.denoiser, TransformerDenoiser) else whole:
            module.compile(*args, **kwargs)

    def embed(self, ids: Tensor) -> Tensor:
        """Clean latents ``[B, L, D]`` of word ids ``[B, L]``."""
        return F.embedding(ids, self.embeddings)

    def rounding_logits(self, x: Tensor, rounding: Rounding | None = None) -> Tensor:
        """Scores ``[B, L, V]`` of all words for latents ``x [B, L, D]``; higher is nearer."""
        method = rounding or self.config.rounding
        table = self.embeddings
        if method == "dot":
            bias = None if self.predicts_words else self.rounding_bias
            return F.linear(x, table, bias)
        if method == "cosine":
            return F.linear(F.normalize(x, dim=-1), F.normalize(table, dim=-1))
        return -torch.cdist(x, table.expand(x.shape[0], -1, -1), compute_mode="donot_use_mm_for_euclid_dist")

    def clamp(self, x0: Tensor) -> Tensor:
        """Replace each position of ``x0 [B, L, D]`` by the nearest word embedding (L2)."""
        return self.embed(self.rounding_logits(x0, "l2").argmax(-1))

    def condition(self, labels: Tensor | None, sources: Tensor | None) -> Conditioning | None:
        """The denoiser's conditioning for label indices ``[B]`` and padded source ids ``[B, S]``."""
        return None if self.conditioner is None else self.conditioner(labels, sources)

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        previous_x0: Tensor | None = None,
        conditioning: Conditioning | None = None,
        mask: Tensor | None = None,
    ) -> Prediction:
        """Predict x_0 from ``x_t [B, L, D]`` at times ``t [B]``.

        Args:
            previous_x0: the self-conditioning input (Chen, Zhang and Hinton 2023); zeros if not given.
            conditioning: label or source; unconditional if not given.
            mask: ``[B, L]``, true for the positions to attend to, all if not given; the output at the others is
                meaningless. Only for the transformer.
        """
        output = at_least_float32(self._denoised(x_t, t, previous_x0, conditioning, mask=mask))
        if self.predicts_words:
            return self.prediction_of_words(output)
        if self.config.prediction == "epsilon":
            output = x0_from_noise(self.schedule, x_t, t, output)
        return Prediction(lambda: output)

    def _denoised(
        self, x_t: Tensor, t: Tensor, previous_x0: Tensor | None, conditioning: Conditioning | None, **more: Any
    ) -> Tensor:
        """The denoiser's output for the arguments of ``predict``; ``more`` is passed on, except values of None."""
        inputs = x_t
        if self.config.self_conditioning:
            inputs = torch.cat([x_t, torch.zeros_like(x_t) if previous_x0 is None else previous_x0], dim=-1)
        if self.conditioner is not None and conditioning is None:
            conditioning = self.conditioner(*self.conditioner.nothing(len(x_t)))
        time = self.schedule.network_time(t).to(x_t.device, non_blocking=True)
        more = {name: value for name, value in (("conditioning", conditioning), *more.items()) if value is not None}
        return self.denoiser(inputs, time, **more)

    def word_features(
        self, x_t: Tensor, t: Tensor, previous_x0: Tensor | None = None, conditioning: Conditioning | None = None
    ) -> tuple[Tensor, WordHead] | None:
        """The input ``[B, L, H]`` of the output layer, and that layer; None if it is not a linear layer to word logits.

        For training, where the logits of all words at all positions take too much memory. Arguments as for ``predict``.
        """
        last = self.denoiser.output[-1] if isinstance(self.denoiser.output, nn.Sequential) else None
        if not (self.predicts_words and isinstance(last, nn.Linear)):
            return None
        return self._denoised(x_t, t, previous_x0, conditioning, features=True), WordHead(last.weight, last.bias)

    def prediction_of_words(self, logits: Tensor) -> Prediction:
        """The prediction with word ``logits [B, L, V]`` and x_0 = softmax(logits) E."""
        return Prediction(lambda: logits.softmax(-1) @ self.embeddings, logits)

    def token_ids(self, x0: Tensor, logits: Tensor | None = None, rounding: Rounding | None = None) -> Tensor:
        """Word ids ``[B, L]`` of x_0 estimates: from ``logits`` if given without a ``rounding``, else by rounding."""
        scores = logits if logits is not None and rounding is None else self.rounding_logits(x0, rounding)
        return scores.max(-1).indices  # breaks ties like argmax, in less than half its time on a CPU


def _conditioner(config: ModelConfig) -> Conditioner | None:
    if config.label is None and config.source is None:
        return None
    source = config.source
    return Conditioner(
        config.denoiser,
        labels=len(config.labels),
        source_vocab=config.source_vocab_size if source else 0,
        source_length=source.length if source else 0,
        source_layers=source.layers if source else 0,
        length=config.length,
    )
