"""A recipe as a function on batches of rows, for programs that distribute a large table among many workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlmctl.annotators.reader import text_scorer
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.user_files import Versions, one_version
from dlmctl.datasets.in_memory import in_order
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import UserError
from dlmctl.generation.batch_rows import Batch, BatchRows
from dlmctl.generation.bulk import require_independent_texts
from dlmctl.generation.diagnose import load_model, with_setting_line
from dlmctl.generation.distinct import LABEL
from dlmctl.generation.flat import Columns, Record
from dlmctl.generation.generate import require_plain
from dlmctl.generation.identity import about_run
from dlmctl.generation.model import AnyRecipe, Overridden, name_and_model, recipe_from
from dlmctl.generation.results import Sample
from dlmctl.generation.target_rows import check_columns, measures_of, named_columns
from dlmctl.generation.targets import TargetRun
from dlmctl.metrics.acceptability import find_acceptability


class _Loaded(NamedTuple):
    """What all batches of a worker share, read once.

    Attributes:
        about: as ``about_run`` returns it.
        measures: the labels of a text's checks, and the values that each may have.
    """

    pretrained: Pretrained
    about: Mapping[str, Any]
    measures: Mapping[str, Sequence[str]]
    has_fluency: bool
    has_acceptability: bool


class Generator:
    """A recipe as a callable on batches of rows: takes a dict of columns and returns it with the columns of the texts.

    It can be passed to ``ray.data.Dataset.map_batches`` and ``datasets.Dataset.map(batched=True, with_indices=True)``.
    The rows are targets: their cells fill the recipe's placeholders. The texts of a row depend on the recipe's seed and
    the row's place in the whole table, never on its batch or its worker: except for rounding within batches, they are
    those of ``dlmctl.run(recipe, targets=table)``.

    It is pickled without its model, to a few kilobytes, and each worker loads the model for itself.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        *,
        model: str | Path | Pretrained | None = None,
        index: str = "index",
        samples: int | None = None,
        seed: int | None = None,
        overrides: Overridden = (),
        strict: bool = False,
    ) -> None:
        """Read the recipe; its model is loaded with the first batch.

        Args:
            recipe: as for ``run``; its own targets are ignored.
            model: as for ``run``; of one already loaded, other processes get the name, and load it for themselves.
            index: the column with the place of a row in the whole table, from 0.
            samples: texts of each row; seed: of the run; both in place of the recipe's.
            overrides: settings that override those of a file, as for ``run``.
            strict: raise an error for a row that cannot be met; otherwise its column ``problem`` says why.

        Raises:
            UserError: the recipe cannot be read, does not validate, or forbids repeated texts across the whole run,
                which no worker can ensure.
        """
        name, self._model = name_and_model(model)
        with one_version(self._files):
            # A dummy row, so that placeholders validate.
            resolved, self.origin = recipe_from(
                recipe, overrides, model=name, targets=[{"": ""}], samples=samples, seed=seed
            )
        require_plain(resolved, self.origin)
        self.recipe = resolved.model_copy(update={"targets": None})
        require_independent_texts(self.recipe, rows=True)
        self.index, self.strict = index, strict
        self.named = sorted({column for column, _ in named_columns(self.recipe)})

    @own_modes()  # judges are loaded here, too
    def __call__(self, batch: Batch, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """Draw the texts of a batch of rows.

        Args:
            batch: columns by name, each a list, an array, or a pandas Series, which is read in order, not by its index;
                or a data frame.
            indices: the places of its rows in the whole table, in place of the column ``index``.

        Returns:
            The columns of ``Generation.to_pandas``, one row for each text, including the columns of the batch with
            unchanged cells (``target_`` is prefixed to a name that is taken). Every batch has the same columns and
            types: a control that a row leaves out is passed, with NaN as its score, and no problem is an empty string.

        Raises:
            DataError: it is not a batch, lacks a column, or has an invalid place.
            RecipeError: with ``strict``, a row cannot be met.
            ModelError: the model cannot be loaded.
        """
        with one_version(self._files):
            return self._draw(BatchRows(batch, self.index, indices, self.recipe.samples, self.named))

    def _draw(self, rows: BatchRows) -> dict[str, Any]:
        samples = self.recipe.samples
        check_columns(self.recipe, rows, self.origin)
        numbers = [place * samples + text for place in rows.places for text in range(samples)]
        try:
            drawn = TargetRun(self.recipe, rows, self._loaded.pretrained, strict=self.strict).draw(numbers, {})
        except UserError as error:
            raise error if self.origin is None else with_setting_line(error, self.origin) from None
        sample_of_number = {sample.index: sample for sample in drawn}
        return self._as_columns(rows, [sample_of_number[number] for number in numbers])

    def _as_columns(self, rows: BatchRows, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as columns; the set of columns does not depend on the batch."""
        # Cells of the rows are copied from the batch, as they may hold values that JSON cannot.
        records = [{**sample.to_dict(), **self._loaded.about, "columns": {}} for sample in samples]
        columns = self._flat_columns(rows, records)
        batch_columns = {columns.renamed[name]: name for name in columns.targets}
        flat_rows = [columns.row(record) for record in records]
        # A control that a row leaves out counts as passed; for a text that could not be drawn, no control does.
        defaults = [{str: "", float: math.nan, bool: sample.unmet is None} for sample in samples]
        return {
            name: _repeat_cells(rows.batch[batch_columns[name]], self.recipe.samples)
            if name in batch_columns
            else [
                default[kind] if row[name] is None else row[name]
                for row, default in zip(flat_rows, defaults, strict=True)
            ]
            for name, kind in columns.kinds.items()
        }

    def _flat_columns(self, rows: BatchRows, records: Sequence[Record]) -> Columns:
        columns = Columns()
        columns.has_rows, columns.has_fluency = True, self._loaded.has_fluency
        columns.has_acceptability = self._loaded.has_acceptability
        columns.controls.update({label: dict.fromkeys(names) for label, names in self._loaded.measures.items()})
        columns.others.update(dict.fromkeys(("rounds", "problem", *self._loaded.about)))
        for record in records:
            columns.add(record)
        # If the column of places is named "index", the column of sample numbers replaces it.
        replaced_column = self.index if rows.has_index_column and self.index == "index" else None
        columns.targets = {name: set() for name in rows.columns if name != replaced_column}
        return columns

    @cached_property
    def _files(self) -> Versions:
        """The user's files, in the same version for all batches of a worker."""
        return {}

    @cached_property
    def _loaded(self) -> _Loaded:
        pretrained = load_model(self.recipe, self.origin, self._model)
        has_fluency = text_scorer(pretrained) is not None
        measures = measures_of(self.recipe.control_specs())
        return _Loaded(
            pretrained,
            about_run(self.recipe, pretrained),
            measures if self.recipe.quota is None else {**measures, LABEL: ()},
            has_fluency,
            has_fluency and find_acceptability(pretrained) is not None,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The state without the model and the user's files, which each worker loads for itself."""
        state = {name: value for name, value in vars(self).items() if name not in ("_loaded", "_files")}
        return {**state, "_model": None}


def _repeat_cells(column: Any, count: int) -> Any:
    """A column with each cell repeated ``count`` times."""
    if count == 1:
        return column
    return (
        np.repeat(column, count, axis=0)
        if isinstance(column, np.ndarray)
        else [cell for cell in in_order(column) for _ in range(count)]
    )
