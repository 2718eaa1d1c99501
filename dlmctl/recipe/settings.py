"""The settings of sampling, guidance, selection and quotas in a recipe."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dlmctl.recipe.readable import ReadableSettings
from dlmctl.text.plain_values import plain_value

Criterion = Literal["satisfaction", "acceptability", "fluency", "lm_score", "worst_word", "mbr"]
Precision = Literal["auto", "fp32", "bf16"]
Sampler = Literal[
    "auto", "ancestral", "ddim", "dpmpp_2m", "remasking", "random", "low_confidence", "confidence", "margin", "entropy"
]
Reward = Literal["energy", "score", "lm_score"]
Method = Literal["logits", "latent", "denoiser", "langevin"]

# The valid names of devices, whether or not they are present.
DEVICES = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]{1,3})?", re.ASCII)


class StrictSettings(ReadableSettings):
    """Base of settings: unknown keys are errors, and numbers (also those of NumPy) must be finite numbers, not text.

    Raises:
        SettingsError: they do not validate; it is both a RecipeError and a ValueError.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _in_plain_values(cls, settings: Any) -> Any:
        return plain_value(settings)


class SamplerSettings(StrictSettings):
    """Settings of the reverse process."""

    name: Sampler = Field(
        default="auto",
        description="for latents: ancestral, ddim or dpmpp_2m; for masked models: ancestral, remasking, or the order "
        "of writing: entropy, confidence, margin, low_confidence, random; auto: ddim, entropy, or confidence where "
        "controls guide the word at each place",
    )
    steps: int | None = Field(
        default=50, ge=1, le=100_000, description="reverse steps; null, for masked models: one per word"
    )
    eta: float = Field(default=1.0, ge=0, le=1, description="share of fresh noise at each step; dpmpp_2m has none")
    last: float = Field(
        default=0.3, ge=0, lt=1, description="time from which the last step goes straight to clean text"
    )
    spacing: float = Field(
        default=1.5,
        ge=0.1,
        le=10,
        description="1: equal strides of time; above 1 they are shorter where there is most noise",
    )
    temperature: float = Field(
        default=0.6, ge=1e-3, le=1e3, description="divides the word logits; below 1 is more cautious"
    )
    patience: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of the steps after which a text whose words stay the same is done; 1: never",
    )
    canvas: Literal["fitted", "full"] = Field(
        default="fitted", description="positions of a text: as many as its length needs, or all of the model's"
    )
    precision: Precision = Field(
        default="auto", description="of the networks: fp32, bf16, or auto: bf16 if the device is faster at it"
    )
    deterministic: bool = Field(
        default=False,
        description="each text alone, on one thread of the CPU, in fp32 unless `precision` says otherwise: slower, but "
        "bit-identical at any batch size",
    )
    compile: bool = Field(
        default=True, description="on a GPU, record the steps and replay them if that is faster; false: never"
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="masked models: words below this share of the likeliest one's probability are left out",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="masked models: probability from which words are written at once, beside those that each step "
        "writes anyway; null: none",
    )
    remask: float = Field(
        default=0.0, ge=0, le=1, description="remasking: largest probability that a word is masked again in a step"
    )
    particles: int = Field(
        default=1,
        ge=1,
        le=512,
        description="walks of each text, resampled by their rewards; 1: no resampling",
    )
    reward: Reward = Field(
        default="energy",
        description="by which particles are resampled: energy of the controls, score of their checks, or lm_score",
    )
    reward_scale: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="nats that a reward of 1 is worth; null: 1 for energy, 20 for score, 4 for lm_score",
    )
    resample_every: int = Field(
        default=2, ge=1, le=100_000, description="steps from one look at the reward to the next"
    )
    new_tokens: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="models over tokens, such as LLaDA: most tokens of a text, after its prompt; null: 128, or 24 for "
        "encoders such as BERT, if it has room for so many; not for DiffusionGemma, where a text is one canvas",
    )
    block: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="masked models: places that are written before those after them; null: all at once, or the blocks "
        "of the model",
    )
    clamp: bool = Field(default=False, description="round the x_0 estimate to words at every step")
    top_p: float | None = Field(
        default=None, ge=0.01, le=1e3, description="redraw noise entries beyond this absolute value"
    )
    condition_scale: float = Field(
        default=1.0,
        ge=0,
        le=1e3,
        description="how much `label` and `source` count: 1 as trained, above more, 0 not at all",
    )
    rounding: Literal["dot", "l2", "cosine"] | None = Field(
        default=None, description="how the final latent becomes words; by default the model's own logits"
    )

    @model_validator(mode="after")
    def _deterministic_is_in_one_precision(self) -> Self:
        if self.deterministic and self.precision == "auto":  # auto differs between processors
            self.precision = "fp32"
        return self


