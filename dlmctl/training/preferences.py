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
from dlmctl.datasets.dataset import BatchPlan, stream
from dlmctl.diffusion.masked import MaskedLM, Noise, attended, word_places
from dlmctl.diffusion.masked_base import Read, masked_nats
from dlmctl.diffusion.masking import mask_by_count, shares
from dlmctl.errors import ModelError
from dlmctl.generation.identity import weights_digest
from dlmctl.models.adapters import MOST_RANK, Adapters, merged
from dlmctl.models.hints import Hints
from dlmctl.models.llama import LlamaDenoiser
from dlmctl.models.word_head import WordHead, token_nats
from dlmctl.training.acceptability import ACCEPTED, auc
from dlmctl.training.config import LoopConfig
from dlmctl.training.drafts import Asks, Drafts, drafts_of, splits_for
from dlmctl.training.hints import HintBatch, batches_of
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, sent
from dlmctl.training.state import digest
from dlmctl.training.tuned_model import TrainedHints, check_place, save_tuned
from dlmctl.training.word_tags import given as held_back

# Share of the ordinary texts that are told tags, as of ``training.word_tags.given``.
TAGGED = 0.7
VALIDATION_POSITIONS, VALIDATION_TEXTS, VALIDATION_DRAWS = 8192, 1000, 4


