"""Training a masked diffusion language model (Sahoo et al. 2024; Nie et al. 2025), with the exact any-order loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.datasets.dataset import BatchPlan, Split, batch_stream, load_splits
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import (
    MaskedConfig,
    MaskedLM,
    MaskedSettings,
    Noise,
    attended,
    length_nats,
    maskable_places,
)
from dlmctl.diffusion.masked_base import masked_nats
from dlmctl.diffusion.masking import MASKINGS, max_masked_count, shares
from dlmctl.diffusion.uniform import UniformConfig, UniformLM, denoising_nats
from dlmctl.errors import DataError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.training.carried_controls import report_carried
from dlmctl.training.config import LoopConfig
from dlmctl.training.initial_masked import start_masked_from
from dlmctl.training.loop import StatelessTask
from dlmctl.training.rows import Rows, count_in_rows, length_counts, to_device
from dlmctl.training.training_text import EarlierText, save_training_text
from dlmctl.training.word_tags import WordTags, drop_tags

VALIDATION_ROWS = 1000
VALIDATION_POSITIONS = 8192


class MaskedTrainingConfig(BaseModel):
    """A configuration file of ``dlmctl train lm`` with ``model.family: masked``."""

    model_config = ConfigDict(extra="forbid")

    model: MaskedSettings = Field(description="sizes and method of the model")
    init: str | None = Field(
        default=None,
        description="a masked or uniform model to start from, of the same sizes or with fewer blocks",
    )
    tags: str | None = Field(
        default=None,
        description="field of the data with a label for each word, such as upos, as an input of the model",
    )
    tagged: float = Field(
        default=0.3, ge=0, le=1, description="share of rows shown with labels of their words in training"
    )
    loop: LoopConfig


class MaskedBatch(NamedTuple):
    """Token ids of texts ``[B, L]``, and the tags of the words ``[B, L]`` if the model takes tags.

    Two facts are kept on the CPU, so that nothing waits for the device: the largest number of places of each row that
    can be masked, ``maskable [B]``, and whether all rows are ``full``, without PAD.
    """

    ids: Tensor
    tags: Tensor | None = None
    maskable: np.ndarray | None = None
    full: bool = False


class MaskedTask(StatelessTask):
    """A masked diffusion LM over a prepared data set, for the training loop.

    Args:
        data: folder of a prepared data set with the splits ``train`` and ``valid``, one text a row.

    Raises:
        DataError: ``data`` is not a data set, is packed in blocks, or lacks the field that ``config.tags`` names.
        ModelError: the model that ``config.init`` names does not exist or does not fit.
    """

    def __init__(self, config: MaskedTrainingConfig, data: Path) -> None:
        self.config = config
        self.train, self.valid, self.tokenizer = load_splits(data)
        refuse_blocks(self.train, self.tokenizer.start_id, data)
        self.tags: WordTags | None = None
        if config.tags is not None:
            self.tags = WordTags({"train": self.train, "valid": self.valid}, config.tags)
        torch.manual_seed(config.loop.seed)
        sizes: dict[str, Any] = {
            **dict(config.model),
            "vocab_size": len(self.tokenizer),
            "sentence_lengths": length_counts(self.train),
            "tags": [] if self.tags is None else self.tags.names,
        }
        if config.model.family == "uniform":
            tokenizer = self.tokenizer
            special = [tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id]
            self.model: MaskedLM = UniformLM(UniformConfig(**sizes, special=special))
        else:
            self.model = MaskedLM(MaskedConfig(**sizes))
        self.source: Pretrained | None = None
        self.earlier: EarlierText | None = None
        if config.init is not None:
            self.source = from_pretrained(config.init)
            self.earlier = EarlierText.of(self.source.folder)
            start_masked_from(self.model, self.tokenizer, self.source)

    def batches(self, skip: int, rank: int, world: int) -> Iterator[MaskedBatch]:
        loop, settings = self.config.loop, self.config.model
        # PAD after a text teaches something only if the model chooses the length.
        full_share = loop.full_share if settings.lengths == "model" else 0.0
        plan = BatchPlan(loop.batch_positions, settings.length, loop.bucket, full_share, loop.seed)
        batch_of = self._batches("train", self.train)
        for rows, width in batch_stream(self.train, plan, skip=skip, rank=rank, world=world):
            yield batch_of(rows, width)

    def _batches(self, name: str, split: Split) -> Callable[[np.ndarray, int], MaskedBatch]:
        """The function that makes a batch of rows of a split."""
        device, settings = next(self.model.parameters()).device, self.config.model
        texts = Rows(split, self.tokenizer.pad_id, device)
        tags = None if self.tags is None else Rows(self.tags.rows[name], 0, device)
        unknown = count_in_rows(split, self.tokenizer.unk_id)

        def batch_of(rows: np.ndarray, width: int) -> MaskedBatch:
            lengths = split.offsets[rows + 1] - split.offsets[rows]
            maskable = (lengths - SPECIAL if settings.lengths == "data" else width - 1) - unknown[rows]
            row_tags = None if tags is None else tags.batch(rows, width)
            return MaskedBatch(texts.batch(rows, width), row_tags, maskable, bool((lengths == width).all()))

        return batch_of

    def loss(self, model: nn.Module, batch: MaskedBatch) -> tuple[Tensor, int]:
        """The bound in nats a masked place, with one number of masked words for each row."""
        network, ids, objective = cast("MaskedLM", model), batch.ids, self.config.model.objective
        tags = None if batch.tags is None else drop_tags(batch.tags, self.config.tagged)
        places = maskable_places(ids, self.tokenizer, self.config.model.lengths)
        noise = Noise.drawn(ids)
        share = shares(len(ids), noise.offset)
        mask, device_share = self._attention_mask(batch), to_device(share, ids.device)
        if isinstance(network, UniformLM):
            nats = denoising_nats(network, ids, places, device_share, noise.order, attention_mask=mask, aligned=tags)
        else:
            max_masked = None if batch.maskable is None else max_masked_count(batch.maskable, share.numpy(), objective)
            masked, weights = MASKINGS[objective](places, device_share, noise.order)
            nats = masked_nats(network, ids, masked, weights, most=max_masked, attention_mask=mask, aligned=tags)
        return nats.sum() / places.sum().clamp(min=1), ids.numel()

    def _attention_mask(self, batch: MaskedBatch) -> Tensor | None:
        """The attention mask ``[B, L]``, None if the texts fill their rows: attention is faster without one."""
        return None if batch.full else attended(batch.ids, self.tokenizer, self.config.model.lengths)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The bound in nats a word on the same rows with the same noise every time.

        Returns:
            ``nats``: given the lengths of the texts, or with them if the model chooses lengths; ``nats_with_length``:
            with the nats of the lengths, if every length was seen in training; ``nats_tagged``: given all tags, too.
        """
        chosen = self.valid.spread(VALIDATION_ROWS)
        figures = {"nats": self._bound(model, chosen, tagged=False)}
        if self.config.model.lengths == "data":
            word_counts = torch.from_numpy(self.valid.lengths[chosen] - SPECIAL)
            length = float(length_nats(self.model.config, word_counts).sum()) / int(word_counts.sum())
            if math.isfinite(length):
                figures["nats_with_length"] = figures["nats"] + length
        if self.tags is not None:
            figures["nats_tagged"] = self._bound(model, chosen, tagged=True)
        return figures

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["nats"]

    def _bound(self, model: nn.Module, chosen: np.ndarray, *, tagged: bool) -> float:
        """The bound of the ``chosen`` validation rows in nats a word."""
        network, device = cast("MaskedLM", model), next(model.parameters()).device
        settings, generator = self.config.model, torch.Generator(device).manual_seed(0)
        bucket = 1 if settings.lengths == "data" else self.config.loop.bucket
        plan = BatchPlan(VALIDATION_POSITIONS, settings.length, bucket, full_share=0.0)
        nats = word_count = 0.0
        batch_of = self._batches("valid", self.valid)
        for at, width in plan.epoch(self.valid.lengths[chosen], 0):
            batch = batch_of(chosen[at], width)
            ids, mask, tags = batch.ids, self._attention_mask(batch), batch.tags if tagged else None
            places = maskable_places(ids, self.tokenizer, settings.lengths)
            noise = Noise.drawn(ids, generator)
            share = shares(len(ids), noise.offset)
            row_nats = network.bound_nats(ids, places, share, noise.order, attention_mask=mask, aligned=tags)
            nats += row_nats.sum().item()
            word_count += maskable_places(ids, self.tokenizer).sum().item()
        return nats / max(1, word_count)

    def samples(self, model: nn.Module) -> list[str]:
        """Three texts at the default settings, with the same noise every time."""
        pretrained = Pretrained(cast("MaskedLM", model), self.tokenizer, Path())
        result = generate(model=pretrained, samples=3, sampler=SamplerSettings(), device="auto")
        return [sample.text for sample in result]

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a trained model with its tokeniser, the facts of its training text, and the controls of ``init``."""
        trained = cast("MaskedLM", model)
        save_pretrained(trained, self.tokenizer, folder)
        save_training_text(self.train, self.tokenizer, folder, self.earlier)
        if self.source is not None:
            report_carried(self.source, Pretrained(trained, self.tokenizer, folder), str(self.config.init))


def refuse_blocks(split: Split, start_id: int, data: Path) -> None:
    """Refuse a data set with rows that do not begin with START.

    Raises:
        DataError: a row does not.
    """
    starts = split.offsets[:-1]
    if len(starts) and bool((split.ids[starts] != start_id).any()):
        message = "is packed in blocks, and a masked model is trained on one text a row."
        raise DataError(message, where=str(data), remedy="Prepare it with --packing pad.")
