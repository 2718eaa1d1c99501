"""How texts are drawn, and the result of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.branches import Branch
from dlmctl.control.prepared import PreparedAll
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.prompted import Prompt
from dlmctl.sampling.trace import OnFrames, Recorder
from dlmctl.sampling.walk import OnStep


class Plan(NamedTuple):
    """How texts are drawn, without the draws themselves.

    Attributes:
        traced: the samples whose words and energies are recorded at every step.
        watch: receives the words as they settle.
        branch: the branch that guides, once a draw has chosen one; None if the control has only one
            (``control.branches``).
    """

    pretrained: Pretrained
    control: Control[Any] | None
    sampler: SamplerSettings
    guidance: Guidance
    batch_size: int
    prompt: Prompt | None = None
    traced: Collection[int] = ()
    watch: OnFrames | None = None
    branch: Branch | None = None

    @property
    def guide(self) -> Control[Any] | None:
        """The control that guides; ``control`` itself is used for checks."""
        return self.control if self.branch is None else self.branch.control


class Finished(NamedTuple):
    """A drawn batch: word ids ``[B, L]``, problems with guidance by row, and for each row the nats of its words
    according to the walk, None if the family does not know them."""

    ids: Tensor
    problems: dict[int, str]
    nats: list[float | None]


PrepareControl = Callable[[Batch], PreparedAll | None]
"""Prepares the controls of a plan for some rows."""


class Job(NamedTuple):
    """One batch to draw.

    Attributes:
        control: prepared for the batch; ``prepare`` prepares it for the rows that remain when others are done.
        watch: receives every step; ``recorder`` records some of the rows.
    """

    plan: Plan
    batch: Batch
    control: PreparedAll | None
    prepare: PrepareControl
    watch: OnStep
    recorder: Recorder | None


DrawBatch = Callable[[Job], Finished]
"""Draws a batch of its family. Raises a RecipeError if the sampler settings do not fit the batch."""
