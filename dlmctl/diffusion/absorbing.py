"""The masked family: word ids with MASK among them, which becomes words (Sahoo et al. 2024; Nie et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlmctl.diffusion.blocks import Stretch
from dlmctl.diffusion.family import Moved, Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import attended as attention_mask
from dlmctl.diffusion.masked_base import Context, MaskedModel, Scores
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.walks import (
    StepNoise,
    Stride,
    Walk,
    WalkSettings,
    ancestral,
    committed_log_ratio,
    committed_nats,
    remasking,
)
from dlmctl.models.numerics import widened
from dlmctl.text.tokenizer import Tokenizer

# Scores that each thread of a CPU looks at together: as many as its cache holds, so that only the first look is slow.
PIECE_CPU: int | None = 2**18


def in_pieces(device: torch.device) -> bool:
    """Whether a walk looks at open places alone, and few at a time. To know them, a GPU would have to be waited for."""
    return PIECE_CPU is not None and device.type == "cpu"


class Absorbing:
    """A ``Family`` whose states are word ids ``[B, L]``; START, END and PAD stand, and MASK where words will be.

    Where the number of words is not settled, every place behind START is the walk's, and END is a token like others.

    Args:
        walk: the sampler.
        schedule: its steps.
        tags: a label for each position ``[B, L]``, 0 where none is given; for models that take them.
        context: a prompt before each row; for models that take one.
        given: ids of words ``[B, L]`` that stand from the start, -1 at places to be written.
        hints: what is added to the input of each block of the network ``[layers, B, L, H]``.

    Attributes:
        nats: -log p of the words so far ``[B]``, each when it was written.
    """

    def __init__(
        self,
        model: MaskedModel,
        vocabulary: Tokenizer,
        walk: Walk,
        settings: WalkSettings,
        schedule: Sequence[Stretch],
        tags: Tensor | None = None,
        context: Context | None = None,
        given: Tensor | None = None,
        hints: Tensor | None = None,
    ) -> None:
        self.model, self.vocabulary, self.walk, self.settings = model, vocabulary, walk, settings
        self.schedule, self.tags, self.context, self.given = iter(schedule), tags, context, given
        self.hints = hints
        self.nats: Tensor | None = None
        self.free: Tensor | None = None
        self.attended: Tensor | None = None

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        vocabulary, device = self.vocabulary, layouts.words.device
        place = torch.arange(layouts.length, device=device)
        words = layouts.words[:, None]
        settled = words >= 0
        self.free = (place > 0) & (place <= torch.where(settled, words, layouts.positions[:, None] - 1))
        self.nats = torch.zeros(len(words), device=device)
        x = torch.full(self.free.shape, vocabulary.pad_id, device=device)
        x = x.masked_fill(self.free, self.model.mask_id).masked_fill(place == 0, vocabulary.start_id)
        x = x.masked_fill(settled & (place == words + 1), vocabulary.end_id)
        attended = attention_mask(x, vocabulary) if self.model.hides_padding else None
        # Attention is faster without a mask.
        self.attended = None if attended is None or bool(attended.all()) else attended
        if self.given is None:
            return x
        stands = self.free & (self.given >= 0)
        self.free &= ~stands
        return torch.where(stands, self.given, x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        """Logits with the words that stand for certain (Sahoo et al. 2024, section 3.2.3)."""
        logits = self.logits_of(x, self.scores_of(x, mask))
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def scores_of(self, x: Tensor, mask: Tensor | None) -> Scores:
        """What the network makes of the words that are left, before those that stand are taken for certain."""
        mask = self.attended if self.model.hides_padding else mask
        return self.model.scores_of(x, attention_mask=mask, aligned=self.tags, context=self.context, hints=self.hints)

    def logits_of(self, x: Tensor, scores: Scores) -> Tensor:
        """The ``scores_of`` a canvas as logits ``[B, L, V]``, the words that stand for certain."""
        return with_certain(widened(scores(None)), x, self.model.mask_id)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> Moved:
        assert self.free is not None
        assert self.nats is not None
        uniform = noise.uniform(2, x)
        first, behind, stride = next(self.schedule)
        place = torch.arange(x.shape[1], device=x.device)
        free = self.free & (place >= first) & (place < behind)
        # These two write a number of places that is drawn.
        most = behind - first if stride.most is None or self.walk in (ancestral, remasking) else stride.most
        places = self._open_places(x, free) if estimate.unguided is None else None
        if places is not None:
            new, nats = self._in_pieces(x, places, estimate, free, stride, uniform, most)
            self.nats = self.nats + nats
            return Moved(new, new, torch.zeros(len(x)))
        assert estimate.logits is not None
        new = self.walk(x, estimate.logits, free, stride, StepNoise(uniform[0], uniform[1]), self.settings)
        self.nats = self.nats + committed_nats(x, new, estimate.logits, self.model.mask_id, most)
        ratio = None
        if estimate.unguided is not None:
            ratio = committed_log_ratio(x, new, estimate.unguided, estimate.logits, self.settings, most)
        return Moved(new, new, torch.zeros(len(x)), ratio)

    def whole_until(self, times: Tensor, *, alone: bool) -> float:
        """The time from which on the likeliest text is held to what is exact: all times where several tokens of a large
        vocabulary are written in a step, and else none.

        Args:
            times: of the steps, and the end.
            alone: whether a step writes no more than one token of each text.
        """
        return 0.0 if self.model.family != "tokens" or alone else 1.0

    def _open_places(self, x: Tensor, free: Tensor) -> Tensor | None:
        """The places ``[B, M]`` that may be written, some that may not behind them where a row has fewer; None for all,
        and where words that stand may be masked again."""
        if not in_pieces(x.device) or self.walk is remasking:
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
        uniform: Tensor,
        most: int,
    ) -> tuple[Tensor, Tensor]:
        """The canvas ``[B, L]`` after a step and the nats ``[B]`` of what it wrote, worked out at ``places`` alone and
        for a few texts at a time."""
        assert PIECE_CPU is not None
        size = PIECE_CPU * torch.get_num_threads()
        rows = max(1, size // (places.shape[1] * len(self.model.embeddings)))
        canvas, new, nats = x.gather(1, places), [], []
        of_piece = (canvas, free.gather(1, places), *(one.gather(1, places) for one in uniform))
        pieces = zip(*(one.split(rows) for one in of_piece), strict=True)
        for (before, is_free, words, order), logits in zip(pieces, estimate.parts(places, rows), strict=True):
            new.append(self.walk(before, logits, is_free, stride, StepNoise(words, order), self.settings))
            nats.append(committed_nats(before, new[-1], logits, self.model.mask_id, most))
        return x.scatter(1, places, torch.cat(new)), torch.cat(nats)

    def take(self, rows: Tensor) -> None:
        if self.nats is not None:
            self.nats = self.nats.index_select(0, rows)

    def soft(self, probabilities: Tensor) -> Tensor:
        return self.model.soft(probabilities)


def with_certain(logits: Tensor, x: Tensor, mask_id: int) -> Tensor:
    """``logits [B, L, V]`` with the tokens of the canvas ``x [B, L]`` that stand for certain, all but MASK."""
    stands = (x != mask_id)[..., None]
    words = x[..., None].clamp(max=logits.shape[-1] - 1)
    certain = torch.where(stands, 0.0, logits.gather(-1, words))
    return logits.masked_fill(stands, -torch.inf).scatter(-1, words, certain)
