"""Texts for the rows of a table: rows of the same shape share batches, and one that cannot be met affects no other."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.datasets.target_table import Row, Rows, TargetTable, open_table, table_of
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import DataError, ModelError, RecipeError, SettingError, UserError
from dlmctl.generation.distinct import Distinct
from dlmctl.generation.generate import draw_recipe
from dlmctl.generation.options import ObserverOptions
from dlmctl.generation.prompts import joined, read_prompt
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.sample_groups import SampleGroups
from dlmctl.generation.target_rows import RowReader, Target, check_columns, control_of
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible_draws
from dlmctl.sampling.prompted import Prompt

# Most texts of a run, as for a recipe without targets.
MAX_TEXTS = 10**9


def read_targets(recipe: Recipe, origin: SettingsFile | None = None) -> TargetTable | None:
    """Read the table of a recipe; None if it has none.

    Raises:
        DataError: it cannot be read; see ``open_table``.
        RecipeError: it lacks a column that a placeholder names, or the run would have too many texts.
    """
    if recipe.targets is None:
        return None
    if isinstance(recipe.targets, str):
        table = _open(recipe.targets, origin)
    elif origin is None or ("targets", 0) not in origin.lines:
        table = table_of(recipe.targets)
    else:
        lines = (origin.line(("targets", at)) for at in range(len(recipe.targets)))
        table = TargetTable(origin.name, zip(lines, recipe.targets, strict=True))
    check_columns(recipe, table, origin)
    if len(table) * recipe.samples > MAX_TEXTS:
        message = f"{len(table):,} rows of {recipe.samples:,} texts each are more than {MAX_TEXTS:,} texts."
        raise RecipeError(message, where=table.name, remedy="Split the table, or ask for fewer texts with -n.")
    return table


def _open(source: str, origin: SettingsFile | None) -> TargetTable:
    try:
        return open_table(source)
    except DataError as error:
        if origin is None or error.where != source:
            raise
        raise origin.error(("targets",), f"{source}: {error.what}", error.remedy) from None


def concerns_all_rows(error: UserError, filled: Collection[str]) -> bool:
    """Whether an error is about the model or the settings, so that it concerns every row.

    Args:
        filled: the parameters that rows fill; see ``RowReader``.
    """
    if isinstance(error, SettingError) and error.setting in filled:
        return False
    return isinstance(error, ModelError) or (error.where or "").startswith(("sampler.", "guidance."))


class RowGroup(NamedTuple):
    """Rows of the same shape, each with the numbers of its samples."""

    targets: Sequence[Target]
    numbers: Sequence[Sequence[int]]

    def part(self, start: int, stop: int) -> RowGroup:
        return RowGroup(self.targets[start:stop], self.numbers[start:stop])


class TargetRun:
    """Draws texts of a recipe for the rows of its table, with a loaded model.

    Args:
        strict: raise an error for the first row that cannot be met.
        distinct: the texts of the run so far, if none may be repeated.
    """

    def __init__(
        self,
        recipe: Recipe,
        table: Rows,
        pretrained: Pretrained,
        *,
        strict: bool = False,
        distinct: Distinct | None = None,
    ) -> None:
        self.recipe, self.table, self.pretrained, self.strict = recipe, table, pretrained, strict
        self.reader = RowReader(recipe)
        self.groups = SampleGroups(self.row_of, distinct)

    def row_of(self, sample: int) -> int:
        """The row, from 0, that a sample belongs to."""
        return sample // self.recipe.samples

    def draw(self, samples: Sequence[int], observers: ObserverOptions) -> Generation:
        """Draw samples; the result is in the order of their numbers.

        Raises:
            RecipeError: with ``strict``, a row cannot be met; the message names its line.
            ModelError: weights or a scorer are missing.
        """
        start = time.perf_counter()
        by_row: dict[int, list[int]] = {}
        for sample in samples:
            by_row.setdefault(self.row_of(sample), []).append(sample)
        groups: dict[Any, list[tuple[Target, list[int]]]] = {}
        drawn: list[Sample] = []
        for row, numbers in zip(self.table.rows(list(by_row)), by_row.values(), strict=True):
            try:
                target = self.reader.read(row)
            except UserError as error:
                drawn += self._unmet_samples(row, numbers, error)
                continue
            groups.setdefault(target.shape(), []).append((target, numbers))
        environment: dict[str, Any] = {}
        for group in groups.values():
            targets, numbers_of = zip(*group, strict=True)
            for part in self._draw_group(RowGroup(targets, numbers_of), observers):
                environment = part.environment
                drawn += part.samples
        drawn.sort(key=lambda sample: sample.index)
        return Generation(drawn, time.perf_counter() - start, environment)

    def fault(self, rows: Sequence[int]) -> UserError | None:
        """Why the first row that cannot be met fails, None if all rows can be; nothing is drawn."""
        for number in rows:
            (row,) = self.table.rows([number])
            try:
                group = RowGroup([self.reader.read(row)], [[number * self.recipe.samples]])
            except UserError as error:
                return error
            for fault in self._faults(group).values():
                return self.reader.with_row(fault, row)
        return None

    def _draw_group(self, group: RowGroup, observers: ObserverOptions) -> Iterator[Generation]:
        """Draw the rows that can be met, and return empty samples with the reason for the others."""
        try:
            result = self._draw_together(group, observers)
        except UserError as error:
            if concerns_all_rows(error, self.reader.filled):
                raise
            if len(group.targets) == 1:
                yield Generation(self._unmet_samples(group.targets[0].row, group.numbers[0], error), 0.0)
                return
            faults = self._faults(group)
            for at, fault in faults.items():
                yield Generation(self._unmet_samples(group.targets[at].row, group.numbers[at], fault), 0.0)
            positions = [at for at in range(len(group.targets)) if at not in faults]
            valid = RowGroup([group.targets[at] for at in positions], [group.numbers[at] for at in positions])
            parts = (
                [valid]
                if faults
                else [valid.part(0, len(positions) // 2), valid.part(len(positions) // 2, len(positions))]
            )
            for part in parts:
                if part.targets:
                    yield from self._draw_group(part, observers)
            return
        yield result

    def _draw_together(self, group: RowGroup, observers: ObserverOptions) -> Generation:
        control, prompt, places = self._arrange(group)
        rows = {sample: group.targets[row].row for sample, (row, _) in places.items()}
        result = draw_recipe(
            self.recipe,
            control,
            self.pretrained,
            prompt,
            samples=list(places),
            groups=self.groups,
            **observers,
        )
        samples = [replace(sample, target=rows[sample.index]) for sample in result]
        return Generation(samples, result.seconds, result.environment)

    def _arrange(self, group: RowGroup) -> tuple[Control[Any] | None, Prompt | None, dict[int, tuple[int, int]]]:
        """The control and prompt of the samples, and for each sample its row in the group and its number in the row."""
        places = {
            sample: (at, sample % self.recipe.samples) for at, numbers in enumerate(group.numbers) for sample in numbers
        }
        row_prompts = [
            read_prompt(self.pretrained, target.label, target.source, target.prompt) for target in group.targets
        ]
        prompt = None
        if row_prompts[0] is not None:
            prompt = joined([row for row in row_prompts if row is not None], places)
        return control_of(group.targets, places), prompt, places

    def _faults(self, group: RowGroup) -> dict[int, UserError]:
        """Why rows cannot be met, by position in the group; nothing is drawn."""
        try:
            control, prompt, _ = self._arrange(group)
            if control is not None:
                control = control.for_model(self.pretrained)
            recipe = self.recipe
            plan = Plan(self.pretrained, control, recipe.sampler, recipe.guidance, recipe.batch_size, prompt)
            row_of_draw = {numbers[0]: at for at, numbers in enumerate(group.numbers)}
            sample_faults = impossible_draws(plan, [Draw(recipe.seed, sample, 0) for sample in row_of_draw])
        except UserError as error:
            if concerns_all_rows(error, self.reader.filled):
                raise
            size = len(group.targets)
            if size == 1:
                return {0: error}
            left, right = self._faults(group.part(0, size // 2)), self._faults(group.part(size // 2, size))
            return left | {at + size // 2: fault for at, fault in right.items()}
        return {row_of_draw[sample]: fault for sample, fault in sample_faults.items()}

    def _unmet_samples(self, row: Row, numbers: Sequence[int], error: UserError) -> list[Sample]:
        error = self.reader.with_row(error, row)
        if self.strict:
            raise error
        empty_latent = np.zeros((0, self.pretrained.model.embeddings.shape[-1]), np.float32)
        return [Sample(number, [], "", {}, empty_latent, target=row, unmet=str(error)) for number in numbers]
