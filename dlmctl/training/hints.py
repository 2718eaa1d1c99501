"""Training what tells a frozen masked model what is wanted of each place of a text (``models.hints``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.hints import Ask, fill
from dlmctl.control.labels import LabelledText, Labels
from dlmctl.datasets.dataset import BatchPlan, Split, padded, stream
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM, Noise, attended, counted_nats, word_places
from dlmctl.diffusion.masking import shares
from dlmctl.errors import DataError
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import StatelessTask, fit

# Rarer features are accidents of the judge that nobody asks for; and most that a place has.
MIN_COUNT, MOST_FEATURES = 10, 24
# Of so many examples one is kept for validation.
EVERY = 50


class Asked(NamedTuple):
    """Examples: rows of word ids, and what each can be asked.

    Attributes:
        features: of each way of asking the numbers of what is wanted of every position of all rows ``[N, F]``.
        tags: likewise the labels of the words ``[N]``, 0 where none is told.
    """

    rows: Split
    features: list[NDArray[np.uint16]]
    tags: list[NDArray[np.uint8]]


class Told(NamedTuple):
    """Trained hints: their shape, their weights, and figures of held-out examples."""

    shape: HintsConfig
    state: Mapping[str, Tensor]
    figures: dict[str, float]


class HintBatch(NamedTuple):
    """Word ids ``[B, L]``, what is wanted of their places ``[B, L, F]``, and their labels ``[B, L]``."""

    ids: Tensor
    features: Tensor
    tags: Tensor | None


def known_features(asks: Sequence[Sequence[Ask]]) -> list[str]:
    """The features that occur often enough to be learned, the most frequent first.

    Raises:
        DataError: there are none.
    """
    places = chain.from_iterable(ask.features for row in asks for ask in row)
    counts = Counter(chain.from_iterable(places))
    found = [name for name, count in counts.most_common() if count >= MIN_COUNT]
    if not found:
        raise DataError(f"no text has anything to be told of, {MIN_COUNT} times at least.")
    return found


def asked_of(
    ids: Sequence[NDArray[np.int64]], asks: Sequence[Sequence[Ask]], names: Sequence[str], tags: Sequence[str]
) -> Asked:
    """Rows of word ids with what each is asked; every row has as many asks as any."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    number = {name: at for at, name in enumerate(names, start=1)}
    label = {name: at for at, name in enumerate(tags, start=1)}
    features, labels = [], []
    for way in range(len(asks[0])):
        most = min(MOST_FEATURES, max(len(place) for row in asks for place in row[way].features))
        told = np.zeros((offsets[-1], most), np.uint16)
        given = np.zeros(offsets[-1], np.uint8)
        for start, end, row in zip(offsets, offsets[1:], asks, strict=False):
            fill(told[start + 1 : end - 1], row[way].features[: end - start - SPECIAL], number)
            found = [label.get(name, 0) for name in row[way].tags[: end - start - SPECIAL]]
            given[start + 1 : start + 1 + len(found)] = found
        features.append(told)
        labels.append(given)
    return Asked(Split(np.concatenate(ids), offsets), features, labels)