class TextPrompt(StrictSettings):
    """The prompt that a text over tokens answers or continues."""

    text: str = Field(min_length=1, max_length=1_000_000, description="the user's turn, or the text to continue")
    system: str | None = Field(default=None, max_length=1_000_000, description="a system turn before it")
    chat: bool | None = Field(
        default=None, description="with the model's chat template, or as plain text; by default with it if there is one"
    )


class Guidance(StrictSettings):
    """How strongly, when and by which method controls steer."""

    method: Method | None = Field(
        default=None,
        description="logits: shift the word logits of the x_0 estimate; latent: shift the x_0 estimate by the gradient "
        "at x_t; denoiser: the same by the gradient of the estimate's energy through the denoiser; "
        "langevin: Adagrad updates of x_s after each step (Li et al. 2022). By default logits if the model "
        "predicts words, else langevin",
    )
    scale: float = Field(
        default=4.0,
        ge=0,
        le=1e6,
        description="strength of the gradient; 1 is Bayes' rule to first order, 0 turns all guidance off; langevin "
        "ignores all other values",
    )
    clip: float = Field(
        default=400.0,
        gt=0,
        le=1e6,
        description="largest norm of one control's gradient in a sample, so that none outweighs the others",
    )
    updates: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="gradient updates at each step; null: 3, or 1 if every control that guides by a gradient also has "
        "counts for every word",
    )
    step_size: float = Field(default=0.1, gt=0, le=1e3, description="Adagrad learning rate of langevin")
    fluency: float = Field(
        default=0.003, ge=0, le=1e6, description="langevin: weight of the distance from the model's own mean"
    )
    since: float = Field(default=1.0, ge=0, le=1, description="no gradient at times above this")
    until: float = Field(default=0.05, ge=0, le=1, description="no gradient at times below this")

    @model_validator(mode="after")
    def _interval_is_not_empty(self) -> Guidance:
        if self.until > self.since:
            raise ValueError(f"it ends at time {self.until} (until), before it begins at {self.since} (since)")
        return self


class Until(StrictSettings):
    """When a sample is good enough, and how often it may be drawn."""

    satisfied: Literal["all", "any"] | Annotated[float, Field(ge=0, le=1)] = Field(
        default="all",
        description="all or any of the checks passed, or the least mean score of the checks (1 if passed)",
    )
    lm_score: float | None = Field(
        default=None, ge=0, le=100, description="most nats per token under the model's scorer"
    )
    worst_word: float | None = Field(
        default=None, ge=0, le=100, description="most nats of the word that the scorer finds least likely"
    )
    acceptability: float | None = Field(
        default=None, ge=0, le=1, description="least probability that a reader finds the text a sound sentence"
    )
    max_rounds: int = Field(default=4, ge=1, le=1000, description="rounds of drawing, the first included")
    repair: bool = Field(
        default=False,
        description="from the second round on, redraw only the words that a check blames (or, if fluency is bounded, "
        "that the scorer finds unlikely) and their neighbours; the others stay",
    )

    @property
    def bounds_fluency(self) -> bool:
        """Whether the scorer decides when a text is good enough."""
        return not (self.lm_score is self.worst_word is self.acceptability is None)


class Quota(StrictSettings):
    """How hard to try for the requested number of texts that pass and differ."""

    attempts: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="most texts drawn for each requested one, counted over all texts of a row",
    )


# The error for a quota together with a weaker ``until``.
QUOTA_NEEDS_ALL = "a quota draws until all texts pass, so `satisfied` can only be `all`."
QUOTA_REMEDY = "Leave until.satisfied out, or the quota."


def accepts_failures(until: Until | None, quota: Quota | None) -> bool:
    """Whether ``until`` would accept texts for a quota that have not passed."""
    return quota is not None and until is not None and until.satisfied != "all"
