"""Tuning a masked model on readers' verdicts of its drafts, so that it writes more of what they accept.

Let r(x) = log p(x) - log p_0(x) be what tuning adds to the log-probability of a draft x, p_0 the model as it was. A
reader is taken to accept x with probability sigmoid(b + beta r(x)), b the log-odds of what else is accepted of such
drafts (binary classifier optimisation: Jung et al. 2024). What fits the verdicts is p_0 with sound texts made likelier
and others less, the more the smaller beta is. Both log-probabilities are bounds with the same words masked (as in
LLaDA 1.5: Zhu et al. 2025). Ordinary text is trained on beside, as the model was, so that it stays a model of that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, Unpack, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from dlmctl.checkpoint.digests import folder_digests
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.hints import HINTS
from dlmctl.datasets.dataset import BatchPlan
from dlmctl.diffusion.masked import MaskedLM, Noise
from dlmctl.diffusion.masked_base import Read
from dlmctl.errors import ModelError
from dlmctl.generation.identity import weights_digest
from dlmctl.models.adapters import MOST_RANK, Adapters, merged
from dlmctl.models.hints import Hints
from dlmctl.models.llama import LlamaDenoiser
from dlmctl.training.acceptability import ACCEPTED, auc
from dlmctl.training.config import LoopConfig
from dlmctl.training.drafts import Asks, Drafts, drafts_of, splits_for
from dlmctl.training.hints import HintBatch, asked_batches, batches_of, mean_bound, told_nats
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, sent
from dlmctl.training.run_folder import check_apart
from dlmctl.training.state import digest
from dlmctl.training.tuned_model import TrainedHints, check_place, save_tuned
from dlmctl.training.word_tags import given as held_back

# Share of the ordinary texts that are told tags, as of ``training.word_tags.given``.
TAGGED = 0.7
VALIDATION_POSITIONS, VALIDATION_TEXTS, VALIDATION_DRAWS = 8192, 1000, 4


class PreferencesConfig(BaseModel):
    """A configuration file of ``dlmctl train preferences``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(default=16, gt=0, le=MOST_RANK, description="of the adapters that are trained and then merged")
    beta: float = Field(
        default=0.5, gt=0, le=100, description="how little tuning may do: the greater, the less it moves"
    )
    most_weight: float = Field(
        default=3.0, ge=1, description="most that one masked word of a draft counts; n / k without it"
    )
    text_share: float = Field(default=0.5, gt=0, le=10, description="positions of ordinary text for each of drafts")
    most_texts: int = Field(
        default=20_000, gt=0, description="texts of the ordinary ones that are used, spread over all"
    )
    groups: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="fields of the drafts, from coarse to fine, by which shares of accepted texts differ",
    )
    told: str | None = Field(
        default=None, description="a control whose targets are told in training, its hints trained along"
    )
    loop: LoopConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.loop.compile:
            raise ValueError("loop.compile is not for tuning, which computes with other matrices at every step")
        return self


class Preferences(Adapters):
    """What is trained: adapters, and hints where a control is told."""

    def __init__(self, network: nn.Module, rank: int, hints: Hints | None) -> None:
        super().__init__(network, rank)
        self.hints = hints


class Tuned(NamedTuple):
    """A masked model with other matrices in its network, for ``masked_nats``."""

    lm: MaskedLM
    weights: dict[str, Tensor]

    @property
    def mask_id(self) -> int:
        return self.lm.mask_id

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[Read]) -> Tensor:
        """As ``MaskedModel.nats``."""
        return self.lm.nats_after(
            functional_call(self.lm.denoiser, self.weights, (canvas,), dict(read)), positions, targets
        )


class PreferenceBatch(NamedTuple):
    """A batch of drafts, with their verdicts and log-odds ``[B]`` and which of their places were given ``[B, L]``, and
    one of ordinary text."""

    drafts: HintBatch
    wanted: Tensor
    odds: Tensor
    given: Tensor
    text: HintBatch | None


