"""Training what tells a frozen masked model what is wanted of each place of a text (``models.hints``)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.hints import Ask, fill
from dlmctl.control.labels import LabelledText, Labels
from dlmctl.datasets.dataset import BatchPlan, Split, stream
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM, Noise, attended, word_places
from dlmctl.diffusion.masked_base import Predictor, Read, masked_nats
from dlmctl.diffusion.masking import mask_by_count, most_masked, shares
from dlmctl.errors import DataError
from dlmctl.generation.identity import weights_digest
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, count_in_rows, sent
from dlmctl.training.state import digest

# Rarer features are accidents of the judge that nobody asks for; and most that a place has.
MIN_COUNT, MOST_FEATURES = 10, 24
# Of so many examples one is kept for validation.
EVERY = 50


class Examples(NamedTuple):
    """Examples: rows of word ids, and what each can be asked.

    Attributes:
        ways: how many ways of asking there are. Row r asked in way w is row w x len(rows) + r of the following.
        features: for every position the numbers of what is wanted of it, ``width`` of them; 0 for nothing.
        tags: the labels of the words, 0 where none is told.
    """

    rows: Split
    ways: int
    width: int
    features: Split
    tags: Split


class Told(NamedTuple):
    """Trained hints: their shape, their weights, and figures of held-out examples."""

    shape: HintsConfig
    state: Mapping[str, Tensor]
    figures: dict[str, float]


class HintBatch(NamedTuple):
    """Word ids ``[B, L]``, what is wanted of their places ``[B, L, F]`` and their labels ``[B, L]``.

    What is known of them without asking the device: how many places of each row can be masked, ``words [B]``, and
    whether all rows are ``full``, without PAD.
    """

    ids: Tensor
    features: Tensor
    tags: Tensor | None
    words: np.ndarray
    full: bool


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


def pattern_requirement(
    ids: Sequence[NDArray[np.int64]], asks: Sequence[Sequence[Ask]], names: Sequence[str], tags: Sequence[str]
) -> Examples:
    """Rows of word ids with what each is asked; every row has as many asks as any."""
    ways = len(asks[0])
    offsets = np.cumsum([0, *[len(row) for row in ids] * ways])
    number = {name: at for at, name in enumerate(names, start=1)}
    label = {name: at for at, name in enumerate(tags, start=1)}
    width = min(MOST_FEATURES, max(len(place) for row in asks for ask in row for place in ask.features))
    features, labels = np.zeros((offsets[-1], width), np.uint16), np.zeros(offsets[-1], np.uint8)
    asked = (row[way] for way in range(ways) for row in asks)
    for (start, end), ask in zip(pairwise(offsets), asked, strict=True):
        fill(features[start + 1 : end - 1], ask.features[: end - start - SPECIAL], number)
        found = [label.get(name, 0) for name in ask.tags[: end - start - SPECIAL]]
        labels[start + 1 : start + 1 + len(found)] = found
    rows = Split(np.concatenate(ids), offsets[: len(ids) + 1])
    return Examples(rows, ways, width, Split(features.reshape(-1), offsets * width), Split(labels, offsets))


BatchOf = Callable[[np.ndarray, np.ndarray, int], HintBatch]
"""The batch of some rows, by their numbers, the way that each is asked in, and the width."""


def batches_of(asked: Examples, lm: MaskedLM, tokenizer: Tokenizer, device: torch.device) -> BatchOf:
    """What makes the batch of some rows, each asked in a way of its own."""
    texts = Rows(asked.rows, tokenizer.pad_id, device)
    features, tags = Rows(asked.features, 0, device), Rows(asked.tags, 0, device)
    told = np.logical_or.reduceat(asked.tags.ids > 0, asked.tags.offsets[:-1])
    words = asked.rows.lengths - SPECIAL - count_in_rows(asked.rows, tokenizer.unk_id)

    def batch_of(rows: np.ndarray, ways: np.ndarray, width: int) -> HintBatch:
        asks = ways * len(asked.rows) + rows
        wanted = features.of(asks, width * asked.width).view(len(rows), width, asked.width)
        labels = tags.of(asks, width) if lm.config.tags and told[asks].any() else None
        full = bool((asked.rows.lengths[rows] == width).all())
        return HintBatch(texts.of(rows, width), wanted, labels, words[rows], full)

    return batch_of


def asked_batches(
    asked: Examples, batch_of: BatchOf, plan: BatchPlan, *, skip: int, rank: int, world: int
) -> Iterator[tuple[np.ndarray, HintBatch]]:
    """An endless stream of batches, each row asked in a way that is drawn, and the numbers of their rows."""
    for number, (rows, width) in enumerate(stream(asked.rows, plan, skip=skip, rank=rank, world=world), start=skip):
        # A generator of its own for each batch, so that a resumed run draws as one that went through.
        random = np.random.default_rng((plan.seed, number, rank))
        yield rows, batch_of(rows, random.integers(asked.ways, size=len(rows)), width)


def told_nats(
    lm: Predictor,
    hints: nn.Module | None,
    batch: HintBatch,
    tokenizer: Tokenizer,
    noise: Noise,
    *,
    given: Tensor | None = None,
    most_weight: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """The bound of each row ``[B]`` in nats with what it is told, and how many words it is over.

    Args:
        given: places ``[B, L]`` that are not masked.
        most_weight: no masked word counts more; below the number of words it is no bound.
    """
    ids, places = batch.ids, word_places(batch.ids, tokenizer)
    mask = None if batch.full else attended(ids, tokenizer)
    share, most = shares(len(ids), noise.offset), None
    if given is not None:
        places = places & ~given
    elif share.device.type == "cpu":
        most = most_masked(batch.words, share.numpy(), "count")
    masked, weights = mask_by_count(places, sent(share, ids.device), noise.order)
    told = None if hints is None else hints(batch.features, mask)
    read: Read = {"attention_mask": mask, "aligned": batch.tags, "hints": told}
    return masked_nats(lm, ids, masked, weights.clamp(max=most_weight), most=most, **read), places.sum()


def mean_bound(
    asked: Examples,
    way: int,
    batch_of: BatchOf,
    plan: BatchPlan,
    device: torch.device,
    nats_of: Callable[[HintBatch, Noise], tuple[Tensor, Tensor]],
) -> float:
    """The bound of examples asked in one way, in nats a word, with the same noise every time.

    Args:
        nats_of: as ``told_nats``.
    """
    generator, total, words = torch.Generator(device).manual_seed(0), 0.0, 0
    for rows, width in plan.epoch(asked.rows.lengths, 0):
        batch = batch_of(rows, np.full(len(rows), way), width)
        nats, places = nats_of(batch, Noise.drawn(batch.ids, generator))
        total, words = total + float(nats.sum()), words + int(places)
    return total / max(1, words)


class HintTask(StatelessTask):
    """Hints for a frozen masked model, for the training loop.

    Args:
        train, valid: examples, with at least one way of asking.
    """

    def __init__(
        self, config: LoopConfig, shape: HintsConfig, pretrained: Pretrained, train: Examples, valid: Examples
    ) -> None:
        self.config, self.train, self.valid = config, train, valid
        self.lm = cast("MaskedLM", pretrained.model).eval().requires_grad_(False)
        self.tokenizer = pretrained.tokenizer
        torch.manual_seed(config.seed)
        self.model = Hints(shape, self.lm.config.denoiser)

    def batches(self, skip: int, rank: int, world: int) -> Iterator[HintBatch]:
        plan = BatchPlan(self.config.batch_positions, self.lm.config.length, self.config.bucket, 0.0, self.config.seed)
        batch_of = batches_of(self.train, self.lm, self.tokenizer, next(self.model.parameters()).device)
        parts = {"skip": skip, "rank": rank, "world": world}
        return (batch for _, batch in asked_batches(self.train, batch_of, plan, **parts))

    def loss(self, model: nn.Module, batch: HintBatch) -> tuple[Tensor, int]:
        """The bound of the frozen model in nats a masked place, with what it is told."""
        self.lm.to(batch.ids.device)
        nats, places = told_nats(self.lm, model, batch, self.tokenizer, Noise.drawn(batch.ids))
        return nats.sum() / places.clamp(min=1), batch.ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The bound in nats a word on the held-out examples: ``nats`` over all ways of asking, and of each."""
        plan = BatchPlan(self.config.batch_positions, self.lm.config.length, self.config.bucket, 0.0)
        device = next(model.parameters()).device
        batch_of = batches_of(self.valid, self.lm.to(device), self.tokenizer, device)

        def nats_of(batch: HintBatch, noise: Noise) -> tuple[Tensor, Tensor]:
            return told_nats(self.lm, model, batch, self.tokenizer, noise)

        ways = range(self.valid.ways)
        figures = {f"nats_{way}": mean_bound(self.valid, way, batch_of, plan, device, nats_of) for way in ways}
        return {"nats": sum(figures.values()) / len(figures), **figures}

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["nats"]


class HintRun(NamedTuple):
    """How hints are trained: settings of the loop, the folder of the run, and whether an earlier one goes on.

    Attributes:
        asked: what was asked for, by which a run is known again beside its model and data, as JSON values.
    """

    loop: LoopConfig
    out: Path
    resume: bool
    asked: Mapping[str, str | None]


def train_hints(labels: Labels, pretrained: Pretrained, text: LabelledText, run: HintRun, data: Path) -> Told | None:
    """Learn to tell a masked model what a control asks, from text that has examples of it; None where it asks nothing.

    Args:
        labels: of the control, which say what each sentence can be asked.
        text: of the training split of ``data``, a prepared data set.

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
        parts.append(pattern_requirement(encoded, [asks[number] for number in part], names, tags))
    task = HintTask(run.loop, shape, pretrained, *parts)
    # Two networks of one shape learn other hints, and so do other labels of the same texts.
    own = {"weights of the model": weights_digest(pretrained), **run.asked, **digest(data)}
    identity = {"loop": run.loop.model_dump(), "hints": shape.model_dump(), "rows": len(chosen), **own}
    network = fit(task, run.loop, run.out, identity=identity, resume=run.resume)
    return Told(shape, network.state_dict(), task.validate(network))
