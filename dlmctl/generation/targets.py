"""Texts for the rows of a table: rows of one shape share batches, and a row that cannot be met costs no other."""

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
from dlmctl.errors import DataError, ModelError, NamedError, RecipeError, UserError
from dlmctl.generation.distinct import Distinct
from dlmctl.generation.generate import draw_recipe
from dlmctl.generation.options import Look
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.sample_groups import SampleGroups
from dlmctl.generation.target_rows import RowReader, Target, check_columns, control_of
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible
from dlmctl.sampling.prompted import Prompt

# Texts of a whole run, as of a recipe without targets.
MOST_TEXTS = 10**9


def read_targets(recipe: Recipe, origin: SettingsFile | None = None) -> TargetTable | None:
    """The table of a recipe, None where it has none.

    Raises:
        DataError: it cannot be read; see ``open_table``.
        RecipeError: it lacks a column that a placeholder names, or asks for too many texts.
    """
    if recipe.targets is None:
        return None
    if isinstance(recipe.targets, str):
        table = _opened(recipe.targets, origin)
    elif origin is None or ("targets", 0) not in origin.lines:
        table = table_of(recipe.targets)
    else:
        lines = (origin.line(("targets", at)) for at in range(len(recipe.targets)))
        table = TargetTable(origin.name, zip(lines, recipe.targets, strict=True))
    check_columns(recipe, table, origin)
    if len(table) * recipe.samples > MOST_TEXTS:
        what = f"{len(table):,} rows of {recipe.samples:,} texts each are more than {MOST_TEXTS:,} texts."
        raise RecipeError(what, where=table.name, remedy="Split the table, or ask for fewer texts with -n.")
    return table


def _opened(source: str, origin: SettingsFile | None) -> TargetTable:
    try:
        return open_table(source)
    except DataError as error:
        if origin is None or error.where != source:
            raise
        raise origin.error(("targets",), f"{source}: {error.what}", error.remedy) from None


def of_all(error: UserError, filled: Collection[str]) -> bool:
    """Whether an error is about the model or the settings, so that no row can help it.

    Args:
        filled: the parameters that rows give; see ``RowReader``.
    """
    if isinstance(error, NamedError) and error.setting in filled:
        return False
    return isinstance(error, ModelError) or (error.where or "").startswith(("sampler.", "guidance."))


class RowGroup(NamedTuple):
    """Some rows of one shape, each with the numbers of its samples."""

    targets: Sequence[Target]
    numbers: Sequence[Sequence[int]]

    def part(self, start: int, stop: int) -> RowGroup:
        return RowGroup(self.targets[start:stop], self.numbers[start:stop])


