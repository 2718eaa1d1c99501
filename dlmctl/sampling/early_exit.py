"""Early exit: texts whose words no longer change leave their batch, so the remaining steps take less time.

A text mostly has its final words long before its last step. The steps that it skips change neither its words nor those
of the others: every row has its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.batches import batch_size_for
from dlmctl.sampling.guidance import strength
from dlmctl.sampling.latent_steering import LatentSteered
from dlmctl.sampling.steering import NEVER, problems_of

# Steps between two reads from the device.
READ_EVERY = 4
# The cost of rebuilding a batch on a GPU, where its steps are then also recorded anew, in positions of a step; measured
# on an H100 with a network of 7 M weights.
REBUILD_COST = 500_000


def exit_from(guidance: Guidance, times: Sequence[float]) -> float:
    """The time from which guidance no longer gets stronger; before it, guidance may still change words."""
    strengths = [strength(guidance, t) for t in times]
    return times[strengths.index(max(strengths))]


class EarlyExit:
    """A ``Steer`` for a batch that rows may leave early.

    A row leaves when its words have been the same for ``patience`` steps and are those that it would end with now. Its
    x_0 estimate is then fixed. All of this is kept on the device; every few steps one small tensor is read back that
    says which rows have left. How often that happens changes the time taken, but no text.

    Args:
        make_steered: makes a ``LatentSteered`` for the rows of the batch with these numbers.
        row_count: rows of the batch.
        patience: in steps.
        since: steps at times above this do not count.
        read_every: steps between two reads; by default 1 on a CPU, and ``READ_EVERY`` on other devices, where a read
            has to wait.
        steps: of the walk.

    Attributes:
        left: the rows known to have left.
    """

    def __init__(
        self,
        make_steered: Callable[[Sequence[int]], LatentSteered],
        row_count: int,
        patience: int,
        since: float,
        read_every: int | None = None,
        *,
        steps: int,
    ) -> None:
        self.make_steered, self.patience, self.since, self.read_every = make_steered, patience, since, read_every
        self.remaining_steps = steps
        self.row_count = row_count
        # The rows that are still computed, and their indices once that is not the whole batch.
        self.rows = list(range(row_count))
        self.row_index: Tensor | None = None
        self.steered = make_steered(self.rows)
        self.left: set[int] = set()
        self.counted_steps = self.steps_since_read = 0
        self.nan_times: Tensor | None = None
        self.x0: Tensor | None = None
        self.ids: Tensor | None = None
        self.finished: Tensor | None = None
        self.unchanged_steps: Tensor | None = None

    @property
    def problems(self) -> dict[int, str]:
        """As for ``Steered``, by row of the whole batch. Waits for the device."""
        self._save_nan_times()
        assert self.nan_times is not None
        return problems_of([part.name for part in self.steered.parts], self.nan_times)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        self._shrink()
        self.remaining_steps -= 1
        if self.rows:
            (x_t_here,) = self._select(x_t)
            estimate = self.steered(x_t_here, t[: len(self.rows)])
            self._update(estimate.x0, self.steered.model.token_ids(estimate.x0, estimate.logits), float(t[0]), x_t)
        assert self.x0 is not None
        x0 = self.x0
        return Prediction(lambda: x0)

    def after(self, moved: StepResult, s: float) -> Tensor:
        """As for ``Steered``; rows that have left are not moved."""
        if not self.rows:
            return moved.x
        here = StepResult(*self._select(moved.x, moved.mean, moved.variance))
        x = self.steered.after(here, s)
        return moved.x if x is here.x else self._merge(moved.x, x)

    @torch.no_grad()
    def token_ids(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent."""
        assert self.ids is not None
        assert self.finished is not None
        if not self.rows:
            return self.ids
        ids = self._merge(self.ids, self.steered.token_ids(*self._select(x)))
        return torch.where(self.finished[:, None], self.ids, ids)

    def _select(self, *tensors: Tensor) -> list[Tensor]:
        """The rows and positions of ``tensors [B, L, ...]`` that are still computed."""
        length = self.steered.layouts.length
        rows = tensors if self.row_index is None else [tensor.index_select(0, self.row_index) for tensor in tensors]
        return [tensor[:, :length] for tensor in rows]

    def _merge(self, whole: Tensor, here: Tensor) -> Tensor:
        """``whole [B, L, ...]`` with ``here`` in the rows and positions that are still computed."""
        if self.row_index is None and here.shape[1] == whole.shape[1]:
            return here
        merged = whole.clone()
        if self.row_index is None:
            merged[:, : here.shape[1]] = here
        else:
            merged[:, : here.shape[1]].index_copy_(0, self.row_index, here)
        return merged

    def _update(self, x0: Tensor, token_ids: Tensor, t: float, like: Tensor) -> None:
        """Store the estimates of a step for rows that have not left, and determine which rows leave."""
        if self.x0 is None or self.ids is None or self.finished is None or self.unchanged_steps is None:
            self.unchanged_steps = torch.zeros(len(like), dtype=torch.long, device=like.device)
            self.finished = self.unchanged_steps > 0
            self.x0 = self._merge(torch.zeros_like(like), x0)
            self.ids = self._merge(like.new_zeros(like.shape[:2], dtype=torch.long), token_ids)
            return
        previous_ids = self.ids
        self.x0 = torch.where(self.finished[:, None, None], self.x0, self._merge(self.x0, x0))
        self.ids = torch.where(self.finished[:, None], self.ids, self._merge(self.ids, token_ids))
        if t > self.since:
            return
        self.unchanged_steps = (self.unchanged_steps + 1) * (self.ids == previous_ids).all(1)
        self.counted_steps += 1
        if self.counted_steps >= self.patience:
            # Constraints that are exact only at the end, such as required words, may still move the others.
            same = (self.steered.token_ids(x0) == token_ids).all(1)
            if self.row_index is not None:
                same = torch.zeros_like(self.finished).index_copy_(0, self.row_index, same)
            self.finished = self.finished | (same & (self.unchanged_steps >= self.patience))

    def _shrink(self) -> None:
        """Rebuild the batch without the rows that have left, except for some that pad it to a size in use."""
        if self.finished is None or self.counted_steps < self.patience or not self.rows:
            return
        self.steps_since_read += 1
        if self.steps_since_read < (self.read_every or (1 if self.finished.device.type == "cpu" else READ_EVERY)):
            return
        self.steps_since_read = 0
        self.left = {row for row, finished in enumerate(self.finished.tolist()) if finished}
        remaining = [row for row in self.rows if row not in self.left]
        size = batch_size_for(len(remaining)) if remaining else 0
        if size >= len(self.rows) or not self._saves_time(size):
            return
        padding = [row for row in self.rows if row in self.left]
        self._save_nan_times()
        self.rows = sorted(remaining + padding[: size - len(remaining)])
        if not self.rows:
            return
        self.row_index = torch.tensor(self.rows, device=self.finished.device)
        self.steered = self.make_steered(self.rows)
        assert self.x0 is not None
        assert self.nan_times is not None
        (self.steered.previous,) = self._select(self.x0)
        self.steered.nan_times = self.nan_times.index_select(1, self.row_index)

    def _saves_time(self, size: int) -> bool:
        """Whether it is faster to rebuild the batch with ``size`` rows than to continue with the present one."""
        assert self.finished is not None
        saved = (len(self.rows) - size) * self.steered.layouts.length * self.remaining_steps
        return size == 0 or self.finished.device.type == "cpu" or saved > REBUILD_COST

    def _save_nan_times(self) -> None:
        """Store the NaN times of the rows that are still computed."""
        nan_times = self.steered.nan_times
        if self.nan_times is None:
            self.nan_times = torch.full((len(nan_times), self.row_count), NEVER, device=nan_times.device)
        if self.rows:
            index = self.row_index
            self.nan_times = nan_times if index is None else self.nan_times.index_copy(1, index, nan_times)