class HintTask(StatelessTask):
    """Hints for a frozen masked model, for the training loop.

    Args:
        train, valid: examples, with at least one way of asking.
    """

    def __init__(
        self, config: LoopConfig, shape: HintsConfig, pretrained: Pretrained, train: Asked, valid: Asked
    ) -> None:
        self.config, self.train, self.valid = config, train, valid
        self.lm = cast("MaskedLM", pretrained.model).eval().requires_grad_(False)
        self.tokenizer = pretrained.tokenizer
        torch.manual_seed(config.seed)
        self.model = Hints(shape, self.lm.config.denoiser)

    def batches(self, skip: int, rank: int, world: int) -> Iterator[HintBatch]:
        plan = BatchPlan(self.config.batch_positions, self.lm.config.length, self.config.bucket, 0.0, self.config.seed)
        random = np.random.default_rng((self.config.seed, skip, rank))
        for rows, width in stream(self.train.rows, plan, skip=skip, rank=rank, world=world):
            ids = padded(self.train.rows, rows, width, self.tokenizer.pad_id)
            yield self._batch(self.train, ids, rows, random.integers(len(self.train.features), size=len(rows)))

    def _batch(self, asked: Asked, ids: np.ndarray, rows: np.ndarray, ways: np.ndarray) -> HintBatch:
        widest = max(found.shape[1] for found in asked.features)
        features = np.zeros((*ids.shape, widest), np.int64)
        tags = np.zeros(ids.shape, np.int64)
        starts, ends = asked.rows.offsets[rows], asked.rows.offsets[rows + 1]
        at = starts[:, None] + np.arange(ids.shape[1])
        inside = at < ends[:, None]
        for way, (told, given) in enumerate(zip(asked.features, asked.tags, strict=True)):
            here = inside & (ways == way)[:, None]
            features[here, : told.shape[1]] = told[at[here]]
            tags[here] = given[at[here]]
        labels = torch.from_numpy(tags) if self.lm.config.tags and tags.any() else None
        return HintBatch(torch.from_numpy(ids), torch.from_numpy(features), labels)

    def loss(self, model: nn.Module, batch: HintBatch) -> tuple[Tensor, int]:
        """The bound of the frozen model in nats a masked place, with what it is told."""
        noise = Noise.drawn(batch.ids)
        nats, places = self._nats(model, batch, noise)
        return nats.sum() / places.clamp(min=1), batch.ids.numel()

    def _nats(self, model: nn.Module, batch: HintBatch, noise: Noise) -> tuple[Tensor, Tensor]:
        device = next(model.parameters()).device
        self.lm.to(device)
        ids, features = batch.ids.to(device), batch.features.to(device)
        mask = attended(ids, self.tokenizer)
        tags = None if batch.tags is None else batch.tags.to(device)
        places = word_places(ids, self.tokenizer)
        share, order = shares(len(ids), noise.offset.to(device)), noise.order.to(device)
        hints = model(features, mask)
        nats = counted_nats(self.lm, ids, places, share, order, attention_mask=mask, aligned=tags, hints=hints)
        return nats, places.sum()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The bound in nats a word on the held-out examples: ``nats`` over all ways of asking, and of each."""
        plan = BatchPlan(self.config.batch_positions, self.lm.config.length, self.config.bucket, 0.0)
        figures: dict[str, float] = {}
        for way in range(len(self.valid.features)):
            total, words = 0.0, 0
            generator = torch.Generator().manual_seed(0)
            for rows, width in plan.epoch(self.valid.rows.lengths, 0):
                ids = padded(self.valid.rows, rows, width, self.tokenizer.pad_id)
                batch = self._batch(self.valid, ids, rows, np.full(len(rows), way))
                nats, places = self._nats(model, batch, Noise.drawn(batch.ids, generator))
                total, words = total + float(nats.sum()), words + int(places)
            figures[f"nats_{way}"] = total / max(1, words)
        return {"nats": sum(figures.values()) / len(figures), **figures}

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["nats"]


class HintRun(NamedTuple):
    """How hints are trained: settings of the loop, the folder of the run, and whether an earlier one goes on."""

    loop: LoopConfig
    out: Path
    resume: bool = False


def train_hints(labels: Labels, pretrained: Pretrained, text: LabelledText, run: HintRun) -> Told | None:
    """Learn to tell a masked model what a control asks, from text that has examples of it; None where it asks nothing.

    Args:
        labels: of the control, which say what each sentence can be asked.

    Raises:
        DataError: the text has examples of nothing often enough.
        UserError: as ``training.loop.fit``.
    """
    if cast("MaskedLM", pretrained.model).family != "masked":
        return None
    asks = labels.asks(text)
    chosen = [at for at, found in enumerate(asks) if found]
    if not chosen:
        return None
    asks = [asks[at] for at in chosen]
    names = known_features(asks)
    shape = HintsConfig(features=names, **labels.hints)
    ids = pretrained.tokenizer.encode
    tags, parts = cast("MaskedLM", pretrained.model).config.tags, []
    # Spread over the rows, which may be sorted by their labels.
    for held_out in (False, True):
        part = [number for number in range(len(chosen)) if (number % EVERY == 0) is held_out]
        encoded = [np.array(ids(text.sentences[chosen[number]]), np.int64) for number in part]
        parts.append(asked_of(encoded, [asks[number] for number in part], names, tags))
    task = HintTask(run.loop, shape, pretrained, *parts)
    identity = {"loop": run.loop.model_dump(), "hints": shape.model_dump(), "rows": len(chosen)}
    network = fit(task, run.loop, run.out, identity=identity, resume=run.resume)
    return Told(shape, network.state_dict(), task.validate(network))
