"""Training hints: an encoder that tells a frozen masked model what is wanted at each place (``models.hints``)."""

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
from dlmctl.control.classifier import takes_hints
from dlmctl.control.hints import HintRequest, fill
from dlmctl.control.labels import LabelledText, Labels
from dlmctl.datasets.dataset import BatchPlan, Split, batch_stream
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM, Noise, attended, maskable_places
from dlmctl.diffusion.masked_base import NetworkInputs, Predictor, masked_nats
from dlmctl.diffusion.masking import mask_by_count, max_masked_count, shares
from dlmctl.errors import DataError
from dlmctl.generation.identity import weights_digest
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, count_in_rows, to_device
from dlmctl.training.state import digest

# Rarer features are accidents of the judge that nobody requests. The second is the most features of one place.
MIN_COUNT, MAX_FEATURES = 10, 24
# One in this many examples is held out for validation.
HOLD_OUT_EVERY = 50


class Examples(NamedTuple):
    """Rows of token ids, and the requests that each is an example of.

    Attributes:
        variants: number of requests of each row. Request v of row r is row v x len(rows) + r of the following.
        features: for every position ``width`` feature ids, filled up with 0.
        tags: the tag ids of the words, 0 for none.
    """

    rows: Split
    variants: int
    width: int
    features: Split
    tags: Split


class HintResult(NamedTuple):
    """Trained hints: their shape, their weights, and validation figures."""

    shape: HintsConfig
    state: Mapping[str, Tensor]
    figures: dict[str, float]


class HintBatch(NamedTuple):
    """Token ids ``[B, L]``, the features wanted at their places ``[B, L, F]`` and the tags of the words ``[B, L]``.

    Two facts are kept on the CPU, so that nothing waits for the device: the number of places of each row that can be
    masked, ``maskable [B]``, and whether all rows are ``full``, without PAD.
    """

    ids: Tensor
    features: Tensor
    tags: Tensor | None
    maskable: np.ndarray
    full: bool


def frequent_features(requests: Sequence[Sequence[HintRequest]]) -> list[str]:
    """The features that occur often enough to be learned, the most frequent first.

    Raises:
        DataError: there are none.
    """
    places = chain.from_iterable(request.features for row in requests for request in row)
    counts = Counter(chain.from_iterable(places))
    features = [name for name, count in counts.most_common() if count >= MIN_COUNT]
    if not features:
        raise DataError(f"nothing to train hints on: no feature occurs at least {MIN_COUNT} times.")
    return features


def encode_examples(
    ids: Sequence[NDArray[np.int64]],
    requests: Sequence[Sequence[HintRequest]],
    feature_names: Sequence[str],
    tag_names: Sequence[str],
) -> Examples:
    """Encode rows of token ids and their requests; every row has the same number of requests."""
    variants = len(requests[0])
    offsets = np.cumsum([0, *[len(row) for row in ids] * variants])
    feature_ids = {name: number for number, name in enumerate(feature_names, start=1)}
    tag_ids = {name: number for number, name in enumerate(tag_names, start=1)}
    width = min(MAX_FEATURES, max(len(place) for row in requests for request in row for place in request.features))
    features, tags = np.zeros((offsets[-1], width), np.uint16), np.zeros(offsets[-1], np.uint8)
    by_variant = (row[variant] for variant in range(variants) for row in requests)
    for (start, end), request in zip(pairwise(offsets), by_variant, strict=True):
        fill(features[start + 1 : end - 1], request.features[: end - start - SPECIAL], feature_ids)
        row_tags = [tag_ids.get(name, 0) for name in request.tags[: end - start - SPECIAL]]
        tags[start + 1 : start + 1 + len(row_tags)] = row_tags
    rows = Split(np.concatenate(ids), offsets[: len(ids) + 1])
    return Examples(rows, variants, width, Split(features.reshape(-1), offsets * width), Split(tags, offsets))


MakeBatch = Callable[[np.ndarray, np.ndarray, int], HintBatch]
"""Make a batch from the numbers of its rows, the variant of each, and the width."""


def batch_maker(examples: Examples, lm: MaskedLM, tokenizer: Tokenizer, device: torch.device) -> MakeBatch:
    """The function that makes batches of examples, each row with a variant of its own."""
    texts = Rows(examples.rows, tokenizer.pad_id, device)
    features, tags = Rows(examples.features, 0, device), Rows(examples.tags, 0, device)
    has_tags = np.logical_or.reduceat(examples.tags.ids > 0, examples.tags.offsets[:-1])
    maskable = examples.rows.lengths - SPECIAL - count_in_rows(examples.rows, tokenizer.unk_id)

    def make_batch(rows: np.ndarray, variants: np.ndarray, width: int) -> HintBatch:
        requests = variants * len(examples.rows) + rows
        row_features = features.batch(requests, width * examples.width).view(len(rows), width, examples.width)
        row_tags = tags.batch(requests, width) if lm.config.tags and has_tags[requests].any() else None
        full = bool((examples.rows.lengths[rows] == width).all())
        return HintBatch(texts.batch(rows, width), row_features, row_tags, maskable[rows], full)

    return make_batch


def stream_batches(
    examples: Examples, make_batch: MakeBatch, plan: BatchPlan, *, skip: int, rank: int, world: int
) -> Iterator[tuple[np.ndarray, HintBatch]]:
    """An endless stream of row numbers and their batches, with a random variant of each row."""
    for number, (rows, width) in enumerate(
        batch_stream(examples.rows, plan, skip=skip, rank=rank, world=world), start=skip
    ):
        # One generator per batch, so that a resumed run draws the same as an uninterrupted one.
        random = np.random.default_rng((plan.seed, number, rank))
        yield rows, make_batch(rows, random.integers(examples.variants, size=len(rows)), width)


