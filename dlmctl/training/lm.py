"""Training a diffusion language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.checkpoint import Pretrained, save_pretrained
from dlmctl.dataset import BatchPlan, load_split, load_vocabulary, padded, stream
from dlmctl.diffusion import DiffusionLM, ModelConfig, ModelSettings, cross_entropy_loss, one_step, paper_loss
from dlmctl.generation import generate
from dlmctl.settings import SamplerSettings
from dlmctl.training.config import LoopConfig
from dlmctl.training.initial import initialise
from dlmctl.training.loop import fit
from dlmctl.training.time_sampling import TimeSampler

VALIDATION_ROWS = 512


class LanguageModelConfig(BaseModel):
    """A configuration file of ``dlmctl train lm``."""

    model_config = ConfigDict(extra="forbid")

    model: ModelSettings = Field(default_factory=ModelSettings, description="sizes and method of the model")
    time_sampling: str = Field("adaptive", pattern="^(adaptive|uniform)$", description="see time_sampling.py")
    init: str | None = Field(
        None, description="a model to start from, of the same sizes or with fewer blocks; or a Hugging Face BERT"
    )
    loop: LoopConfig


class LanguageModelTask:
    """A diffusion LM over a prepared data set, for the training loop.

    Args:
        data: folder of a prepared data set with the splits ``train`` and ``valid``.
    """

    def __init__(self, config: LanguageModelConfig, data: Path) -> None:
        self.config = config
        self.train, self.valid = load_split(data, "train"), load_split(data, "valid")
        self.tokenizer = load_vocabulary(data)
        lengths = np.bincount(np.clip(self.train.lengths - 2, 0, None))
        torch.manual_seed(config.loop.seed)
        self.model = DiffusionLM(
            ModelConfig(**dict(config.model), vocab_size=len(self.tokenizer), sentence_lengths=lengths.tolist())
        )
        if config.init is not None:
            initialise(self.model, self.tokenizer, config.init)
        self.times = TimeSampler(config.time_sampling == "adaptive", one_step(self.model.schedule))

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Tensor]:
        loop, length = self.config.loop, self.model.config.length
        plan = BatchPlan(loop.batch_positions, length, loop.bucket, loop.full_share, loop.seed)
        for ids, _ in stream(self.train, plan, self.tokenizer.pad_id, skip=skip, rank=rank, world=world):
            yield torch.from_numpy(ids)

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, int]:
        device = next(model.parameters()).device
        t = self.times.draw(len(batch))
        losses = objective(cast("DiffusionLM", model), batch.to(device), t.to(device))
        self.times.update(t, losses.detach().cpu())
        return losses.mean(), batch.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The training loss with t uniform, on the same rows, times and noise every time."""
        device, kept = next(model.parameters()).device, torch.get_rng_state()
        torch.manual_seed(0)
        total, count = 0.0, 0
        plan = BatchPlan(8192, self.model.config.length, full_share=0.0)
        rows_left = min(VALIDATION_ROWS, len(self.valid))
        for rows, canvas in plan.epoch(self.valid.lengths, 0):
            rows = rows[:rows_left]
            if not len(rows):
                break
            ids = torch.from_numpy(padded(self.valid, rows, canvas, self.tokenizer.pad_id)).to(device)
            t = ((torch.arange(len(rows)) + 0.5) / len(rows)).double().to(device)
            total += objective(cast("DiffusionLM", model), ids, t).sum().item()
            count, rows_left = count + len(rows), rows_left - len(rows)
        torch.set_rng_state(kept)
        return {"loss": total / max(1, count)}

    def samples(self, model: nn.Module) -> list[str]:
        """Three free texts of a quick sampler, the same noise every time."""
        pretrained = Pretrained(cast("DiffusionLM", model), self.tokenizer, Path())
        settings = SamplerSettings(steps=20)
        return [sample.text for sample in generate(model=pretrained, samples=3, sampler=settings, device="auto")]

    def state_dict(self) -> dict[str, Tensor]:
        return self.times.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.times.load_state_dict(state)


def objective(model: DiffusionLM, ids: Tensor, t: Tensor) -> Tensor:
    """The configured training loss ``[B]`` of word ids ``[B, L]`` at times ``[B]``."""
    shape = (*ids.shape, model.config.embed_dim)
    noise = torch.randn(shape, device=ids.device)
    if model.config.objective == "paper":
        return paper_loss(model, ids, t, noise, torch.randn(shape, device=ids.device))["loss"]
    return cross_entropy_loss(model, ids, t, noise)["loss"]


def train_lm(config: LanguageModelConfig, data: Path, out: Path, *, resume: bool = False) -> Path:
    """Train a model and save its averaged weights.

    Args:
        data: a prepared data set.
        out: folder of the run (metrics, checkpoint).

    Returns:
        The folder of the saved model, ``out/model``.
    """
    task = LanguageModelTask(config, data)
    model = fit(task, config.loop, out, resume=resume)
    if PartialState().is_main_process:
        save_pretrained(cast("DiffusionLM", model), task.tokenizer, out / "model")
    return out / "model"