class PreferencesConfig(BaseModel):
    """A configuration file of ``dlmctl train preferences``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, gt=0, le=MOST_RANK, description="of the adapters that are trained and then merged")
    beta: float = Field(0.5, gt=0, le=100, description="how little tuning may do: the greater, the less it moves")
    most_weight: float = Field(3.0, ge=1, description="most that one masked word of a draft counts; n / k without it")
    text_share: float = Field(0.5, gt=0, le=10, description="positions of ordinary text for each of drafts")
    most_texts: int = Field(20_000, gt=0, description="texts of the ordinary ones that are used, spread over all")
    groups: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="fields of the drafts, from coarse to fine, by which shares of accepted texts differ",
    )
    told: str | None = Field(None, description="a control whose targets are told in training, its hints trained along")
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
        hidden = functional_call(self.lm.denoiser, self.weights, (canvas,), dict(read))
        head = WordHead(self.lm.embedding_table, words=self.lm.config.vocab_size)
        return token_nats(hidden.flatten(0, 1).index_select(0, positions), head, targets)


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
        drafts_of_rows = self._drafts(self.train)
        text_of_rows = batches_of(self.text, self.lm, self.tokenizer, device)
        parts = (self.train.asked.rows, self.text.rows)
        streams = [
            stream(rows, plan, skip=skip, rank=rank, world=world) for rows, plan in zip(parts, plans, strict=True)
        ]
        for number, ((rows, width), (others, wide)) in enumerate(zip(*streams, strict=True), start=skip):
            # A generator of its own for each batch, so that a resumed run draws as one that went through.
            random = np.random.default_rng((loop.seed, number, rank))
            batch = drafts_of_rows(rows, random.integers(self.train.asked.ways, size=len(rows)), width)
            text = text_of_rows(others, random.integers(self.text.ways, size=len(others)), wide)
            yield batch._replace(text=text)

    def _device(self) -> torch.device:
        """Where the weights that are trained lie; what is frozen is brought there."""
        device = next(self.model.parameters()).device
        self.lm.to(device)
        if self.before is not None:
            self.before.to(device)
        return device

    def _drafts(self, drafts: Drafts) -> Callable[[np.ndarray, np.ndarray, int], PreferenceBatch]:
        device = self._device()
        of_rows = batches_of(drafts.asked, self.lm, self.tokenizer, device)
        places = Rows(drafts.given, 0, device)

        def batch_of(rows: np.ndarray, ways: np.ndarray, width: int) -> PreferenceBatch:
            wanted, odds = (sent(torch.from_numpy(one[rows]), device) for one in (drafts.verdicts, drafts.odds))
            return PreferenceBatch(of_rows(rows, ways, width), wanted, odds, places.of(rows, width) > 0, None)

        return batch_of

    def loss(self, model: nn.Module, batch: PreferenceBatch) -> tuple[Tensor, int]:
        """Cross-entropy with the verdicts over beta, in nats a draft, and the bound of the text in nats a word."""
        assert isinstance(model, Preferences)
        assert batch.text is not None
        weights = model.weights(self.lm.denoiser)
        odds = batch.odds + self.config.beta * self._gain(model, weights, batch)
        fit = F.binary_cross_entropy_with_logits(odds, batch.wanted) / self.config.beta
        text = batch.text
        if text.tags is not None:
            text = text._replace(tags=held_back(text.tags, TAGGED))
        nats, words = self._nats(Tuned(self.lm, weights), model.hints, text, Noise.drawn(text.ids))
        return fit + nats.sum() / words, batch.drafts.ids.numel() + text.ids.numel()

    def _gain(
        self, model: Preferences, weights: dict[str, Tensor], batch: PreferenceBatch, noise: Noise | None = None
    ) -> Tensor:
        """r of each draft ``[B]``, in nats, no masked word above ``most_weight``: both with the same words masked."""
        noise = Noise.drawn(batch.drafts.ids) if noise is None else noise
        with torch.no_grad():
            before, _ = self._nats(self.lm, self.before, batch.drafts, noise, batch.given)
        after, _ = self._nats(Tuned(self.lm, weights), model.hints, batch.drafts, noise, batch.given)
        return before - after

    def _nats(
        self, lm: MaskedLM | Tuned, hints: Hints | None, batch: HintBatch, noise: Noise, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The bound of each row ``[B]`` in nats, and how many words it is over; of drafts, which say what was
        ``given``, no weight is above ``most_weight``."""
        ids = batch.ids
        mask, places = None if batch.full else attended(ids, self.tokenizer), word_places(ids, self.tokenizer)
        places = places if given is None else places & ~given
        share = shares(len(ids), noise.offset)
        masked, weights = mask_by_count(places, sent(share, ids.device), noise.order)
        if given is not None:
            weights = weights.clamp(max=self.config.most_weight)
        told = None if hints is None else hints(batch.features, mask)
        read: Read = {"attention_mask": mask, "aligned": batch.tags, "hints": told}
        return masked_nats(cast("MaskedLM", lm), ids, masked, weights, **read), places.sum().clamp(min=1)

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
        names = ["nats", *(["nats_tagged"] if self.asks.tagged else [])]
        names += [f"nats_told_{number}" for number in range(1, 1 + self.held.ways - len(names))]
        return {**found, **{name: self._bound(model, weights, way) for way, name in enumerate(names)}}

    def _gains(self, model: Preferences, weights: dict[str, Tensor]) -> np.ndarray:
        """r of each held-out draft, the mean of some draws."""
        device, rows = self._device(), self.valid.asked.rows
        of_rows, gains = self._drafts(self.valid), np.zeros(len(rows), np.float32)
        generator = torch.Generator(device).manual_seed(0)
        plan = BatchPlan(VALIDATION_POSITIONS, self.lm.config.length, 1, 0.0)
        for draw in range(VALIDATION_DRAWS):
            for at, width in plan.epoch(rows.lengths, 0):
                batch = of_rows(at, np.full(len(at), draw % self.valid.asked.ways), width)
                gain = self._gain(model, weights, batch, Noise.drawn(batch.drafts.ids, generator))
                gains[at] += gain.float().cpu().numpy() / VALIDATION_DRAWS
        return gains

    def _bound(self, model: Preferences, weights: dict[str, Tensor], way: int) -> float:
        """The bound of held-out text asked in one way, in nats a word."""
        device = self._device()
        of_rows = batches_of(self.held, self.lm, self.tokenizer, device)
        plan = BatchPlan(VALIDATION_POSITIONS, self.lm.config.length, 1, 0.0)
        generator, total, words = torch.Generator(device).manual_seed(0), 0.0, 0
        for at, width in plan.epoch(self.held.rows.lengths, 0):
            batch = of_rows(at, np.full(len(at), way), width)
            nats, count = self._nats(Tuned(self.lm, weights), model.hints, batch, Noise.drawn(batch.ids, generator))
            total, words = total + float(nats.sum()), words + int(count)
        return total / max(1, words)

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