def hinted_nats(
    lm: Predictor,
    hints: nn.Module | None,
    batch: HintBatch,
    tokenizer: Tokenizer,
    noise: Noise,
    *,
    is_given: Tensor | None = None,
    max_weight: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """The bound of each row ``[B]`` in nats under its hints, and the number of words in all rows.

    Args:
        is_given: places ``[B, L]`` that are never masked.
        max_weight: of one masked word; below the number of words the result is no bound.
    """
    ids, places = batch.ids, maskable_places(batch.ids, tokenizer)
    mask = None if batch.full else attended(ids, tokenizer)
    share, max_masked = shares(len(ids), noise.offset), None
    if is_given is not None:
        places = places & ~is_given
    elif share.device.type == "cpu":
        max_masked = max_masked_count(batch.maskable, share.numpy(), "count")
    masked, weights = mask_by_count(places, to_device(share, ids.device), noise.order)
    hint_states = None if hints is None else hints(batch.features, mask)
    inputs: NetworkInputs = {"attention_mask": mask, "aligned": batch.tags, "hints": hint_states}
    return masked_nats(lm, ids, masked, weights.clamp(max=max_weight), most=max_masked, **inputs), places.sum()


def mean_bound(
    examples: Examples,
    variant: int,
    make_batch: MakeBatch,
    plan: BatchPlan,
    device: torch.device,
    nats_of: Callable[[HintBatch, Noise], tuple[Tensor, Tensor]],
) -> float:
    """The bound of one variant of the examples, in nats a word, with the same noise every time.

    Args:
        nats_of: as ``hinted_nats``.
    """
    generator, total, word_count = torch.Generator(device).manual_seed(0), 0.0, 0
    for rows, width in plan.epoch(examples.rows.lengths, 0):
        batch = make_batch(rows, np.full(len(rows), variant), width)
        nats, words = nats_of(batch, Noise.drawn(batch.ids, generator))
        total, word_count = total + float(nats.sum()), word_count + int(words)
    return total / max(1, word_count)


class HintTask(StatelessTask):
    """Hints for a frozen masked model, for the training loop.

    Args:
        train, valid: examples, with at least one variant.
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
        make_batch = batch_maker(self.train, self.lm, self.tokenizer, next(self.model.parameters()).device)
        position = {"skip": skip, "rank": rank, "world": world}
        return (batch for _, batch in stream_batches(self.train, make_batch, plan, **position))

    def loss(self, model: nn.Module, batch: HintBatch) -> tuple[Tensor, int]:
        """The bound of the frozen model under the hints, in nats a word."""
        self.lm.to(batch.ids.device)
        nats, words = hinted_nats(self.lm, model, batch, self.tokenizer, Noise.drawn(batch.ids))
        return nats.sum() / words.clamp(min=1), batch.ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The bound in nats a word on the held-out examples: ``nats``, the mean over variants, and of each variant."""
        plan = BatchPlan(self.config.batch_positions, self.lm.config.length, self.config.bucket, 0.0)
        device = next(model.parameters()).device
        make_batch = batch_maker(self.valid, self.lm.to(device), self.tokenizer, device)

        def nats_of(batch: HintBatch, noise: Noise) -> tuple[Tensor, Tensor]:
            return hinted_nats(self.lm, model, batch, self.tokenizer, noise)

        figures = {
            f"nats_{variant}": mean_bound(self.valid, variant, make_batch, plan, device, nats_of)
            for variant in range(self.valid.variants)
        }
        return {"nats": sum(figures.values()) / len(figures), **figures}

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["nats"]


class HintRun(NamedTuple):
    """How to train hints: settings of the loop, the folder of the run, and whether to resume it.

    Attributes:
        arguments: of the command, as JSON values; with the model and the data they identify the run.
    """

    loop: LoopConfig
    out: Path
    resume: bool
    arguments: Mapping[str, str | None]


def train_hints(
    labels: Labels, pretrained: Pretrained, text: LabelledText, run: HintRun, data: Path
) -> HintResult | None:
    """Train hints for a control on text with examples of its requests; None if there are no examples, or no hints.

    Args:
        labels: of the control, which list the requests that each sentence is an example of.
        text: of the training split of ``data``, a prepared data set.

    Raises:
        DataError: no feature occurs often enough in the text.
        UserError: as ``training.loop.fit``.
    """
    if not takes_hints(type(labels), pretrained):
        return None
    requests = labels.asks(text)
    chosen = [row for row, row_requests in enumerate(requests) if row_requests]
    if not chosen:
        return None
    requests = [requests[row] for row in chosen]
    names = frequent_features(requests)
    shape = HintsConfig(features=names, **labels.hints)
    encode = pretrained.tokenizer.encode
    tags, splits = cast("MaskedLM", pretrained.model).config.tags, []
    # Held-out rows are spread over all, which may be sorted by label.
    for held_out in (False, True):
        split = [number for number in range(len(chosen)) if (number % HOLD_OUT_EVERY == 0) is held_out]
        encoded = [np.array(encode(text.sentences[chosen[number]]), np.int64) for number in split]
        splits.append(encode_examples(encoded, [requests[number] for number in split], names, tags))
    task = HintTask(run.loop, shape, pretrained, *splits)
    # Hints depend on the weights of the model, not just its shape, and on the labels of the texts.
    inputs = {"weights of the model": weights_digest(pretrained), **run.arguments, **digest(data)}
    identity = {"loop": run.loop.model_dump(), "hints": shape.model_dump(), "rows": len(chosen), **inputs}
    network = fit(task, run.loop, run.out, identity=identity, resume=run.resume)
    return HintResult(shape, network.state_dict(), task.validate(network))
