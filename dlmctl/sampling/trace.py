"""How texts come about: the words of some texts of a batch at every step, and how far each control is from its aim.

What is noted down changes no text: it looks at the estimates that are there anyway, and its controls are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.control.check import numbered
from dlmctl.control.prepared import Part, has_own
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.noise import Draw
from dlmctl.text.tokenizer import Tokenizer


class Frame(NamedTuple):
    """A text at one step.

    Attributes:
        t: the time, from 1 (noise, or nothing but masks) to 0.
        words: those that it would have if it ended now.
        settled: whether each word stands: is written, in a masked model; with latents, is the same as a step before.
        energies: of each control that has one, by its label, in nats: how far the model's own estimate is from what
            the control wants, before the controls move it.
    """

    t: float
    words: tuple[str, ...]
    settled: tuple[bool, ...]
    energies: Mapping[str, float]


OnFrames = Callable[[Mapping[Draw, Frame]], None]
"""Receives the texts of a batch that are followed, at every step and once more when they are done."""


class Steering(Protocol):
    """What a recorder asks of the steering of a batch."""

    def word_ids(self, estimate: Prediction) -> Tensor: ...

    def own_words(self, own: Prediction, rows: Tensor) -> tuple[Tensor, Tensor]: ...


class Look(NamedTuple):
    """One step as the steering of a batch sees it: the state x_t at time t, the model's own estimate, and the one that
    the controls made of it."""

    t: float
    x: Tensor
    own: Prediction
    guided: Prediction


class Recorder:
    """Notes down some rows of a batch.

    Args:
        draws: the rows followed, by their number in the batch.
        parts: the controls, prepared for these rows alone; none to leave their energies out.
        layouts: of these rows.
        embeddings: of the words, ``[V, D]``.
        particles: rows of each text, side by side; all of those of a text are followed, or none.
        watch: is shown every step.

    Attributes:
        gone: says which rows ``[B]`` of the batch are finished, None for none so far.
        texts: the steps of each text that is finished, by its number in the batch.
    """

    def __init__(
        self,
        draws: Mapping[int, Draw],
        parts: Sequence[Part],
        layouts: Layouts,
        embeddings: Tensor,
        vocabulary: Tokenizer,
        particles: int = 1,
        watch: OnFrames | None = None,
    ) -> None:
        self.draws, self.layouts, self.vocabulary, self.watch = draws, layouts, vocabulary, watch
        self.rows, self.particles = list(draws), particles
        self.parts = dict(_labelled(parts))
        self.embeddings = embeddings
        self.gone: Callable[[], Tensor | None] = lambda: None
        self.frames: dict[int, list[Frame]] = {row: [] for row in draws}
        self.texts: dict[int, list[Frame]] = {}
        # Of the rows followed the last that was seen of each: some leave before the others.
        self.x0: Tensor | None = None
        self.log_probs: Tensor | None = None

    @torch.no_grad()
    def see(self, rows: Sequence[int], steering: Steering, look: Look) -> None:
        """Note down a step of the batch, or of the part of it that consists of these rows."""
        gone = self.gone()
        out = set() if gone is None else {row for row, left in enumerate(gone.tolist()) if left}
        here = [(place, row) for place, row in enumerate(rows) if row in self.draws and row not in out]
        if not here:
            return
        places = torch.tensor([place for place, _ in here], device=look.x.device)
        energies = self._energies([row for _, row in here], *steering.own_words(look.own, places)) if self.parts else {}
        ids = steering.word_ids(look.guided).index_select(0, places)
        # Masked texts are ids themselves, and a mask is like no word.
        written = None if look.x.is_floating_point() else (look.x.index_select(0, places) == ids).tolist()
        for at, (_, row) in enumerate(here):
            marks = None if written is None else written[at]
            self.frames[row].append(self._frame(row, look.t, ids[at].tolist(), marks, energies.get(row, {})))
        self._show()

    def take(self, rows: Sequence[int]) -> None:
        """Each row goes on from the row of the same text that is named for it: what led there is now its own past."""
        self.frames = {row: list(self.frames[rows[row]]) for row in self.frames}

    def finish(self, ids: Sequence[Sequence[int]]) -> None:
        """Note down the words that the texts of the batch have in the end; of several particles, of the one that is
        nearest to them."""
        for row in self.rows[:: self.particles]:
            words = tuple(self.vocabulary.words(ids[row // self.particles]))
            pasts = [self.frames[row + at] for at in range(self.particles)]
            past = max(pasts, key=lambda frames: _in_common(frames[-1].words, words) if frames else 0)
            self.texts[row // self.particles] = [*past, Frame(0.0, words, (True,) * len(words), {})]
        if self.watch is not None:
            self.watch({self.draws[text * self.particles]: frames[-1] for text, frames in self.texts.items()})

    def _show(self) -> None:
        """Let who watches see the texts, of several particles the first."""
        if self.watch is not None:
            shown = {row: self.frames[row] for row in self.rows[:: self.particles]}
            self.watch({self.draws[row]: frames[-1] for row, frames in shown.items() if frames})

    def _frame(
        self, row: int, t: float, ids: Sequence[int], written: Sequence[bool] | None, energies: Mapping[str, float]
    ) -> Frame:
        words = tuple(self.vocabulary.words(ids))
        if written is not None:
            settled = tuple(written[1 : 1 + len(words)])  # behind START
        else:
            before = self.frames[row][-1].words if self.frames[row] else ()
            settled = tuple(words[at : at + 1] == before[at : at + 1] for at in range(len(words)))
        return Frame(t, words, settled, energies)

    def _energies(self, rows: Sequence[int], x0: Tensor, log_probs: Tensor) -> dict[int, dict[str, float]]:
        """The energy of each part that is a number, by row."""
        length = min(self.layouts.length, x0.shape[1])
        if self.x0 is None or self.log_probs is None:
            self.x0, self.log_probs = x0[:, :length].clone(), log_probs[:, :length].clone()
        numbers = [self.rows.index(row) for row in rows]
        at = torch.tensor(numbers, device=x0.device)
        self.x0[at, :length], self.log_probs[at, :length] = x0[:, :length], log_probs[:, :length]
        now, scores = self.x0, self.log_probs
        state = ControlState(
            now,
            torch.zeros(len(now), device=now.device),
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: now,
            word_log_probs=lambda: scores,
            mask=self.layouts.mask,
        )
        found = {name: part.energy(state).tolist() for name, part in self.parts.items()}
        return {
            row: {
                name: round(values[number], 3) + 0.0 for name, values in found.items() if math.isfinite(values[number])
            }
            for row, number in zip(rows, numbers, strict=True)
        }


def _in_common(some: Sequence[str], others: Sequence[str]) -> int:
    """At how many places two texts have the same word."""
    return sum(one == other for one, other in zip(some, others, strict=False))


def _labelled(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    """The parts that have an energy, each with its name as ``check_all`` has it."""
    for label, part in zip(numbered([part.name for part in parts]), parts, strict=True):
        if has_own(part.prepared, "energy"):
            yield label, part
