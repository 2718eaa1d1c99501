"""Traces of texts: the words of some texts of a batch at every step, and how far each control is from its aim.

Tracing changes no text: it reads estimates that are computed anyway, and prepares its own controls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.control.check import unique_labels
from dlmctl.control.prepared import Part, overrides
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.noise import Draw
from dlmctl.text.tokenizer import Tokenizer


class Frame(NamedTuple):
    """A text at one step.

    Attributes:
        t: the time, from 1 (noise, or nothing but masks) to 0.
        words: the words that it would have if it ended now.
        settled: whether each word is settled: in a masked model, it is written; with latents, it is the same as one
            step before.
        energies: the energy of each control that has one, by its label, in nats: how far the model's own estimate,
            before the controls move it, is from satisfying the control.
    """

    t: float
    words: tuple[str, ...]
    settled: tuple[bool, ...]
    energies: Mapping[str, float]


OnFrames = Callable[[Mapping[Draw, Frame]], None]
"""Receives the followed texts of a batch at every step and once more when they are done."""


class Steering(Protocol):
    """What a recorder needs from the steering of a batch."""

    def word_ids(self, estimate: Prediction) -> Tensor: ...

    def own_words(self, own: Prediction, rows: Tensor) -> tuple[Tensor, Tensor]: ...


class StepView(NamedTuple):
    """One step as the steering of a batch sees it: the state x_t at time t, the model's own estimate, and the guided
    one."""

    t: float
    x: Tensor
    own: Prediction
    guided: Prediction


class Recorder:
    """Records some rows of a batch.

    Args:
        draws: the draws of the followed rows, by row number.
        parts: the controls, prepared for these rows alone; empty to leave out their energies.
        layouts: of these rows.
        embeddings: of the words, ``[V, D]``.
        particles: adjacent rows of each text; either all rows of a text are followed or none.
        watch: receives every step.

    Attributes:
        finished_rows: returns which rows ``[B]`` of the batch are finished, None for none so far.
        texts: the steps of each finished text, by its number in the batch.
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
        self.finished_rows: Callable[[], Tensor | None] = lambda: None
        self.frames: dict[int, list[Frame]] = {row: [] for row in draws}
        self.texts: dict[int, list[Frame]] = {}
        # The last estimate of each followed row, as some leave before the others.
        self.x0: Tensor | None = None
        self.log_probs: Tensor | None = None

    @torch.no_grad()
    def record(self, rows: Sequence[int], steering: Steering, step: StepView) -> None:
        """Record a step of these rows, which are the whole batch or a part of it."""
        finished = self.finished_rows()
        done = set() if finished is None else {row for row, is_done in enumerate(finished.tolist()) if is_done}
        followed = [(index, row) for index, row in enumerate(rows) if row in self.draws and row not in done]
        if not followed:
            return
        indices = torch.tensor([index for index, _ in followed], device=step.x.device)
        energies = {}
        if self.parts:
            energies = self._energies([row for _, row in followed], *steering.own_words(step.own, indices))
        ids = steering.word_ids(step.guided).index_select(0, indices)
        # The state of a masked text consists of ids, and MASK equals no word.
        written = None if step.x.is_floating_point() else (step.x.index_select(0, indices) == ids).tolist()
        for at, (_, row) in enumerate(followed):
            row_written = None if written is None else written[at]
            self.frames[row].append(self._frame(row, step.t, ids[at].tolist(), row_written, energies.get(row, {})))
        self._notify()

    def take(self, rows: Sequence[int]) -> None:
        """Continue each row from row ``rows[row]`` of the same text, and adopt the history of that row."""
        self.frames = {row: list(self.frames[rows[row]]) for row in self.frames}

    def finish(self, ids: Sequence[Sequence[int]]) -> None:
        """Record the final words of the texts of the batch; of several particles, keep the history that ends nearest
        to them."""
        for row in self.rows[:: self.particles]:
            words = tuple(self.vocabulary.words(ids[row // self.particles]))
            histories = [self.frames[row + particle] for particle in range(self.particles)]
            history = max(histories, key=lambda frames: _words_in_common(frames[-1].words, words) if frames else 0)
            self.texts[row // self.particles] = [*history, Frame(0.0, words, (True,) * len(words), {})]
        if self.watch is not None:
            self.watch({self.draws[text * self.particles]: frames[-1] for text, frames in self.texts.items()})

    def _notify(self) -> None:
        """Pass the texts to ``watch``; of several particles, the first."""
        if self.watch is not None:
            shown = {row: self.frames[row] for row in self.rows[:: self.particles]}
            self.watch({self.draws[row]: frames[-1] for row, frames in shown.items() if frames})

    def _frame(
        self, row: int, t: float, ids: Sequence[int], written: Sequence[bool] | None, energies: Mapping[str, float]
    ) -> Frame:
        words = tuple(self.vocabulary.words(ids))
        if written is not None:
            settled = tuple(written[1 : 1 + len(words)])  # after START
        else:
            previous = self.frames[row][-1].words if self.frames[row] else ()
            settled = tuple(words[at : at + 1] == previous[at : at + 1] for at in range(len(words)))
        return Frame(t, words, settled, energies)

    def _energies(self, rows: Sequence[int], x0: Tensor, log_probs: Tensor) -> dict[int, dict[str, float]]:
        """The finite energies of the parts, by row and label."""
        length = min(self.layouts.length, x0.shape[1])
        if self.x0 is None or self.log_probs is None:
            self.x0, self.log_probs = x0[:, :length].clone(), log_probs[:, :length].clone()
        indices = [self.rows.index(row) for row in rows]
        at = torch.tensor(indices, device=x0.device)
        self.x0[at, :length], self.log_probs[at, :length] = x0[:, :length], log_probs[:, :length]
        all_x0, all_log_probs = self.x0, self.log_probs
        state = ControlState(
            all_x0,
            torch.zeros(len(all_x0), device=all_x0.device),
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: all_x0,
            word_log_probs=lambda: all_log_probs,
            mask=self.layouts.mask,
        )
        energies = {label: part.energy(state).tolist() for label, part in self.parts.items()}
        return {
            row: {
                label: round(values[index], 3) + 0.0
                for label, values in energies.items()
                if math.isfinite(values[index])
            }
            for row, index in zip(rows, indices, strict=True)
        }


def _words_in_common(words: Sequence[str], others: Sequence[str]) -> int:
    """The number of places at which two texts have the same word."""
    return sum(word == other for word, other in zip(words, others, strict=False))


def _labelled(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    """The parts that have an energy, each with the label that ``check_all`` gives it."""
    for label, part in zip(unique_labels([part.name for part in parts]), parts, strict=True):
        if overrides(part.prepared, "energy"):
            yield label, part
