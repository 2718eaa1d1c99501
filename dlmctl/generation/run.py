"""What a recipe asks for, for a few texts that are kept in memory, and for the parts of a long run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.datasets.target_table import TargetTable
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.arguments import check_traced, read_traced
from dlmctl.generation.diagnose import at_its_setting, examine, load_model
from dlmctl.generation.generate import draw_recipe, require_plain
from dlmctl.generation.identity import about_run
from dlmctl.generation.options import Look
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.results import Generation
from dlmctl.generation.sample_groups import SampleGroups, distinct_of
from dlmctl.generation.targets import TargetRun, read_targets
from dlmctl.recipe.build import build_control
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep

# Texts and candidates of one call that keeps all of them; more go to files, shard by shard.
MOST_IN_MEMORY = 100_000
# Texts for rows of targets that are drawn together.
CHUNK = 512
TextProgress = Callable[[float, int], None]
"""Receives texts done, with a share of those being drawn, and texts in all."""


def run_recipe(
    recipe: Recipe,
    *,
    model: Pretrained | None = None,
    samples: Sequence[int] | None = None,
    origin: SettingsFile | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    texts: TextProgress | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """Generate what a recipe asks for: ``samples`` texts, or so many for each row of its targets. See ``generate``.

    Args:
        model: the recipe's model, where it is loaded already.
        samples: the numbers of the samples to generate; all of the recipe's if not given.
        origin: where the recipe stands; errors about it name the line.
        strict: the first row of the targets that cannot be met ends the run.
        progress: sees the reverse steps; texts: sees the texts done; trace, watch: as ``generate``.

    Raises:
        RecipeError: so many texts are asked for at once that they should go to files.
        UserError: as ``generate``, or the targets cannot be read.
    """
    require_plain(recipe, origin)
    table = read_targets(recipe, origin)
    total = texts_of(recipe, table)
    if samples is None and total * recipe.candidates > MOST_IN_MEMORY:
        what = f"samples: more than {MOST_IN_MEMORY:,} texts and candidates do not fit into memory."
        remedy = "Write them to a folder: --out FOLDER/."
        raise RecipeError(what, where=None if origin is None else origin.where(("samples",)), remedy=remedy)
    pretrained = model or load_model(recipe, origin)
    work = Work(recipe, pretrained, table, origin, strict=strict)
    numbers = range(total) if samples is None else samples
    started = time.perf_counter()
    check_traced(trace, numbers)
    traced = read_traced(trace, numbers)
    done: list[Generation] = []
    for part in [numbers] if table is None else _chunks(numbers, shard_size(recipe, table, CHUNK)):
        told = _both(progress, texts, sum(map(len, done)), len(part), len(numbers))
        done.append(work.draw(part, progress=told, on_step=on_step, trace=traced, watch=watch))
    samples_of = [sample for part in done for sample in part]
    return Generation(samples_of, time.perf_counter() - started, done[-1].environment, work.about, work.columns)


def texts_of(recipe: Recipe, table: TargetTable | None) -> int:
    """How many texts a run has."""
    return recipe.samples * (1 if table is None else len(table))


def shard_size(recipe: Recipe, table: TargetTable | None, size: int) -> int:
    """About ``size`` texts: those of whole rows, where texts of a row must differ and share the attempts of a quota."""
    if recipe.quota is None or table is None:
        return size
    return -(-size // recipe.samples) * recipe.samples


class Work:
    """Draws the samples of a run by their numbers, in parts.

    Attributes:
        about: what holds of every text.
        columns: those of the table.
        distinct: the texts of the run so far, where none may come twice.
    """

    def __init__(
        self,
        recipe: Recipe,
        pretrained: Pretrained,
        table: TargetTable | None,
        origin: SettingsFile | None,
        *,
        strict: bool = False,
    ) -> None:
        self.recipe, self.pretrained, self.origin = recipe, pretrained, origin
        # With a table the texts of a row are to differ, which its rows see to.
        quota = recipe.quota if table is None else None
        self.distinct = distinct_of(pretrained, quota, unique=recipe.unique)
        self.about = about_run(recipe, pretrained)
        self.columns: list[str] = [] if table is None else table.columns
        self.rows = None
        if table is not None:
            self.rows = TargetRun(recipe, table, pretrained, strict=strict, distinct=self.distinct)

    def draw(self, numbers: Sequence[int], **look: Unpack[Look]) -> Generation:
        """The texts of some samples.

        Raises:
            UserError: as ``run_recipe``; the message names the line of the recipe, or of the row.
        """
        try:
            return self._plainly(numbers, look) if self.rows is None else self.rows.draw(numbers, look)
        except UserError as error:
            if self.origin is None:
                raise
            if self.rows is None:
                examine(self.recipe, self.pretrained, self.origin)  # says the same, and on which line
            raise at_its_setting(error, self.origin) from None

    def _plainly(self, numbers: Sequence[int], look: Look) -> Generation:
        """The texts of a recipe without targets."""
        recipe, fault = self.recipe, None if self.origin is None else self.origin.error
        control: Control[Any] | None = build_control(recipe.control_specs())
        return draw_recipe(
            recipe,
            control,
            self.pretrained,
            read_prompt(self.pretrained, recipe.label, recipe.source, recipe.prompt, fault=fault),
            samples=numbers,
            company=SampleGroups(distinct=self.distinct),
            **look,
        )


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(numbers), size):
        yield numbers[at : at + size]


def _both(progress: Progress | None, texts: TextProgress | None, before: int, size: int, total: int) -> Progress:
    """Progress over the steps of a part of the run, also as progress over all texts."""

    def watch(done: int, steps: int) -> None:
        if progress is not None:
            progress(done, steps)
        if texts is not None:
            texts(before + size * done / steps, total)

    return watch
