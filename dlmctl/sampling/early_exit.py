"""Early exit: texts whose words no longer change leave their batch, and the steps that are left take less time.

Long before its last step a text mostly has the words that it ends with. Steps it sits out change neither its words nor
those of the others: every row has noise of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlmctl.diffusion.family import Moved, Prediction
from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.guidance import strength
from dlmctl.sampling.steering import Steered


def batch_size_for(rows: int) -> int:
    """The size of a batch that still has so many rows to draw: up to the next quarter between powers of two.

    For every new shape the matrix library makes a kernel, which costs time and stays in memory, so shapes must be few.
    """
    quarter = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // quarter) * quarter


def exit_from(guidance: Guidance, times: Sequence[float]) -> float:
    """The time from which on guidance does not get stronger: words that it has yet to move may still change."""
    strengths = [strength(guidance, t) for t in times]
    return times[strengths.index(max(strengths))]


class EarlyExit:
    """A ``Steer`` for a batch, from which rows leave.

    A row leaves when its words have been the same for ``patience`` steps and are those that it would end with now. Its
    x_0 estimate stands from then on.

    Args:
        steer: makes a ``Steered`` for the rows of the batch with these numbers.
        rows: of the batch.
        patience: in steps.
        since: steps at times above this one do not count.

    Attributes:
        problems: as of ``Steered``, by row of the whole batch.
    """

    def __init__(self, steer: Callable[[Sequence[int]], Steered], rows: int, patience: int, since: float) -> None:
        self.steer, self.patience, self.since = steer, patience, since
        self.rows = list(range(rows))
        self.now = steer(self.rows)
        self.problems: dict[int, str] = {}
        self.left: set[int] = set()
        self.unchanged = [0] * rows
        self.x0: Tensor | None = None
        self.ids: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        self._shrink()
        x0 = torch.zeros_like(x_t) if self.x0 is None else self.x0.clone()
        ids = torch.zeros(x_t.shape[:2], dtype=torch.long, device=x_t.device) if self.ids is None else self.ids.clone()
        if self.rows:
            estimate = self.now(*self._here(x_t, t))
            words = self.now.model.words(estimate.x0, estimate.logits)
            open_rows = [at for at, row in enumerate(self.rows) if row not in self.left]
            places = torch.tensor([self.rows[at] for at in open_rows], device=x_t.device)
            length = self.now.layouts.length
            x0[places, :length], ids[places, :length] = estimate.x0[open_rows], words[open_rows]
            self.problems |= {self.rows[at]: what for at, what in self.now.problems.items()}
            if float(t[0]) <= self.since and self.ids is not None:
                self._leave(estimate.x0, words, (ids == self.ids).all(1).tolist())
        self.x0, self.ids = x0, ids
        return Prediction(lambda: x0)

    def after(self, moved: Moved, s: float) -> Tensor:
        """As of ``Steered``; rows that have left stay where they are."""
        if not self.rows:
            return moved.x
        here = Moved(*self._here(moved.x, moved.mean, moved.variance))
        x = self.now.after(here, s)
        if x is here.x:
            return moved.x
        whole = moved.x.clone()
        whole[self.rows, : x.shape[1]] = x
        return whole

    @torch.no_grad()
    def words(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent."""
        assert self.ids is not None
        ids = self.ids.clone()
        if self.rows:
            found = self.now.words(*self._here(x))
            for at, row in enumerate(self.rows):
                if row not in self.left:
                    ids[row, : found.shape[1]] = found[at]
        return ids

    def _here(self, *whole: Tensor) -> list[Tensor]:
        """The rows that are still in the batch, and of latents the positions."""
        length = self.now.layouts.length
        return [tensor[self.rows] if tensor.dim() == 1 else tensor[self.rows, :length] for tensor in whole]

    def _leave(self, estimate: Tensor, words: Tensor, same: list[bool]) -> None:
        for row in self.rows:
            self.unchanged[row] = self.unchanged[row] + 1 if same[row] else 0
        waiting = [
            at for at, row in enumerate(self.rows) if row not in self.left and self.unchanged[row] >= self.patience
        ]
        if waiting:
            # What is exact only in the end, as words that must occur, may still have to move the others.
            ends = (self.now.words(estimate) == words).all(1).tolist()
            self.left |= {self.rows[at] for at in waiting if ends[at]}

    def _shrink(self) -> None:
        """Make the batch anew without those that have left, but for some that fill it up to a size in use."""
        stay = [row for row in self.rows if row not in self.left]
        size = batch_size_for(len(stay)) if stay else 0
        if size >= len(self.rows):
            return
        spare = [row for row in self.rows if row in self.left]
        self.rows = sorted(stay + spare[: size - len(stay)])
        if self.rows:
            self.now = self.steer(self.rows)
            assert self.x0 is not None
            self.now.previous = self.x0[self.rows, : self.now.layouts.length]
            self.now.problems = {at: self.problems[row] for at, row in enumerate(self.rows) if row in self.problems}
