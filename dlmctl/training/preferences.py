"""Tuning a masked model on readers' verdicts of its drafts, so that it writes more of what they accept.

Let r(x) = log p(x) - log p_0(x), where p is the tuned model and p_0 the original one. A reader is modelled to accept a
draft x with probability sigmoid(b + beta r(x)), where b is the log-odds that drafts like it are accepted (binary
classifier optimisation: Jung et al. 2024). The optimum is p_0 with accepted texts made more likely and refused texts
less likely, the more so the smaller beta is. Both log-probabilities are bounds with the same words masked (as in
LLaDA 1.5: Zhu et al. 2025). The model is also trained on ordinary text, as before, so that it stays a model of it.
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

from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.digests import folder_digests
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.hints import HINTS
from dlmctl.datasets.dataset import BatchPlan
from dlmctl.diffusion.masked import MaskedLM, Noise
from dlmctl.diffusion.masked_base import NetworkInputs
from dlmctl.errors import ModelError
from dlmctl.generation.identity import weights_digest
from dlmctl.models.adapters import MOST_RANK, Adapters, merge_adapters
from dlmctl.models.hints import Hints
from dlmctl.models.llama import LlamaDenoiser
from dlmctl.training.acceptability import ACCEPTED, auc
from dlmctl.training.config import LoopConfig
from dlmctl.training.drafts import Drafts, ExampleBuilder, drafts_of, splits_for
from dlmctl.training.hints import HintBatch, batch_maker, hinted_nats, mean_bound, stream_batches
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, to_device
from dlmctl.training.run_folder import check_apart, check_run_folder
from dlmctl.training.state import digest
from dlmctl.training.tuned_model import TrainedHints, check_output, save_tuned
from dlmctl.training.word_tags import drop_tags

# Share of the ordinary texts with tags, for ``training.word_tags.drop_tags``.
TAGGED_SHARE = 0.7
VALIDATION_POSITIONS, VALIDATION_TEXTS, VALIDATION_DRAWS = 8192, 1000, 4


class PreferencesConfig(BaseModel):
    """A configuration file of ``dlmctl train preferences``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(default=16, gt=0, le=MOST_RANK, description="of the adapters that are trained and then merged")
    beta: float = Field(
        default=0.5, gt=0, le=100, description="how close the model stays to the original: the greater, the closer"
    )
    most_weight: float = Field(default=3.0, ge=1, description="cap on the weight n / k of one masked word of a draft")
    text_share: float = Field(
        default=0.5, gt=0, le=10, description="positions of ordinary text for each position of drafts"
    )
    most_texts: int = Field(default=20_000, gt=0, description="most ordinary texts that are used, spread over all")
    groups: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="fields of the drafts, from coarse to fine, whose values differ in their share of accepted texts",
    )
    told: str | None = Field(
        default=None, description="a control whose requests are given in training; its hints are tuned, too"
    )
    loop: LoopConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.loop.compile:
            raise ValueError("loop.compile does not work for tuning, which builds new matrices at every step")
        return self


class Preferences(Adapters):
    """The trained parameters: adapters, and the hints of the control, if any."""

    def __init__(self, network: nn.Module, rank: int, hints: Hints | None) -> None:
        super().__init__(network, rank)
        self.hints = hints


class TunedModel(NamedTuple):
    """A masked model with replaced matrices in its network, for ``masked_nats``."""

    lm: MaskedLM
    weights: dict[str, Tensor]

    @property
    def mask_id(self) -> int:
        return self.lm.mask_id

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """As ``MaskedModel.nats``."""
        return self.lm.nats_after(
            functional_call(self.lm.denoiser, self.weights, (canvas,), dict(read)), positions, targets
        )


class PreferenceBatch(NamedTuple):
    """A batch of drafts with their verdicts and log-odds ``[B]`` and a mask of given places ``[B, L]``, and a batch of
    ordinary text."""

    drafts: HintBatch
    verdicts: Tensor
    log_odds: Tensor
    is_given: Tensor
    text: HintBatch | None


