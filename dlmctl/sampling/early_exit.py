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
from dlmctl.sampling.batches import batch_size_for
from dlmctl.sampling.guidance import strength
from dlmctl.sampling.latent_steering import LatentSteered
from dlmctl.sampling.steering import WHOLE, problems_of

# Steps from one look at the device to the next.
READ_EVERY = 4
# What a batch that is made anew costs a GPU, whose steps are then recorded anew too, in positions of a step: on an H100
# with a network of 7 M weights.
ANEW = 500_000


def exit_from(guidance: Guidance, times: Sequence[float]) -> float:
    """The time from which on guidance does not get stronger: words that it has yet to move may still change."""
    strengths = [strength(guidance, t) for t in times]
    return times[strengths.index(max(strengths))]


class EarlyExit:
    """A ``Steer`` for a batch, from which rows leave.

    A row leaves when its words have been the same for ``patience`` steps and are those that it would end with now. Its
    x_0 estimate stands from then on. All of that is kept on the device; every few steps it is asked, in one small
    tensor, which rows have left. How often changes the time it takes, and no text.

    Args:
        steer: makes a ``LatentSteered`` for the rows of the batch with these numbers.
        rows: of the batch.
        patience: in steps.
        since: steps at times above this one do not count.
        every: steps from one question to the next; by default 1 on a CPU, and ``READ_EVERY`` on a device that would
            have to be waited for.
        steps: of the walk.

    Attributes:
        left: the rows known to have left.
    """

    def __init__(
        self,
        steer: Callable[[Sequence[int]], LatentSteered],
        rows: int,
        patience: int,
        since: float,
        every: int | None = None,
        *,
        steps: int,
    ) -> None:
        self.steer, self.patience, self.since, self.every = steer, patience, since, every
        self.steps_left = steps
        self.rows = list(range(rows))
        self.all = rows
        self.now = steer(self.rows)
        self.left: set[int] = set()
        # Steps that counted, and those since the last question.
        self.counted = self.unasked = 0
        self.at: Tensor | None = None
        self.broke: Tensor | None = None
        self.x0: Tensor | None = None
        self.ids: Tensor | None = None
        self.gone: Tensor | None = None
        self.unchanged: Tensor | None = None

    @property
    def problems(self) -> dict[int, str]:
        """As of ``Steered``, by row of the whole batch. Waits for the device."""
        self._keep_broke()
        assert self.broke is not None
        return problems_of([part.name for part in self.now.parts], self.broke)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        self._shrink()
        self.steps_left -= 1
        if self.rows:
            (here,) = self._here(x_t)
            estimate = self.now(here, t[: len(self.rows)])
            self._note(estimate.x0, self.now.model.token_ids(estimate.x0, estimate.logits), float(t[0]), x_t)
        assert self.x0 is not None
        x0 = self.x0
        return Prediction(lambda: x0)

    def after(self, moved: Moved, s: float) -> Tensor:
        """As of ``Steered``; rows that have left stay where they are."""
        if not self.rows:
            return moved.x
        here = Moved(*self._here(moved.x, moved.mean, moved.variance))
        x = self.now.after(here, s)
        return moved.x if x is here.x else self._put(moved.x, x)

    @torch.no_grad()
    def token_ids(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent."""
        assert self.ids is not None
        assert self.gone is not None
        if not self.rows:
            return self.ids
        found = self._put(self.ids, self.now.token_ids(*self._here(x)))
        return torch.where(self.gone[:, None], self.ids, found)

    def _here(self, *whole: Tensor) -> list[Tensor]:
        """The rows that are still in the batch, and of latents the positions."""
        length = self.now.layouts.length
        rows = whole if self.at is None else [tensor.index_select(0, self.at) for tensor in whole]
        return [tensor[:, :length] for tensor in rows]

    def _put(self, whole: Tensor, here: Tensor) -> Tensor:
        """``whole [B, L, ...]`` with the rows that are still in the batch as ``here``."""
        if self.at is None and here.shape[1] == whole.shape[1]:
            return here
        made = whole.clone()
        if self.at is None:
            made[:, : here.shape[1]] = here
        else:
            made[:, : here.shape[1]].index_copy_(0, self.at, here)
        return made

    def _note(self, x0: Tensor, token_ids: Tensor, t: float, like: Tensor) -> None:
        """Keep the estimates of a step, but of rows that have left, and see which leave."""
        if self.x0 is None or self.ids is None or self.gone is None or self.unchanged is None:
            self.unchanged = torch.zeros(len(like), dtype=torch.long, device=like.device)
            self.gone = self.unchanged > 0
            self.x0 = self._put(torch.zeros_like(like), x0)
            self.ids = self._put(like.new_zeros(like.shape[:2], dtype=torch.long), token_ids)
            return
        before = self.ids
        self.x0 = torch.where(self.gone[:, None, None], self.x0, self._put(self.x0, x0))
        self.ids = torch.where(self.gone[:, None], self.ids, self._put(self.ids, token_ids))
        if t > self.since:
            return
        self.unchanged = (self.unchanged + 1) * (self.ids == before).all(1)
        self.counted += 1
        if self.counted >= self.patience:
            # What is exact only in the end, as words that must occur, may still have to move the others.
            same = (self.now.token_ids(x0) == token_ids).all(1)
            ends = same if self.at is None else torch.zeros_like(self.gone).index_copy_(0, self.at, same)
            self.gone = self.gone | (ends & (self.unchanged >= self.patience))

    def _shrink(self) -> None:
        """Make the batch anew without those that have left, but for some that fill it up to a size in use."""
        if self.gone is None or self.counted < self.patience or not self.rows:
            return
        self.unasked += 1
        if self.unasked < (self.every or (1 if self.gone.device.type == "cpu" else READ_EVERY)):
            return
        self.unasked = 0
        self.left = {row for row, gone in enumerate(self.gone.tolist()) if gone}
        stay = [row for row in self.rows if row not in self.left]
        size = batch_size_for(len(stay)) if stay else 0
        if size >= len(self.rows) or not self._pays(size):
            return
        spare = [row for row in self.rows if row in self.left]
        self._keep_broke()
        self.rows = sorted(stay + spare[: size - len(stay)])
        if not self.rows:
            return
        self.at = torch.tensor(self.rows, device=self.gone.device)
        self.now = self.steer(self.rows)
        assert self.x0 is not None
        assert self.broke is not None
        (self.now.previous,) = self._here(self.x0)
        self.now.broke = self.broke.index_select(1, self.at)

    def _pays(self, size: int) -> bool:
        """Whether a batch of so many rows takes less time in all than to go on with those that there are."""
        assert self.gone is not None
        saved = (len(self.rows) - size) * self.now.layouts.length * self.steps_left
        return size == 0 or self.gone.device.type == "cpu" or saved > ANEW

    def _keep_broke(self) -> None:
        """Keep of the rows in the batch when their energies stopped being numbers."""
        if self.broke is None:
            self.broke = torch.full((len(self.now.broke), self.all), WHOLE, device=self.now.broke.device)
        if self.rows:
            self.broke = self.now.broke if self.at is None else self.broke.index_copy(1, self.at, self.now.broke)
