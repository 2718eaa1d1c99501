"""Results for pandas and Hugging Face datasets, if these are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlmctl.errors import UserError
from dlmctl.generation.flat import Columns, Record


def as_frame(records: Sequence[Record], targets: Sequence[str] = ()) -> Any:
    """A ``pandas.DataFrame`` of flat rows; ``targets`` are the columns of the user's table.

    Raises:
        UserError: pandas is not installed.
    """
    columns = Columns.of(records, targets)
    return frame_of_rows([columns.row(record) for record in records], list(columns.kinds))


def frame_of_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """A ``pandas.DataFrame`` of rows by column.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        remedy = 'Install it with `pip install "dlmctl[pandas]"`.'
        raise UserError("a data frame needs pandas.", remedy=remedy) from None
    return pandas.DataFrame(list(rows), columns=list(columns))


def as_dataset(records: Sequence[Record], targets: Sequence[str] = ()) -> Any:
    """A ``datasets.Dataset`` of flat rows; ``targets`` are the columns of the user's table.

    Raises:
        UserError: the package datasets is not installed.
    """
    try:
        import datasets
    except ImportError:
        remedy = 'Install it with `pip install "dlmctl[datasets]"`.'
        raise UserError("a data set needs the package datasets.", remedy=remedy) from None
    columns = Columns.of(records, targets)
    rows = [columns.row(record) for record in records]
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in columns.kinds})