class PreferenceTask(StatelessTask):
    """Tuning of a masked model on readers' verdicts, for the training loop.

    Args:
        data: a prepared data set with the model's vocabulary, one draft a row, and a field ``label`` of verdicts.
        text: a prepared data set of ordinary text with the model's vocabulary.

    Raises:
        DataError: ``data`` or ``text`` is not a data set or has another vocabulary, or there are no verdicts.
        ModelError: the model is not a masked model, or has no hints for the control ``config.told``.
    """

    def __init__(self, config: PreferencesConfig, pretrained: Pretrained, data: Path, text: Path, label: str) -> None:
        model = pretrained.model
        if not isinstance(model, MaskedLM) or model.family != "masked" or model.config.lengths != "data":
            raise ModelError("is not a masked model that is given lengths.", where=model_name(pretrained.folder))
        self.config, self.tokenizer = config, pretrained.tokenizer
        self.lm = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.builder = ExampleBuilder(pretrained, config.told)
        self.original_hints = self.builder.hints
        train_text, valid_text = splits_for(pretrained, text)
        self.train, self.valid = drafts_of(pretrained, data, label, self.builder, config.groups)
        self.train_text = self.builder.from_text(train_text, config.most_texts)
        self.valid_text = self.builder.from_text(valid_text, VALIDATION_TEXTS)
        torch.manual_seed(config.loop.seed)
        self.model: nn.Module = Preferences(self.lm.denoiser, config.rank, self.builder.trainable_hints())

    def batches(self, skip: int, rank: int, world: int) -> Iterator[PreferenceBatch]:
        loop = self.config.loop
        text_positions = max(1, round(loop.batch_positions * self.config.text_share))
        plans = [
            BatchPlan(positions, self.lm.config.length, loop.bucket, 0.0, loop.seed)
            for positions in (loop.batch_positions, text_positions)
        ]
        device = self._device()
        streams = [
            stream_batches(
                examples,
                batch_maker(examples, self.lm, self.tokenizer, device),
                plan,
                skip=skip,
                rank=rank,
                world=world,
            )
            for examples, plan in zip((self.train.examples, self.train_text), plans, strict=True)
        ]
        add_verdicts = self._verdict_adder(self.train, device)
        for (rows, drafts), (_, text) in zip(*streams, strict=True):
            yield add_verdicts(rows, drafts)._replace(text=text)

    def _device(self) -> torch.device:
        """The device of the trained weights; frozen weights are moved there."""
        device = next(self.model.parameters()).device
        self.lm.to(device)
        if self.original_hints is not None:
            self.original_hints.to(device)
        return device

    def _verdict_adder(
        self, drafts: Drafts, device: torch.device
    ) -> Callable[[np.ndarray, HintBatch], PreferenceBatch]:
        """The function that adds verdicts, log-odds and given places to a batch of these drafts."""
        given_rows = Rows(drafts.is_given, 0, device)

        def add_verdicts(rows: np.ndarray, batch: HintBatch) -> PreferenceBatch:
            verdicts, odds = (
                to_device(torch.from_numpy(values[rows]), device) for values in (drafts.verdicts, drafts.log_odds)
            )
            return PreferenceBatch(batch, verdicts, odds, given_rows.batch(rows, batch.ids.shape[1]) > 0, None)

        return add_verdicts

    def loss(self, model: nn.Module, batch: PreferenceBatch) -> tuple[Tensor, int]:
        """Cross-entropy with the verdicts over beta, in nats a draft, plus the bound of the text in nats a word."""
        assert isinstance(model, Preferences)
        assert batch.text is not None
        weights = model.weights(self.lm.denoiser)
        odds = batch.log_odds + self.config.beta * self._gain(model, weights, batch)
        verdict_loss = F.binary_cross_entropy_with_logits(odds, batch.verdicts) / self.config.beta
        text = batch.text
        if text.tags is not None:
            text = text._replace(tags=drop_tags(text.tags, TAGGED_SHARE))
        tuned = TunedModel(self.lm, weights)
        nats, words = hinted_nats(tuned, model.hints, text, self.tokenizer, Noise.drawn(text.ids))
        return verdict_loss + nats.sum() / words.clamp(min=1), batch.drafts.ids.numel() + text.ids.numel()

    def _gain(
        self, model: Preferences, weights: dict[str, Tensor], batch: PreferenceBatch, noise: Noise | None = None
    ) -> Tensor:
        """r of each draft ``[B]``, in nats, from bounds with the same words masked and weights capped at
        ``most_weight``."""
        noise = Noise.drawn(batch.drafts.ids) if noise is None else noise
        nats_of = partial(
            hinted_nats,
            batch=batch.drafts,
            tokenizer=self.tokenizer,
            noise=noise,
            is_given=batch.is_given,
            max_weight=self.config.most_weight,
        )
        with torch.no_grad():
            original_nats, _ = nats_of(self.lm, self.original_hints)
        tuned_nats, _ = nats_of(TunedModel(self.lm, weights), model.hints)
        return original_nats - tuned_nats

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The cross-entropy of the verdicts in nats a draft, how often an accepted draft gained more than a refused one
        (``auc``), the mean gains of accepted and refused drafts, and the bound of ordinary text in nats a word: with no
        request (``nats``), with its tags (``nats_tagged``), and with a control's requests (``nats_told_1`` and on)."""
        assert isinstance(model, Preferences)
        weights = model.weights(self.lm.denoiser)
        gains = self._gains(model, weights)
        verdicts, accepted = torch.from_numpy(self.valid.verdicts), self.valid.verdicts >= ACCEPTED
        odds = torch.from_numpy(self.valid.log_odds) + self.config.beta * torch.from_numpy(gains)
        figures = {
            "verdicts": float(F.binary_cross_entropy_with_logits(odds, verdicts)),
            "auc": auc(gains, accepted),
            "gain of accepted": float(gains[accepted].mean()) if accepted.any() else 0.0,
            "gain of refused": float(gains[~accepted].mean()) if not accepted.all() else 0.0,
        }
        return {**figures, **self._bounds(model, weights)}

    def _gains(self, model: Preferences, weights: dict[str, Tensor]) -> np.ndarray:
        """r of each held-out draft, averaged over ``VALIDATION_DRAWS`` maskings."""
        device, examples = self._device(), self.valid.examples
        make_batch = batch_maker(examples, self.lm, self.tokenizer, device)
        add_verdicts = self._verdict_adder(self.valid, device)
        gains, generator = np.zeros(len(examples.rows), np.float32), torch.Generator(device).manual_seed(0)
        for draw in range(VALIDATION_DRAWS):
            for rows, width in self._validation_plan().epoch(examples.rows.lengths, 0):
                batch = add_verdicts(rows, make_batch(rows, np.full(len(rows), draw % examples.variants), width))
                gain = self._gain(model, weights, batch, Noise.drawn(batch.drafts.ids, generator))
                gains[rows] += gain.float().cpu().numpy() / VALIDATION_DRAWS
        return gains

    def _bounds(self, model: Preferences, weights: dict[str, Tensor]) -> dict[str, float]:
        """The bound of held-out text in nats a word, for each variant of its requests."""
        device, tuned, examples = self._device(), TunedModel(self.lm, weights), self.valid_text
        make_batch = batch_maker(examples, self.lm, self.tokenizer, device)

        def nats_of(batch: HintBatch, noise: Noise) -> tuple[Tensor, Tensor]:
            return hinted_nats(tuned, model.hints, batch, self.tokenizer, noise)

        names = ["nats", *(["nats_tagged"] if self.builder.takes_tags else [])]
        names += [f"nats_told_{number}" for number in range(1, 1 + examples.variants - len(names))]
        plan = self._validation_plan()
        return {
            name: mean_bound(examples, variant, make_batch, plan, device, nats_of) for variant, name in enumerate(names)
        }

    def _validation_plan(self) -> BatchPlan:
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
    """Tune a masked model on readers' verdicts of its drafts; ``out`` receives the files of the run and, in ``model``,
    the tuned model with the scorer and the controls of the original.

    Learned acceptability is not copied, because it reads the states of the original network, which goes on reading the
    texts of the tuned one.

    Arguments and errors as ``PreferenceTask``.

    Returns:
        The folder of the tuned model.

    Raises:
        UserError: ``out`` holds an earlier run and ``resume`` is off, or holds none and it is on.
    """
    check_apart(out, data, text)
    folder = out / "model"
    check_output(folder, pretrained)
    check_run_folder(out, resume=resume)
    task = PreferenceTask(config, pretrained, data, text, label)
    hints_folder = task.builder.folder
    inputs = {"label": label, "weights of the model": weights_digest(pretrained), "text": digest(text)}
    if hints_folder is not None:
        inputs["hints"] = folder_digests(hints_folder, hints_folder.glob(f"{HINTS}*.safetensors"))
    tuned = fit(task, config.loop, out, identity={**config.model_dump(), **inputs, **digest(data)}, resume=resume)
    if PartialState().is_main_process:
        assert isinstance(tuned, Preferences)
        hints = None
        if tuned.hints is not None and hints_folder is not None:
            card = {"training": config.model_dump(), "validation": task.validate(tuned)}
            hints = TrainedHints(tuned.hints.cpu(), hints_folder, card)
        model = MaskedLM(task.lm.config)
        model.denoiser = cast("LlamaDenoiser", merge_adapters(task.lm.cpu().denoiser, tuned.cpu()))
        save_tuned(model, pretrained, hints, folder)
    return folder
