"""Tables of other libraries, as rows and as columns: data frames of pandas and Polars, tables of PyArrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np


def rows_in(table: Any) -> list[Any] | None:
    """The rows of a table as dicts; None if it is no such table."""
    for method in ("to_dicts", "to_pylist"):  # Polars; PyArrow
        if hasattr(table, method):
            return list(getattr(table, method)())
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        return list(table.to_dict("records"))  # pandas
    return None


def columns_in(table: Any) -> Mapping[str, Any] | None:
    """The columns of a table by name, each as its cells; None if it is no such table.

    Raises:
        ValueError: two columns have the same name.
    """
    names = getattr(table, "column_names", getattr(table, "columns", None))  # those of PyArrow; of data frames
    if names is None or isinstance(table, type) or not hasattr(table, "__getitem__"):
        return None
    if twice := [name for at, name in enumerate(names) if name in list(names)[:at]]:
        raise ValueError(f"has the column {twice[0]!r} twice.")
    return {name: in_order(table[name]) for name in names}


def in_order(column: Any) -> Sequence[Any]:
    """The cells of a column in order; a pandas Series would look them up by its labels."""
    if type(column) is list or isinstance(column, np.ndarray):
        return cast("Sequence[Any]", column)
    # For PyArrow, whose cells are otherwise objects without arithmetic.
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
