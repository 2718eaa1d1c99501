"""Runs of recipes: texts that are kept in memory, and parts of long runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.user_files import one_version
from dlmctl.datasets.target_table import TargetTable
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import UserError
from dlmctl.generation.arguments import check_traced, read_traced, require_room
from dlmctl.generation.diagnose import examine, examine_scorers, load_model, with_setting_line
from dlmctl.generation.generate import draw_recipe, require_plain
from dlmctl.generation.identity import about_run
from dlmctl.generation.options import ObserverOptions
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

# Texts that are drawn together for rows of targets.
CHUNK = 512
TextProgress = Callable[[float, int], None]
"""Receives the texts done, including a share of those being drawn, and the texts in all."""


@one_version()
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
    """Generate the texts of a recipe: ``samples`` texts, or ``samples`` for each row of its targets. See ``generate``.

    Args:
        model: the recipe's model, if it is loaded already.
        samples: the numbers of the samples to generate; all of the recipe's if not given.
        origin: the recipe's file; errors about the recipe name the line.
        strict: raise an error for the first row of the targets that cannot be met.
        progress: called with the reverse steps; texts: called with the texts done; on_step, trace, watch: as for
            ``generate``.

    Raises:
        RecipeError: too many texts are requested at once; they should go to files.
        UserError: as ``generate``, or the targets cannot be read.
    """
    require_plain(recipe, origin)
    table = read_targets(recipe, origin)
    text_count = text_count_of(recipe, table)
    if samples is None:
        require_room(text_count, recipe.candidates, "samples" if origin is None else origin.where(("samples",)))
    pretrained = load_model(recipe, origin, model)
    sampler = RecipeSampler(recipe, pretrained, table, origin, strict=strict)
    numbers = range(text_count) if samples is None else samples
    start = time.perf_counter()
    check_traced(trace, numbers)
    traced = read_traced(trace, numbers)
    results: list[Generation] = []
    in_parts = table is not None and len(numbers) > 0
    for part in _chunks(numbers, whole_row_size(recipe, table, CHUNK)) if in_parts else [numbers]:
        part_progress = combined_progress(progress, texts, sum(map(len, results)), len(part), len(numbers))
        results.append(sampler.draw(part, progress=part_progress, on_step=on_step, trace=traced, watch=watch))
    all_samples = [sample for part in results for sample in part]
    return Generation(all_samples, time.perf_counter() - start, results[-1].environment, sampler.about, sampler.columns)


def text_count_of(recipe: Recipe, table: TargetTable | None) -> int:
    """The number of texts of a run."""
    return recipe.samples * (1 if table is None else len(table))


def whole_row_size(recipe: Recipe, table: TargetTable | None, size: int) -> int:
    """``size``, rounded up to whole rows if the texts of a row must differ and share the attempts of a quota."""
    if recipe.quota is None or table is None:
        return size
    return -(-size // recipe.samples) * recipe.samples


class RecipeSampler:
    """Draws the samples of a run by number, in parts.

    Attributes:
        about: facts common to every text.
        columns: the columns of the table.
        distinct: the texts of the run so far, if none may be repeated.
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
        # With a table, the texts of each row must differ; TargetRun takes care of that.
        quota = recipe.quota if table is None else None
        self.distinct = distinct_of(pretrained, quota, unique=recipe.unique)
        self.about = about_run(recipe, pretrained)
        self.columns: list[str] = [] if table is None else table.columns
        self.rows = None
        if table is not None:
            self.rows = TargetRun(recipe, table, pretrained, strict=strict, distinct=self.distinct)

    @own_modes()  # also where impossible rows and lines are looked for
    def draw(self, numbers: Sequence[int], **observers: Unpack[ObserverOptions]) -> Generation:
        """Draw the samples with these numbers.

        Raises:
            UserError: as ``run_recipe``; the message names the line of the recipe, or of the row.
        """
        try:
            return (
                self._draw_untargeted(numbers, observers) if self.rows is None else self.rows.draw(numbers, observers)
            )
        except UserError as error:
            if self.origin is None:
                raise
            if self.rows is None:
                examine(self.recipe, self.pretrained, self.origin)  # raises the same error with its line
            else:  # other rows may be at fault, too, but not for this error
                examine_scorers(self.recipe, self.pretrained, self.origin)
            raise with_setting_line(error, self.origin) from None

    def _draw_untargeted(self, numbers: Sequence[int], observers: ObserverOptions) -> Generation:
        """Draw samples of a recipe without targets."""
        recipe, make_error = self.recipe, None if self.origin is None else self.origin.error
        control: Control[Any] | None = build_control(recipe.control_specs())
        return draw_recipe(
            recipe,
            control,
            self.pretrained,
            read_prompt(self.pretrained, recipe.label, recipe.source, recipe.prompt, make_error=make_error),
            samples=numbers,
            groups=SampleGroups(distinct=self.distinct),
            **observers,
        )


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(numbers), size):
        yield numbers[at : at + size]


def combined_progress(
    progress: Progress | None, texts: TextProgress | None, done_before: int, size: int, total: int
) -> Progress:
    """A callback for the steps of a part of ``size`` texts that also reports the progress over all texts."""

    def advance(done: int, steps: int) -> None:
        if progress is not None:
            progress(done, steps)
        if texts is not None:
            texts(done_before + size * done / steps, total)

    return advance
