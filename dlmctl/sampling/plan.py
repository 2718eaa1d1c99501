"""How texts are drawn, and what comes of a batch."""

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
    """How texts are drawn, apart from which ones.

    Attributes:
        traced: the samples whose words and energies are kept of every step; watch: is shown the words as they settle.
        way: of draws of one way what guides them; None where the control leaves no choice (``control.branches``).
    """

    pretrained: Pretrained
    control: Control[Any] | None
    sampler: SamplerSettings
    guidance: Guidance
    batch_size: int
    prompt: Prompt | None = None
    traced: Collection[int] = ()
    watch: OnFrames | None = None
    way: Branch | None = None

    @property
    def guide(self) -> Control[Any] | None:
        """What guides; the control itself is what checks."""
        return self.control if self.way is None else self.way.control


class Finished(NamedTuple):
    """A drawn batch: word ids ``[B, L]``, what went wrong with the guidance of a row, if anything, and of each row the
    nats that the walk found its words to have, None where a family does not know."""

    ids: Tensor
    problems: dict[int, str]
    nats: list[float | None]


Preparing = Callable[[Batch], PreparedAll | None]
"""Prepares the controls of a plan for some rows."""


class Job(NamedTuple):
    """One batch to draw.

    Attributes:
        control: prepared for the batch; ``prepare`` prepares it for the rows that are left when others are done.
        watch: sees every step; ``recorder`` notes down some of the rows.
    """

    plan: Plan
    batch: Batch
    control: PreparedAll | None
    prepare: Preparing
    watch: OnStep
    recorder: Recorder | None


DrawBatch = Callable[[Job], Finished]
"""Draws a batch as its family does. Raises a RecipeError where the settings of the sampler do not fit the batch."""
