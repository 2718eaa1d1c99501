"""The diffusion language model: forward process, x_0 prediction, training objectives, likelihood bound.

Latents are ``[batch, length, embed_dim]``, word ids ``[batch, length]``, times ``[batch]`` in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

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

from dlmctl.diffusion.schedule import Schedule, ScheduleName, betas
from dlmctl.generation.prompts import LabelSettings, SourceSettings
from dlmctl.models import Architecture, DenoiserConfig, build_denoiser, denoiser_config
from dlmctl.models.conditioner import Conditioner, Conditioning
from dlmctl.models.transformer import MAX_LENGTH, MAX_WIDTH

Rounding = Literal["dot", "l2", "cosine"]
Objective = Literal["paper", "cross_entropy"]
PredictionTarget = Literal["x0", "epsilon", "previous"]

MAX_VOCABULARY = 4_000_000


class ModelSettings(BaseModel):
    """What one chooses of a model."""

    model_config = ConfigDict(extra="forbid")

    length: int = Field(64, gt=2, le=MAX_LENGTH, description="longest sequence in positions, START and END included")
    embed_dim: int = Field(16, gt=0, le=MAX_WIDTH, description="width of the word embeddings and of the latent")
    architecture: Architecture = "transformer"
    denoiser: DenoiserConfig = Field(
        {}, validate_default=True, description="sizes; which there are, the architecture says"
    )
    schedule: ScheduleName = "sqrt"
    schedule_steps: int | None = Field(
        None, gt=1, le=100_000, description="T of a discrete schedule; none for continuous time"
    )
    objective: Objective = Field(
        "cross_entropy", description="cross_entropy: logits over words; paper: end-to-end loss of Li et al. 2022"
    )
    prediction: PredictionTarget = Field("x0", description="what the denoiser of the paper objective predicts")
    rounding: Rounding = Field("dot", description="how a latent becomes words: dot product, L2 or cosine")
    self_conditioning: bool = Field(True, description="the denoiser also receives its previous x_0 estimate")
    label: LabelSettings | None = Field(None, description="the texts have labels; a label chooses among them")
    source: SourceSettings | None = Field(None, description="the texts are written from a source")

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
            betas(self.schedule, self.schedule_steps)  # has a message of its own for too few steps
        return self


class ModelConfig(ModelSettings):
    """Everything that fixes the shape and meaning of a model's weights: the settings, and what the data adds."""

    vocab_size: int = Field(gt=4, le=MAX_VOCABULARY, description="number of words, structure tokens included")
    labels: list[str] = Field(default_factory=list, description="names of the labels, in the order of their numbers")
    source_vocab_size: int = Field(
        0, ge=0, le=MAX_VOCABULARY, description="number of words of the sources, structure tokens included"
    )
    source_closed: list[str] = Field(
        default_factory=list, description="fields of the sources with few values, of which new words are refused"
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


class Prediction:
    """What the model makes of x_t: ``x0 [B, L, D]``, computed when first asked for where it is a mean of word
    embeddings, and, for word-predicting models, ``logits [B, L, V]``."""

    def __init__(self, x0: Callable[[], Tensor], logits: Tensor | None = None) -> None:
        self._x0, self.logits = x0, logits

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()


class DiffusionLM(nn.Module):
    """Word embeddings, a denoiser over them, and a rounding head.

    With the ``cross_entropy`` objective the embeddings have fixed norm sqrt(embed_dim), the denoiser gives
    logits over words, and x_0 = softmax(logits) E (Dieleman et al. 2022). With ``paper`` the denoiser
    predicts in the latent space and a rounding head maps x_0 to words (Li et al. 2022).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.schedule, config.schedule_steps)
        self.embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.predicts_words = config.objective == "cross_entropy"
        # Whether it can leave out positions, so that texts of different canvases may share a batch.
        self.ragged = config.architecture == "transformer"
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
        """The word embeddings E ``[V, D]`` as the latent space sees them."""
        weight = self.embedding.weight
        if self.predicts_words:
            return F.normalize(weight, dim=-1) * math.sqrt(self.config.embed_dim)
        return weight

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """torch.compile the denoiser, which is where the time goes."""
        self.denoiser.compile(*args, **kwargs)

    def embed(self, ids: Tensor) -> Tensor:
        """Clean latents ``[B, L, D]`` of word ids ``[B, L]``."""
        return F.embedding(ids, self.embeddings)

    def rounding_logits(self, x: Tensor, rounding: Rounding | None = None) -> Tensor:
        """Scores of every word for latents ``x [B, L, D]``: ``[B, L, V]``, higher is nearer."""
        how = rounding or self.config.rounding
        table = self.embeddings
        if how == "dot":
            bias = None if self.predicts_words else self.rounding_bias
            return F.linear(x, table, bias)
        if how == "cosine":
            return F.linear(F.normalize(x, dim=-1), F.normalize(table, dim=-1))
        return -torch.cdist(x, table.expand(x.shape[0], -1, -1), compute_mode="donot_use_mm_for_euclid_dist")

    def clamp(self, x0: Tensor) -> Tensor:
        """Each position of ``x0 [B, L, D]`` replaced by its nearest word embedding (L2)."""
        return self.embed(self.rounding_logits(x0, "l2").argmax(-1))

    def condition(self, labels: Tensor | None, sources: Tensor | None) -> Conditioning | None:
        """What the denoiser receives for numbers of labels ``[B]`` and padded ids of sources ``[B, S]``."""
        return None if self.conditioner is None else self.conditioner(labels, sources)

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        previous_x0: Tensor | None = None,
        given: Conditioning | None = None,
        inside: Tensor | None = None,
    ) -> Prediction:
        """The x_0 estimate for ``x_t [B, L, D]`` at times ``t [B]``.

        ``previous_x0`` is the self-conditioning input (Chen, Zhang and Hinton 2023); zeros when absent. ``given`` is
        what the text is about; nothing in particular when absent. ``inside [B, L]`` is true for the positions that
        count, all of them when absent; what stands at the others is of no meaning. Only the transformer takes it.
        """
        inputs = x_t
        if self.config.self_conditioning:
            inputs = torch.cat([x_t, torch.zeros_like(x_t) if previous_x0 is None else previous_x0], dim=-1)
        if self.conditioner is not None and given is None:
            given = self.conditioner(*self.conditioner.nothing(len(x_t)))
        time = self.schedule.network_time(t)
        more = {name: value for name, value in (("given", given), ("inside", inside)) if value is not None}
        output = self.denoiser(inputs, time, **more).float()
        if self.predicts_words:
            return self.prediction_of_words(output)
        if self.config.prediction == "epsilon":
            output = x0_from_noise(self.schedule, x_t, t, output)
        elif self.config.prediction == "previous":
            output = x0_from_previous(self.schedule, x_t, t, output)
        return Prediction(lambda: output)

    def prediction_of_words(self, logits: Tensor) -> Prediction:
        """``logits [B, L, V]`` over words with the x_0 that they stand for, softmax(logits) E."""
        return Prediction(lambda: logits.softmax(-1) @ self.embeddings, logits)

    def words(self, x0: Tensor, logits: Tensor | None = None, rounding: Rounding | None = None) -> Tensor:
        """Word ids ``[B, L]`` of final estimates: by the denoiser's logits if given, else by rounding."""
        scores = logits if logits is not None and rounding is None else self.rounding_logits(x0, rounding)
        return scores.argmax(-1)


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


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """``[B]`` coefficients shaped and typed to scale a latent ``[B, L, D]``."""
    return values.to(like.device, like.dtype).reshape(-1, 1, 1)


def one_step(schedule: Schedule) -> float:
    """The stride of the underlying discrete process, in units of t (T = 2000 where time is continuous)."""
    return 1.0 / (schedule.steps or 2000)


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(alphabar) x_0 + sqrt(1 - alphabar) noise (Ho et al. 2020, eq. 4)."""
    alphabar = schedule.alphabar(t)
    return _wide(alphabar.sqrt(), x0) * x0 + _wide((1 - alphabar).sqrt(), x0) * noise


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s given x_t, x_0) for s < t (Ho et al. 2020, eq. 7); variance ``[B, 1, 1]``."""
    a_t, a_s = schedule.alphabar(t), schedule.alphabar(s)
    alpha = a_t / a_s
    mean = _wide(a_s.sqrt() * (1 - alpha) / (1 - a_t), x0) * x0 + _wide(alpha.sqrt() * (1 - a_s) / (1 - a_t), x0) * x_t
    return mean, _wide((1 - alpha) * (1 - a_s) / (1 - a_t), x0)


def x0_from_noise(schedule: Schedule, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_0 from an estimate of the noise in x_t."""
    alphabar = schedule.alphabar(t)
    return (x_t - _wide((1 - alphabar).sqrt(), x_t) * noise) / _wide(alphabar.sqrt(), x_t)


def x0_from_previous(schedule: Schedule, x_t: Tensor, t: Tensor, previous: Tensor) -> Tensor:
    """x_0 from an estimate of the posterior mean one discrete step earlier."""
    zeros = torch.zeros_like(x_t)
    s = (t - one_step(schedule)).clamp(min=0)
    share_x0, _ = posterior(schedule, torch.ones_like(x_t), zeros, t, s)
    share_xt, _ = posterior(schedule, zeros, x_t, t, s)
    return (previous - share_xt) / share_x0


def paper_loss(
    model: DiffusionLM,
    ids: Tensor,
    t: Tensor,
    noise: Tensor,
    noise_x0: Tensor,
    given: Conditioning | None = None,
) -> dict[str, Tensor]:
    """The end-to-end objective of Li et al. 2022 (eq. 2), per example.

    Args:
        ids: ``[B, L]``; t: ``[B]``; noise, noise_x0: ``[B, L, D]`` standard normal, for x_t and for x_0;
            given: what the texts are about.

    Returns:
        ``loss`` and ``mse``, each ``[B]``, in squared latent units plus nats per position.
    """
    schedule = model.schedule
    clean = model.embed(ids)
    first = torch.full_like(t, one_step(schedule))
    x0 = clean + _wide((1 - schedule.alphabar(first)).sqrt(), clean) * noise_x0
    x_t = q_sample(schedule, x0, t, noise)
    prediction = model.predict(x_t, t, _self_condition(model, x_t, t, given), given)
    target, estimate = x0, prediction.x0
    if model.config.prediction == "epsilon":
        alphabar = schedule.alphabar(t)
        target = noise
        estimate = (x_t - _wide(alphabar.sqrt(), x_t) * prediction.x0) / _wide((1 - alphabar).sqrt(), x_t)
    elif model.config.prediction == "previous":
        s = (t - one_step(schedule)).clamp(min=0)
        target, _ = posterior(schedule, x0, x_t, t, s)
        estimate, _ = posterior(schedule, prediction.x0, x_t, t, s)
    mse = (target - estimate).square().mean((1, 2))
    mse = torch.where(t < 1.5 * first, (clean - prediction.x0).square().mean((1, 2)), mse)
    prior = (_wide(schedule.alphabar(torch.ones_like(t)).sqrt(), x0) * x0).square().mean((1, 2))
    rounding = F.cross_entropy(model.rounding_logits(x0).transpose(1, 2), ids, reduction="none").mean(1)
    return {"loss": mse + prior + rounding, "mse": mse}


def cross_entropy_loss(
    model: DiffusionLM, ids: Tensor, t: Tensor, noise: Tensor, given: Conditioning | None = None
) -> dict[str, Tensor]:
    """Cross-entropy of the words given x_t (Dieleman et al. 2022, section 3.1), per example.

    Args:
        ids: ``[B, L]``; t: ``[B]``; noise: ``[B, L, D]`` standard normal; given: what the texts are about.

    Returns:
        ``loss [B]``, nats per position.
    """
    x_t = q_sample(model.schedule, model.embed(ids), t, noise)
    logits = model.predict(x_t, t, _self_condition(model, x_t, t, given), given).logits
    assert logits is not None
    return {"loss": F.cross_entropy(logits.transpose(1, 2), ids, reduction="none").mean(1)}


def _self_condition(model: DiffusionLM, x_t: Tensor, t: Tensor, given: Conditioning | None) -> Tensor | None:
    """In training, for every second batch, a first estimate to condition on (Chen et al. 2023, algorithm 1)."""
    if not (model.config.self_conditioning and model.training) or torch.rand(()).item() < 0.5:
        return None
    with torch.no_grad():
        return model.predict(x_t, t, None, given).x0


class Bound(NamedTuple):
    """Parts of the variational bound, in nats: ``prior [B, L]``, ``words [B, L]``, and ``diffusion [K, B, L]`` for K
    steps of the process, which start at ``times [K, B]``."""

    prior: Tensor
    diffusion: Tensor
    words: Tensor
    times: Tensor

    @property
    def total(self) -> Tensor:
        """With all steps of the process, an upper bound on -log p(words), ``[B]``."""
        return (self.prior + self.diffusion.sum(0) + self.words).sum(1)


@torch.no_grad()
def likelihood_bound(
    model: DiffusionLM,
    ids: Tensor,
    steps: int,
    noise: Callable[[Tensor], Tensor],
    picked: Tensor | None = None,
    given: Conditioning | None = None,
) -> Bound:
    """The variational bound of a ``steps``-step reverse process (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 13).

    With q's own posterior variance, the KL of the step t to s is (SNR(s) - SNR(t)) / 2 times the squared
    error of the x_0 estimate. The words are scored given the least noisy latent of the process.

    Args:
        ids: ``[B, L]``; all positions count, PAD too.
        noise: standard normal noise like a latent.
        picked: ``[K, B]``, for each sequence the numbers of the steps to compute, of 0 (t = 1) to ``steps`` - 2; all of
            them if not given.
        given: what the texts are about.
    """
    schedule, clean = model.schedule, model.embed(ids)
    times = schedule.times(steps).to(ids.device)
    if picked is None:
        picked = torch.arange(steps - 1, device=ids.device)[:, None].expand(-1, len(ids))
    last = schedule.alphabar(torch.ones(len(ids), device=ids.device, dtype=torch.float64))
    per_coordinate = 0.5 * (_wide(last, clean) * clean.square() - _wide(last + torch.log1p(-last), clean))
    gains = []
    for number in picked.to(ids.device):
        t, s = times[number], times[number + 1]
        snr_t, snr_s = (a / (1 - a) for a in (schedule.alphabar(t), schedule.alphabar(s)))
        x_t = q_sample(schedule, clean, t, noise(clean))
        previous = model.predict(x_t, t, None, given).x0 if model.config.self_conditioning else None
        estimate = model.predict(x_t, t, previous, given).x0
        gains.append((0.5 * (snr_s - snr_t)).to(clean)[:, None] * (clean - estimate).square().sum(2))
    first = times[-2].expand(len(ids))
    prediction = model.predict(q_sample(schedule, clean, first, noise(clean)), first, None, given)
    logits = prediction.logits if prediction.logits is not None else model.rounding_logits(prediction.x0)
    words = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    diffusion = torch.stack(gains) if gains else clean.new_zeros(0, *ids.shape)
    return Bound(per_coordinate.sum(2), diffusion, words, times[picked])
