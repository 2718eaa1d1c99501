"""Training a diffusion language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dlmctl.checkpoint.pretrained import Pretrained, save_pretrained
from dlmctl.datasets.dataset import BatchPlan, batch_stream, load_splits
from dlmctl.datasets.staging import check_writable
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import DiffusionLM, ModelConfig, ModelSettings
from dlmctl.diffusion.objectives import cross_entropy_loss, paper_loss
from dlmctl.diffusion.process import one_step
from dlmctl.errors import did_you_mean
from dlmctl.generation.generate import generate
from dlmctl.models.conditioner import PAD
from dlmctl.models.interface import Conditioning
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.checkpoint import CheckpointTask, CheckpointTrainingConfig
from dlmctl.training.config import LoopConfig, read_settings, validate_settings
from dlmctl.training.initial import initialise
from dlmctl.training.loop import fit
from dlmctl.training.masked import MaskedTask, MaskedTrainingConfig
from dlmctl.training.prompts import Prompts
from dlmctl.training.rows import Rows, length_counts, to_device
from dlmctl.training.run_folder import check_run_folder
from dlmctl.training.state import digest
from dlmctl.training.time_sampling import TimeSampler
from dlmctl.training.training_text import save_training_text

VALIDATION_ROWS = 512


class LanguageModelConfig(BaseModel):
    """A configuration file of ``dlmctl train lm``."""

    model_config = ConfigDict(extra="forbid")

    model: ModelSettings = Field(default_factory=ModelSettings, description="sizes and method of the model")
    time_sampling: str = Field(default="adaptive", pattern="^(adaptive|uniform)$", description="see time_sampling.py")
    init: str | None = Field(
        default=None,
        description="a model to start from, of the same sizes or with fewer blocks; or a Hugging Face BERT",
    )
    freeze_embeddings: bool = Field(
        default=False,
        description="keep the word embeddings of init unchanged, so that controls trained for that model still fit",
    )
    condition_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of texts trained without their label and source, for guidance by contrast",
    )
    loop: LoopConfig

    @model_validator(mode="after")
    def _has_embeddings_to_keep(self) -> Self:
        if self.freeze_embeddings and self.init is None:
            raise ValueError("freeze_embeddings keeps the embeddings of the model that init names; set init")
        return self


class Batch(NamedTuple):
    """Token ids of texts ``[B, L]``, label ids ``[B]`` and token ids of the sources ``[B, S]``."""

    ids: Tensor
    labels: Tensor | None = None
    sources: Tensor | None = None


class LanguageModelTask:
    """A diffusion LM over a prepared data set, for the training loop.

    Args:
        data: folder of a prepared data set with the splits ``train`` and ``valid``.
    """

    grid = None

    def __init__(self, config: LanguageModelConfig, data: Path) -> None:
        self.config = config
        self.train, self.valid, self.tokenizer = load_splits(data)
        settings: dict[str, Any] = dict(config.model)
        self.prompts: Prompts | None = None
        if config.model.label is not None or config.model.source is not None:
            self.prompts = Prompts(config.model, self.train, self.valid)
            source_tokenizer = self.prompts.tokenizer
            settings |= {"labels": self.prompts.labels, "source": self.prompts.source}
            settings |= {
                "source_vocab_size": 0 if source_tokenizer is None else len(source_tokenizer),
                "source_closed": self.prompts.closed,
            }
        torch.manual_seed(config.loop.seed)
        self.model = DiffusionLM(
            ModelConfig(**settings, vocab_size=len(self.tokenizer), sentence_lengths=length_counts(self.train))
        )
        if config.init is not None:
            initialise(self.model, self.tokenizer, config.init)
        if config.freeze_embeddings:
            self.model.embedding.requires_grad_(False)
        self.times = TimeSampler(config.time_sampling == "adaptive", one_step(self.model.schedule))

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Batch]:
        loop, length = self.config.loop, self.model.config.length
        plan = BatchPlan(loop.batch_positions, length, loop.bucket, loop.full_share, loop.seed)
        device = next(self.model.parameters()).device
        texts = Rows(self.train, self.tokenizer.pad_id, device)
        for rows, width in batch_stream(self.train, plan, skip=skip, rank=rank, world=world):
            yield self._batch("train", texts, rows, width)

    def _batch(self, split: str, texts: Rows, rows: np.ndarray, width: int) -> Batch:
        labels, sources = self.prompts.of(split, rows) if self.prompts is not None else (None, None)
        return Batch(
            texts.batch(rows, width),
            *(None if part is None else to_device(part, texts.device) for part in (labels, sources)),
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        network, device = cast("DiffusionLM", model), next(model.parameters()).device
        t = self.times.draw(len(batch.ids), device)
        if network.conditioner is not None:
            is_dropped = torch.rand(len(batch.ids), device=device) < self.config.condition_dropout
            batch = drop_conditions(batch, is_dropped, network)
        conditioning = network.condition(batch.labels, batch.sources)
        losses = objective(network, batch.ids, t, conditioning)
        self.times.update(t, losses.detach())
        total = losses.mean()
        if conditioning is not None:
            length_loss = self._length_loss(network, batch, conditioning)
            # Adds only its gradient: the reported loss stays comparable with that of a model without conditions.
            total = total + length_loss - length_loss.detach()
        return total, batch.ids.numel()

    def _length_loss(self, model: DiffusionLM, batch: Batch, conditioning: Conditioning) -> Tensor:
        assert model.conditioner is not None
        word_counts = (batch.ids != self.tokenizer.pad_id).sum(1) - SPECIAL
        return F.cross_entropy(model.conditioner.length_logits(batch.labels, conditioning), word_counts.clamp(min=0))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The training loss with uniform t, on the same rows, times and noise every time."""
        device, rng_state = next(model.parameters()).device, torch.get_rng_state()
        torch.manual_seed(0)
        total, count = 0.0, 0
        plan = BatchPlan(8192, self.model.config.length, full_share=0.0)
        texts = Rows(self.valid, self.tokenizer.pad_id, device)
        # Spread over the split, and chosen before batching by length, so that every length is among them.
        chosen = self.valid.spread(VALIDATION_ROWS)
        for at, width in plan.epoch(self.valid.lengths[chosen], 0):
            rows = chosen[at]
            batch = self._batch("valid", texts, rows, width)
            t = ((torch.arange(len(rows)) + 0.5) / len(rows)).double().to(device)
            network = cast("DiffusionLM", model)
            total += objective(network, batch.ids, t, network.condition(batch.labels, batch.sources)).sum().item()
            count += len(rows)
        torch.set_rng_state(rng_state)
        return {"loss": total / max(1, count)}

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["loss"]

    def samples(self, model: nn.Module) -> list[str]:
        """Three texts of a quick sampler, with the same noise every time; a conditional model writes them for the
        labels and sources of three validation rows."""
        pretrained = Pretrained(cast("DiffusionLM", model), self.tokenizer, Path(), self._source_tokenizer())
        prompt = self.prompts.examples(3) if self.prompts is not None else None
        settings = SamplerSettings(steps=20)
        result = generate(model=pretrained, samples=3, sampler=settings, device="auto", given=prompt)
        return [sample.text for sample in result]

    def _source_tokenizer(self) -> Tokenizer | None:
        return None if self.prompts is None else self.prompts.tokenizer

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a trained model with its tokenisers and the facts of its training text."""
        save_pretrained(cast("DiffusionLM", model), self.tokenizer, folder, source_tokenizer=self._source_tokenizer())
        save_training_text(self.train, self.tokenizer, folder)

    def state_dict(self) -> dict[str, Tensor]:
        return self.times.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.times.load_state_dict(state)


def drop_conditions(batch: Batch, is_dropped: Tensor, model: DiffusionLM) -> Batch:
    """The batch without the label and source of rows ``is_dropped [B]``, for classifier-free guidance (Ho and Salimans
    2022)."""
    assert model.conditioner is not None
    labels, sources = batch.labels, batch.sources
    no_label, no_source = model.conditioner.nothing(len(batch.ids))
    if labels is not None and no_label is not None:
        labels = torch.where(is_dropped, no_label, labels)
    if sources is not None and no_source is not None:
        empty = F.pad(no_source, (0, sources.shape[1] - no_source.shape[1]), value=PAD)
        sources = torch.where(is_dropped[:, None], empty, sources)
    return Batch(batch.ids, labels, sources)


def objective(model: DiffusionLM, ids: Tensor, t: Tensor, conditioning: Conditioning | None = None) -> Tensor:
    """The configured training loss ``[B]`` of word ids ``[B, L]`` at times ``[B]``, under a ``conditioning``."""
    shape = (*ids.shape, model.config.embed_dim)
    noise = torch.randn(shape, device=ids.device)
    if model.config.objective == "paper":
        return paper_loss(model, ids, t, noise, torch.randn(shape, device=ids.device), conditioning)["loss"]
    return cross_entropy_loss(model, ids, t, noise, conditioning)["loss"]


LmConfig = LanguageModelConfig | MaskedTrainingConfig | CheckpointTrainingConfig
FAMILIES: dict[str, type[LmConfig]] = {
    "gaussian": LanguageModelConfig,
    "masked": MaskedTrainingConfig,
    "uniform": MaskedTrainingConfig,
    "checkpoint": CheckpointTrainingConfig,
}


def read_lm_config(source: str, overrides: Sequence[str] = ()) -> LmConfig:
    """Read a configuration of ``dlmctl train lm`` for the family in ``model.family``; see ``read_config``.

    Raises:
        UserError: there is no such file or family, or the settings do not fit.
    """
    value, file = read_settings(source, overrides)
    settings = value.get("model")
    family = settings.get("family", "gaussian") if isinstance(settings, dict) else "gaussian"
    if not isinstance(family, str) or family not in FAMILIES:
        message = f"model.family: there is no family {str(family)[:60]!r}."
        raise file.error(("model", "family"), message, did_you_mean(str(family), list(FAMILIES)))
    if isinstance(settings, dict) and family == "gaussian":
        settings.pop("family", None)  # in model folders, no family means gaussian
    return validate_settings(value, file, FAMILIES[family])


def train_lm(config: LmConfig, data: str | Path, out: str | Path, *, resume: bool = False) -> Path:
    """Train a model and save its averaged weights.

    Args:
        config: of any family.
        data: a prepared data set.
        out: folder of the run (metrics, checkpoint).

    Returns:
        The folder of the saved model, ``out/model``.

    Raises:
        DataError: ``data`` is not a prepared data set.
        UserError: ``out`` is inside ``data``; also as ``training.loop.fit``.
    """
    data, out = Path(data), Path(out)
    check_run_folder(out, data, resume=resume)
    task = _task(config, data)
    if (out / "model").exists():
        check_writable(out / "model")
    model = fit(task, config.loop, out, identity={**config.model_dump(mode="json"), **digest(data)}, resume=resume)
    if PartialState().is_main_process:
        task.save(model, out / "model")
    return out / "model"


def _task(config: LmConfig, data: Path) -> LanguageModelTask | MaskedTask:
    if isinstance(config, CheckpointTrainingConfig):
        return CheckpointTask(config, data)
    return MaskedTask(config, data) if isinstance(config, MaskedTrainingConfig) else LanguageModelTask(config, data)