class PreferenceTask(StatelessTask):
    """A masked model and readers' verdicts, for the training loop.

    Args:
        data: a prepared data set with the model's vocabulary, one draft a row, and a field ``label`` of verdicts.
        text: a prepared data set of ordinary text with the model's vocabulary.

    Raises:
        DataError: one is none, or of another vocabulary, or has no verdicts.
        ModelError: the model is no masked one, or has learned no hints for the control that is to be told.
    """

    def __init__(self, config: PreferencesConfig, pretrained: Pretrained, data: Path, text: Path, label: str) -> None:
        model = pretrained.model
        if not isinstance(model, MaskedLM) or model.family != "masked" or model.config.lengths != "data":
            raise ModelError("is no masked model that is told lengths.", where=str(pretrained.folder))
        self.config, self.tokenizer = config, pretrained.tokenizer
        self.lm = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.asks = Asks(pretrained, config.told)
        self.before = self.asks.hints
        train, held = splits_for(pretrained, text)
        self.train, self.valid = drafts_of(pretrained, data, label, self.asks, config.groups)
        self.text = self.asks.of_text(train, config.most_texts)
        self.held = self.asks.of_text(held, VALIDATION_TEXTS)
        torch.manual_seed(config.loop.seed)
        self.model: nn.Module = Preferences(self.lm.denoiser, config.rank, self.asks.copied())

    def batches(self, skip: int, rank: int, world: int) -> Iterator[PreferenceBatch]:
        loop = self.config.loop
        many = max(1, round(loop.batch_positions * self.config.text_share))
        plans = [BatchPlan(n, self.lm.config.length, loop.bucket, 0.0, loop.seed) for n in (loop.batch_positions, many)]
        device = self._device()
        streams = [
            asked_batches(
                asked, batches_of(asked, self.lm, self.tokenizer, device), plan, skip=skip, rank=rank, world=world
            )
            for asked, plan in zip((self.train.asked, self.text), plans, strict=True)
        ]
        judged = self._judged(self.train, device)
        for (rows, drafts), (_, text) in zip(*streams, strict=True):
            yield judged(rows, drafts)._replace(text=text)

    def _device(self) -> torch.device:
        """Where the weights that are trained lie; what is frozen is brought there."""
        device = next(self.model.parameters()).device
        self.lm.to(device)
        if self.before is not None:
            self.before.to(device)
        return device

    def _judged(self, drafts: Drafts, device: torch.device) -> Callable[[np.ndarray, HintBatch], PreferenceBatch]:
        """What puts to a batch of some rows what is known of these drafts."""
        places = Rows(drafts.given, 0, device)

        def judged(rows: np.ndarray, batch: HintBatch) -> PreferenceBatch:
            wanted, odds = (sent(torch.from_numpy(one[rows]), device) for one in (drafts.verdicts, drafts.odds))
            return PreferenceBatch(batch, wanted, odds, places.of(rows, batch.ids.shape[1]) > 0, None)

        return judged

    def loss(self, model: nn.Module, batch: PreferenceBatch) -> tuple[Tensor, int]:
        """Cross-entropy with the verdicts over beta, in nats a draft, and the bound of the text in nats a word."""
        assert isinstance(model, Preferences)
        assert batch.text is not None
        weights = model.weights(self.lm.denoiser)
        odds = batch.odds + self.config.beta * self._gain(model, weights, batch)
        misfit = F.binary_cross_entropy_with_logits(odds, batch.wanted) / self.config.beta
        text = batch.text
        if text.tags is not None:
            text = text._replace(tags=held_back(text.tags, TAGGED))
        nats, words = told_nats(Tuned(self.lm, weights), model.hints, text, self.tokenizer, Noise.drawn(text.ids))
        return misfit + nats.sum() / words.clamp(min=1), batch.drafts.ids.numel() + text.ids.numel()

    def _gain(
        self, model: Preferences, weights: dict[str, Tensor], batch: PreferenceBatch, noise: Noise | None = None
    ) -> Tensor:
        """r of each draft ``[B]``, in nats, no masked word above ``most_weight``: both with the same words masked."""
        noise = Noise.drawn(batch.drafts.ids) if noise is None else noise
        nats_by = partial(
            told_nats,
            batch=batch.drafts,
            tokenizer=self.tokenizer,
            noise=noise,
            given=batch.given,
            most_weight=self.config.most_weight,
        )
        with torch.no_grad():
            before, _ = nats_by(self.lm, self.before)
        after, _ = nats_by(Tuned(self.lm, weights), model.hints)
        return before - after

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Nats a draft of the verdicts, how often an accepted draft gained more than a refused one (``auc``), what
        accepted and refused ones gained, and the bound of ordinary text in nats a word: told nothing (``nats``), its
        tags (``nats_tagged``), and what a control asks (``nats_told_1`` and on)."""
        assert isinstance(model, Preferences)
        weights = model.weights(self.lm.denoiser)
        gains = self._gains(model, weights)
        wanted, accepted = torch.from_numpy(self.valid.verdicts), self.valid.verdicts >= ACCEPTED
        odds = torch.from_numpy(self.valid.odds) + self.config.beta * torch.from_numpy(gains)
        found = {
            "verdicts": float(F.binary_cross_entropy_with_logits(odds, wanted)),
            "auc": auc(gains, accepted),
            "gain of accepted": float(gains[accepted].mean()) if accepted.any() else 0.0,
            "gain of refused": float(gains[~accepted].mean()) if not accepted.all() else 0.0,
        }
        return {**found, **self._bounds(model, weights)}

    def _gains(self, model: Preferences, weights: dict[str, Tensor]) -> np.ndarray:
        """r of each held-out draft, the mean of some draws."""
        device, asked = self._device(), self.valid.asked
        batch_of, judged = batches_of(asked, self.lm, self.tokenizer, device), self._judged(self.valid, device)
        gains, generator = np.zeros(len(asked.rows), np.float32), torch.Generator(device).manual_seed(0)
        for draw in range(VALIDATION_DRAWS):
            for at, width in self._held_out().epoch(asked.rows.lengths, 0):
                batch = judged(at, batch_of(at, np.full(len(at), draw % asked.ways), width))
                gain = self._gain(model, weights, batch, Noise.drawn(batch.drafts.ids, generator))
                gains[at] += gain.float().cpu().numpy() / VALIDATION_DRAWS
        return gains

    def _bounds(self, model: Preferences, weights: dict[str, Tensor]) -> dict[str, float]:
        """The bound of held-out text in nats a word, by the way in which it is asked."""
        device, tuned = self._device(), Tuned(self.lm, weights)
        batch_of = batches_of(self.held, self.lm, self.tokenizer, device)

        def nats_of(batch: HintBatch, noise: Noise) -> tuple[Tensor, Tensor]:
            return told_nats(tuned, model.hints, batch, self.tokenizer, noise)

        names = ["nats", *(["nats_tagged"] if self.asks.tagged else [])]
        names += [f"nats_told_{number}" for number in range(1, 1 + self.held.ways - len(names))]
        plan = self._held_out()
        return {name: mean_bound(self.held, way, batch_of, plan, device, nats_of) for way, name in enumerate(names)}

    def _held_out(self) -> BatchPlan:
        return BatchPlan(VALIDATION_POSITIONS, self.lm.config.length, 1, 0.0)

    def loss_of(self, figures: dict[str, float]) -> float:
        bounds = [nats for name, nats in figures.items() if name.startswith("nats")]
        return figures["verdicts"] / self.config.beta + sum(bounds) / len(bounds)


def train_preferences(
    config: PreferencesConfig,
    pretrained: Pretrained,
    data: Path,
    text: Path,
    out: Path,
    *,
    label: str,
    resume: bool = False,
) -> Path:
    """Tune a masked model on readers' verdicts of its drafts; ``out`` gets the run's files and, in ``model``, the tuned
    model with the scorer and the controls of the old one.

    What it had learned of acceptability is left behind: that was read off the old network.

    Args, errors: as ``PreferenceTask``.

    Returns:
        The folder of the tuned model.

    Raises:
        UserError: ``out`` holds an earlier run and ``resume`` is off, or holds none and it is on.
    """
    check_apart(out, data, text)
    folder = out / "model"
    check_place(folder, pretrained)
    task = PreferenceTask(config, pretrained, data, text, label)
    asked = {"label": label, "weights of the model": weights_digest(pretrained), "text": digest(text)}
    if task.asks.folder is not None:
        asked["hints"] = folder_digests(task.asks.folder, task.asks.folder.glob(f"{HINTS}*.safetensors"))
    tuned = fit(task, config.loop, out, identity={**config.model_dump(), **asked, **digest(data)}, resume=resume)
    if PartialState().is_main_process:
        assert isinstance(tuned, Preferences)
        hints = None
        if tuned.hints is not None and task.asks.folder is not None:
            card = {"training": config.model_dump(), "validation": task.validate(tuned)}
            hints = TrainedHints(tuned.hints.cpu(), task.asks.folder, card)
        model = MaskedLM(task.lm.config)
        model.denoiser = cast("LlamaDenoiser", merged(task.lm.cpu().denoiser, tuned.cpu()))
        save_tuned(model, pretrained, hints, folder)
    return folder
