"""The masked family: states are word ids, with MASK at open positions (Sahoo et al. 2024; Nie et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.diffusion.blocks import BlockStep
from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import attended
from dlmctl.diffusion.masked_base import Context, MaskedModel, NetworkInputs, Scores, Window
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.walks import (
    StepNoise,
    Stride,
    Walk,
    WalkSettings,
    drawn,
    is_unlikely,
    log_probabilities,
    log_ratios,
    relative,
    remasking,
    word_weights,
)
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.prefix import Prefix
from dlmctl.text.tokenizer import Tokenizer

# Scores that each CPU thread processes at a time: as many as fit its cache, so that only the first pass is slow.
PIECE_CPU: int | None = 2**18


def processes_in_chunks(device: torch.device) -> bool:
    """Whether a walk processes only the open places, a few at a time: not on a GPU, where finding them would wait."""
    return PIECE_CPU is not None and device.type == "cpu"


class AttentionBlocks(NamedTuple):
    """The blocks of a model's attention.

    Attributes:
        size: positions per block.
        before: positions before START, or before the last token of the prompt, up to multiples of ``size``.
    """

    size: int
    before: int


class Absorbing:
    """A ``Family`` whose states are word ids ``[B, L]``: START, END and PAD are fixed, the words start as MASK.

    If the number of words is not settled, every position after START is open, and END is a token like any other.

    Args:
        walk: the sampler.
        schedule: its steps.
        tags: a label for each position ``[B, L]``, 0 for none; for models that take labels.
        context: a prompt before each row; for models that take one.
        given: ids ``[B, L]`` of words that are fixed from the start, -1 at open positions.
        hints: added to the input of each block of the network, ``[layers, B, L, H]``.
        draw: narrows logits down to a drawn text that satisfies the exact constraints (``Prepared.draw``); given if a
            step may write several words of a text, which are then words of such a text.
        stops: ids of the tokens that end a text, if the model writes them: what follows them need not be written.
        blocks: for models that attend by blocks.
        looks_ahead: whether these need the scores of later blocks, too.

    Attributes:
        log_p: log p of the words written so far ``[B, L]``, each at the step that wrote it; None if unknown.
    """

    def __init__(
        self,
        model: MaskedModel,
        vocabulary: Tokenizer,
        walk: Walk,
        settings: WalkSettings,
        schedule: Sequence[BlockStep],
        tags: Tensor | None = None,
        context: Context | None = None,
        given: Tensor | None = None,
        hints: Tensor | None = None,
        draw: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        stops: Tensor | None = None,
        blocks: AttentionBlocks | None = None,
        *,
        looks_ahead: bool = True,
    ) -> None:
        self.model, self.vocabulary, self.walk, self.settings = model, vocabulary, walk, settings
        self.draw, self.stops = draw, stops
        self.schedule, self.tags, self.context, self.given = schedule, tags, context, given
        self.hints, self.taken_steps = hints, 0
        self.blocks, self.looks_ahead, self.prefix = blocks, looks_ahead, Prefix()
        self.window: Window | None = None
        self.log_p: Tensor | None = None
        self.free: Tensor | None = None
        # The free places of the block that was written last, and its ends.
        self.block_free: tuple[tuple[int, int], Tensor] | None = None
        self.attended: Tensor | None = None

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        vocabulary, device = self.vocabulary, layouts.words.device
        place = torch.arange(layouts.length, device=device)
        word_counts = layouts.words[:, None]
        settled = word_counts >= 0
        self.free = (place > 0) & (place <= torch.where(settled, word_counts, layouts.positions[:, None] - 1))
        self.log_p = torch.zeros(self.free.shape, device=device)
        x = torch.full(self.free.shape, vocabulary.pad_id, device=device)
        x = x.masked_fill(self.free, self.model.mask_id).masked_fill(place == 0, vocabulary.start_id)
        x = x.masked_fill(settled & (place == word_counts + 1), vocabulary.end_id)
        mask = attended(x, vocabulary) if self.model.hides_padding else None
        # Attention is faster without a mask.
        self.attended = None if mask is None or bool(mask.all()) else mask
        if self.given is None:
            return x
        fixed = self.free & (self.given >= 0)
        self.free &= ~fixed
        return torch.where(fixed, self.given, x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        """As ``Family.predict``; unmasked words have probability 1 (Sahoo et al. 2024, section 3.2.3)."""
        logits = self.logits_of(x, self.scores_of(x, mask))
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def scores_of(self, x: Tensor, mask: Tensor | None) -> Scores:
        """The network's scores, before unmasked words are given probability 1."""
        attention_mask = self.attention_mask(mask)
        read = NetworkInputs(attention_mask=attention_mask, aligned=self.tags, context=self.context, hints=self.hints)
        if self.blocks is not None:
            first, end, _ = self.schedule[self.taken_steps]
            size, length = self.blocks.size, x.shape[1]
            first -= (first + self.blocks.before) % size
            end = length if self.looks_ahead else min(length, first - (first - end) // size * size)
            self.window = read["window"] = Window(first, end, self.prefix)
        return self.model.scores_of(x, **read)

    def attention_mask(self, layout_mask: Tensor | None) -> Tensor | None:
        """What the network attends to ``[B, L]``: the texts alone, or all places of their layouts; None for all."""
        return self.attended if self.model.hides_padding else layout_mask

    def logits_of(self, x: Tensor, scores: Scores) -> Tensor:
        """Logits ``[B, L, V]`` from the ``scores_of`` canvas ``x``; unmasked words have probability 1.

        So has END in blocks that are not read yet, for those who watch the text.
        """
        if self.window is not None and self.window.end < x.shape[1]:
            is_unread = torch.arange(x.shape[1], device=x.device) >= self.window.end
            x = x.masked_fill(is_unread & (x == self.model.mask_id), self.vocabulary.end_id)
        return with_fixed_words(at_least_float32(scores(None)), x, self.model.mask_id)

    def skips(self, x: Tensor, noise: SampleNoise) -> bool:
        """As ``Family.skips``: no place before the end of any text is open, in the block that would be written."""
        if self.walk is remasking or (self.stops is None and self.settings.threshold is None):
            return False
        is_open = self._free_in(self.schedule[self.taken_steps], x) & (x == self.model.mask_id)
        if bool((is_open & ~self._after_end(x)).any()):
            return False
        self._uniform(x, noise)
        self.taken_steps += 1
        return True

    def finished(self, x: Tensor) -> Tensor | None:
        """As ``Family.finished``; words that are masked again may change."""
        return None if self.walk is remasking else (x != self.model.mask_id).all(1)

    def text_nats(self, x: Tensor) -> Tensor | None:
        """-log p ``[B]`` of finished texts ``x [B, L]``, each word at the step that wrote it; None if unknown.

        What was written behind the end does not count: how much that is depends on the other texts of the batch.
        """
        # Subtracted, for a 0 that is not -0.
        return None if self.log_p is None else 0.0 - self.log_p.masked_fill(self._after_end(x), 0.0).sum(1)

    def _after_end(self, x: Tensor) -> Tensor:
        """The places ``[B, L]`` behind the first token that ends a text."""
        if self.stops is None:
            return torch.zeros_like(x, dtype=torch.bool)
        is_stop = torch.isin(x, self.stops)
        is_stop[:, 0] = False  # START, which may be the same token
        return is_stop.cumsum(1) > is_stop

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> StepResult:
        assert self.log_p is not None
        choices, states = self._uniform(x, noise)
        block_step = self.schedule[self.taken_steps]
        self.taken_steps += 1
        stride, free = block_step.stride, self._free_in(block_step, x)
        places = self._open_places(x, free) if estimate.unguided is None else None
        ratio = None
        if places is not None:
            new, written_places, log_p = self._in_pieces(x, places, estimate, free, stride, choices)
        else:
            assert estimate.logits is not None
            if states is not None:
                choices = choices._replace(text=self._text(x, estimate, choices.words, states))
            written = self.walk(x, estimate.logits, free, stride, choices, self.settings)
            new, written_places, log_p = written.canvas, written.places, log_probabilities(written, estimate.logits)
            if estimate.unguided is not None:
                # As if the words of a text that was drawn as a whole were independent; some of them may be unlikely.
                settings = self.settings if states is None else self.settings._replace(min_p=0.0)
                ratio = log_ratios(written, estimate.unguided, estimate.logits, settings)
        self.log_p = self.log_p.scatter_add(1, written_places, log_p.to(self.log_p))
        return StepResult(new, new, torch.zeros(len(x)), ratio)

    def _free_in(self, step: BlockStep, x: Tensor) -> Tensor:
        """The places ``[B, L]`` that a step may write."""
        assert self.free is not None
        block = step.first, step.end
        if self.block_free is None or self.block_free[0] != block:
            place = torch.arange(x.shape[1], device=x.device)
            self.block_free = block, self.free & (place >= step.first) & (place < step.end)
        return self.block_free[1]

    def joint_until(self, times: Tensor) -> float:
        """The time at and below which exact controls are applied to the likeliest text as a whole.

        Args:
            times: the times of the steps, descending and ending in 0.
        """
        return 0.0

    def _uniform(self, x: Tensor, noise: SampleNoise) -> tuple[StepNoise, Tensor | None]:
        """The random choices of a step, and uniform numbers ``[B, L]`` to draw a text with, if texts are drawn."""
        words, places, *states = noise.uniform(2 if self.draw is None else 3, x)
        return StepNoise(words, places), states[0] if states else None

    def _text(self, x: Tensor, estimate: Prediction, words: Tensor, states: Tensor) -> Tensor:
        """Token ids ``[B, L]`` of texts that satisfy the exact constraints, drawn as a whole.

        Words drawn independently may each be possible and exclude each other. As a whole they are drawn as if they
        were independent given the canvas and satisfied the constraints, at the temperature of the walk. ``min_p``
        excludes a word at a place by its probability there given the constraints.
        """
        assert self.draw is not None
        assert estimate.logits is not None
        assert estimate.unconstrained is not None
        settings, logits = self.settings, relative(estimate.unconstrained, self.settings)
        likely = logits.masked_fill(is_unlikely(estimate.logits, settings), -torch.inf)
        chosen, independent = self.draw(logits, likely, states), WalkSettings(settings.mask_id)
        if not processes_in_chunks(x.device):
            return drawn(word_weights(chosen, independent), words)
        is_open = x == settings.mask_id
        return x.masked_scatter(is_open, drawn(word_weights(chosen[is_open], independent), words[is_open]))

    def _open_places(self, x: Tensor, free: Tensor) -> Tensor | None:
        """The open places ``[B, M]``, followed by other places in rows that have fewer than M.

        None for all places: on a GPU, for walks that may mask written words again, and for texts drawn as a whole.
        """
        if not processes_in_chunks(x.device) or self.walk is remasking or self.draw is not None:
            return None
        is_open = free & (x == self.model.mask_id)
        most = max(1, int(is_open.sum(1).max()))
        return is_open.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]

    def _in_pieces(
        self,
        x: Tensor,
        places: Tensor,
        estimate: Prediction,
        free: Tensor,
        stride: Stride,
        noise: StepNoise,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The canvas ``[B, L]`` after a step, the places ``[B, M]`` written, and log p ``[B, M]`` of their words.

        Computed only at ``places``, for a few texts at a time.
        """
        assert PIECE_CPU is not None
        size = PIECE_CPU * torch.get_num_threads()
        rows = max(1, size // (places.shape[1] * len(self.model.embeddings)))
        canvas, steps = x.gather(1, places), list[tuple[Tensor, Tensor, Tensor]]()
        gathered = (places, canvas, *(each.gather(1, places) for each in (free, noise.words, noise.places)))
        pieces = zip(*(values.split(rows) for values in gathered), strict=True)
        for (at, before, is_free, words, order), logits in zip(pieces, estimate.parts(places, rows), strict=True):
            written = self.walk(before, logits, is_free, stride, StepNoise(words, order), self.settings)
            steps.append((written.canvas, at.gather(1, written.places), log_probabilities(written, logits)))
        new, written_places, log_p = (torch.cat(values) for values in zip(*steps, strict=True))
        return x.scatter(1, places, new), written_places, log_p

    def take(self, rows: Tensor) -> None:
        if self.log_p is not None:
            self.log_p = self.log_p.index_select(0, rows)

    def soft(self, probabilities: Tensor) -> Tensor:
        return self.model.soft(probabilities)


def with_fixed_words(logits: Tensor, x: Tensor, mask_id: int) -> Tensor:
    """``logits [B, L, V]`` in which every token of the canvas ``x [B, L]`` except MASK has probability 1."""
    unmasked = (x != mask_id)[..., None]
    words = x[..., None].clamp(max=logits.shape[-1] - 1)
    word_logits = logits.gather(-1, words).masked_fill(unmasked, 0.0)
    return logits.masked_fill(unmasked, -torch.inf).scatter_(-1, words, word_logits)