class TargetRun:
    """A recipe with its table, its model at hand.

    Args:
        strict: the first row that cannot be met ends the run.
        distinct: the texts of the run so far, where none may come twice.
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
        self.company = SampleGroups(self.row_of, distinct)

    def row_of(self, sample: int) -> int:
        """The row, from 0, that a sample belongs to."""
        return sample // self.recipe.samples

    def draw(self, samples: Sequence[int], look: Look) -> Generation:
        """The texts of some samples, in order.

        Raises:
            RecipeError: with ``strict``, a row cannot be met; the message names its line.
            ModelError: weights or a scorer are missing.
        """
        started = time.perf_counter()
        by_row: dict[int, list[int]] = {}
        for sample in samples:
            by_row.setdefault(self.row_of(sample), []).append(sample)
        groups: dict[Any, list[tuple[Target, list[int]]]] = {}
        found: list[Sample] = []
        for row, numbers in zip(self.table.rows(list(by_row)), by_row.values(), strict=True):
            try:
                target = self.reader.read(row)
            except UserError as error:
                found += self._unmet(row, numbers, error)
                continue
            groups.setdefault(target.shape(), []).append((target, numbers))
        environment: dict[str, Any] = {}
        for group in groups.values():
            targets, numbers_of = zip(*group, strict=True)
            for part in self._drawn(RowGroup(targets, numbers_of), look):
                environment = part.environment
                found += part.samples
        found.sort(key=lambda sample: sample.index)
        return Generation(found, time.perf_counter() - started, environment)

    def fault(self, rows: Sequence[int]) -> UserError | None:
        """What stands against the first of some rows that cannot be met; nothing is drawn."""
        for number in rows:
            (row,) = self.table.rows([number])
            try:
                group = RowGroup([self.reader.read(row)], [[number * self.recipe.samples]])
            except UserError as error:
                return error
            for fault in self._faults(group).values():
                return self.reader.located(fault, row)
        return None

    def _drawn(self, group: RowGroup, look: Look) -> Iterator[Generation]:
        """The texts of the rows that can be met, and for the others why not."""
        try:
            result = self._together(group, look)
        except UserError as error:
            if of_all(error, self.reader.filled):
                raise
            if len(group.targets) == 1:
                yield Generation(self._unmet(group.targets[0].row, group.numbers[0], error), 0.0)
                return
            faults = self._faults(group)
            for at, fault in faults.items():
                yield Generation(self._unmet(group.targets[at].row, group.numbers[at], fault), 0.0)
            kept = [at for at in range(len(group.targets)) if at not in faults]
            good = RowGroup([group.targets[at] for at in kept], [group.numbers[at] for at in kept])
            halves = [good] if faults else [good.part(0, len(kept) // 2), good.part(len(kept) // 2, len(kept))]
            for half in halves:
                if half.targets:
                    yield from self._drawn(half, look)
            return
        yield result

    def _together(self, group: RowGroup, look: Look) -> Generation:
        control, prompt, places = self._laid_out(group)
        rows = {sample: group.targets[row].row for sample, (row, _) in places.items()}
        result = draw_recipe(
            self.recipe,
            control,
            self.pretrained,
            prompt,
            samples=list(places),
            company=self.company,
            **look,
        )
        samples = [replace(sample, target=rows[sample.index]) for sample in result]
        return Generation(samples, result.seconds, result.environment)

    def _laid_out(self, group: RowGroup) -> tuple[Control[Any] | None, Prompt | None, dict[int, tuple[int, int]]]:
        """What the samples are drawn under, and of each its row among those asked for and which text of it it is."""
        places = {
            sample: (at, sample % self.recipe.samples) for at, numbers in enumerate(group.numbers) for sample in numbers
        }
        prompts = [read_prompt(self.pretrained, one.label, one.source, one.prompt) for one in group.targets]
        prompt = None
        if prompts[0] is not None:
            labels = [label for one in prompts if one is not None for label in one.labels[:1]]
            sources = [source for one in prompts if one is not None for source in one.sources[:1]]
            texts = [text for one in prompts if one is not None for text in one.texts[:1]]
            prompt = Prompt(labels, sources, texts, {sample: row for sample, (row, _) in places.items()})
        return control_of(group.targets, places), prompt, places

    def _faults(self, group: RowGroup) -> dict[int, UserError]:
        """What stands against each row that cannot be met, by its place; nothing is drawn."""
        try:
            control, prompt, _ = self._laid_out(group)
            if control is not None:
                control = control.for_model(self.pretrained)
            recipe = self.recipe
            plan = Plan(self.pretrained, control, recipe.sampler, recipe.guidance, recipe.batch_size, prompt)
            first = {numbers[0]: at for at, numbers in enumerate(group.numbers)}
            found = impossible(plan, [Draw(recipe.seed, sample, 0) for sample in first])
        except UserError as error:
            if of_all(error, self.reader.filled):
                raise
            size = len(group.targets)
            if size == 1:
                return {0: error}
            left, right = self._faults(group.part(0, size // 2)), self._faults(group.part(size // 2, size))
            return left | {at + size // 2: fault for at, fault in right.items()}
        return {first[sample]: fault for sample, fault in found.items()}

    def _unmet(self, row: Row, numbers: Sequence[int], error: UserError) -> list[Sample]:
        error = self.reader.located(error, row)
        if self.strict:
            raise error
        nothing = np.zeros((0, self.pretrained.model.embeddings.shape[-1]), np.float32)
        return [Sample(number, [], "", {}, nothing, target=row, unmet=str(error)) for number in numbers]
