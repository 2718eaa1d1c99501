"""A recipe as a function of batches of rows, for programs that share a large table out among many workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import UserError
from dlmctl.generation.batch_rows import Batch, BatchRows, in_order
from dlmctl.generation.bulk import refuse_strangers
from dlmctl.generation.diagnose import at_its_setting, load_model
from dlmctl.generation.distinct import LABEL
from dlmctl.generation.flat import Columns, Record
from dlmctl.generation.generate import require_plain
from dlmctl.generation.identity import about_run
from dlmctl.generation.model import recipe_from
from dlmctl.generation.results import Sample
from dlmctl.generation.target_rows import check_columns, labels_of, named_columns
from dlmctl.generation.targets import TargetRun
from dlmctl.metrics.acceptability import find_reader
from dlmctl.metrics.lm_score import scorer_of
from dlmctl.recipe.recipe import Recipe


class _Loaded(NamedTuple):
    pretrained: Pretrained
    about: Mapping[str, Any]
    scored: bool
    read: bool


class Generator:
    """A recipe as a callable on batches of rows: a dict of columns in, the same and those of the texts out.

    It fits ``ray.data.Dataset.map_batches`` and ``datasets.Dataset.map(batched=True, with_indices=True)`` as it is. The
    rows are targets: their cells fill the recipe's placeholders. Which texts a row gets follows from the recipe's seed
    and the row's place in the whole table, never from its batch or its worker: they are those of
    ``dlmctl.run(recipe, targets=table)``, but for the rounding of their batches.

    Before its first batch it holds no model, so it travels to workers as a few kilobytes, and each loads its own.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe | Mapping[str, Any],
        *,
        index: str = "index",
        samples: int | None = None,
        seed: int | None = None,
        overrides: Sequence[str] = (),
        strict: bool = False,
    ) -> None:
        """Reads the recipe; its model is loaded with the first batch.

        Args:
            recipe: as of ``run``; targets that it names itself are left alone.
            index: the column that says where in the whole table a row stands, from 0.
            samples: texts of each row; seed: of the run; both in place of the recipe's.
            overrides: settings laid over those of a file, as of ``run``.
            strict: a row that cannot be met is an error; else its column ``problem`` says what is wrong.

        Raises:
            UserError: the recipe cannot be read, does not validate, or no text of it may come twice in the whole run,
                which no worker can see to.
        """
        # One row that stands for all that come, so that placeholders may stand.
        read, self.origin = recipe_from(recipe, overrides, targets=[{"": ""}], samples=samples, seed=seed)
        require_plain(read, self.origin)
        self.recipe = read.model_copy(update={"targets": None})
        refuse_strangers(self.recipe, rows=True)
        self.index, self.strict = index, strict
        self.named = sorted({column for column, _ in named_columns(self.recipe)})

    def __call__(self, batch: Batch, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """The rows of a batch with their texts.

        Args:
            batch: columns by name, each a list, an array, or a Series of pandas, whose order counts, not its index.
            indices: the places of its rows in the whole table, in place of the column ``index``.

        Returns:
            The columns of ``Generation.to_pandas``, one row for each text, those of the batch among them as they
            came (``target_`` is put before a name that is taken). Every batch has the same columns of the same types:
            a control that a row leaves out is passed, with not-a-number as its score, and no problem is an empty text.

        Raises:
            DataError: it is no batch, lacks a column, or a place is none.
            RecipeError: with ``strict``, a row cannot be met.
            ModelError: the model cannot be had.
        """
        samples = self.recipe.samples
        rows = BatchRows(batch, self.index, indices, samples, self.named)
        check_columns(self.recipe, rows, self.origin)
        numbers = [place * samples + text for place in rows.places for text in range(samples)]
        try:
            drawn = TargetRun(self.recipe, rows, self._loaded.pretrained, strict=self.strict).draw(numbers, {})
        except UserError as error:
            raise error if self.origin is None else at_its_setting(error, self.origin) from None
        found = {sample.index: sample for sample in drawn}
        return self._columns(rows, [found[number] for number in numbers])

    def _columns(self, rows: BatchRows, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as columns; which ones does not depend on the batch."""
        # What the rows hold is taken from the batch, which may hold more than a text in JSON can.
        records = [{**sample.to_dict(), **self._loaded.about, "columns": {}} for sample in samples]
        names = self._columns_of(rows, records)
        own = {names.renamed[name]: name for name in names.targets}
        flat = [names.row(record) for record in records]
        # A control that a row leaves out is met, as nothing was asked; of a text that could not be drawn none is.
        nothing = [{str: "", float: math.nan, bool: sample.unmet is None} for sample in samples]
        return {
            name: _repeated(rows.batch[own[name]], self.recipe.samples)
            if name in own
            else [empty[kind] if row[name] is None else row[name] for row, empty in zip(flat, nothing, strict=True)]
            for name, kind in names.kinds.items()
        }

    def _columns_of(self, rows: BatchRows, records: Sequence[Record]) -> Columns:
        names = Columns()
        labels = [*labels_of(self.recipe.control_specs()), *([LABEL] if self.recipe.quota is not None else [])]
        names.rows, names.scored, names.read = True, self._loaded.scored, self._loaded.read
        names.controls.update(dict.fromkeys(labels))
        names.others.update(dict.fromkeys(("rounds", "problem", *self._loaded.about)))
        for record in records:
            names.see(record)
        # The column of places becomes that of the numbers of texts, where it has the same name.
        replaced = self.index if rows.in_column and self.index == "index" else None
        names.targets = {name: set() for name in rows.columns if name != replaced}
        return names

    @cached_property
    def _loaded(self) -> _Loaded:
        pretrained = load_model(self.recipe, self.origin)
        scored = scorer_of(pretrained.folder) is not None
        return _Loaded(
            pretrained, about_run(self.recipe, pretrained), scored, scored and find_reader(pretrained) is not None
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, which each worker loads for itself."""
        return {name: value for name, value in vars(self).items() if name != "_loaded"}


def _repeated(column: Any, count: int) -> Any:
    """A column with each cell so many times."""
    if count == 1:
        return column
    return (
        np.repeat(column, count, axis=0)
        if isinstance(column, np.ndarray)
        else [cell for cell in in_order(column) for _ in range(count)]
    )
