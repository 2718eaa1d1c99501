"""Table rows as targets of a recipe: rows of the same shape share a control, with parameters of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dlmctl.control.base import All, Control
from dlmctl.control.check import unique_labels
from dlmctl.control.registry import find_control
from dlmctl.control.shorthand import warn_of_cell
from dlmctl.datasets.target_table import Row, Rows
from dlmctl.errors import RecipeError, UserError, readable, typed_message
from dlmctl.recipe.build import combination, control_from_sets, params_of_entry
from dlmctl.recipe.cells import fill_params, read_params
from dlmctl.recipe.explain import explain, settings_place
from dlmctl.recipe.placeholders import fill_placeholders, placeholders_in
from dlmctl.recipe.readable import PythonSettings
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Recipe, nested_specs
from dlmctl.recipe.stray_placeholders import PLACEHOLDER_SETTINGS
from dlmctl.recipe.yaml_file import Place, SettingsFile


class Node(NamedTuple):
    """An entry of a recipe's controls, filled with a row's cells; ``kind`` is None for combinations and objects."""

    spec: ControlSpec
    params: Sequence[BaseModel]
    parts: tuple[Node, ...]
    kind: type[Control[Any]] | None = None

    def shape(self) -> tuple[Any, ...]:
        """What rows must have in common to be drawn together: the same entries, with any parameters."""
        return (*self.spec.place, len(self.params), tuple(part.shape() for part in self.parts))


class Target(NamedTuple):
    """A row with the controls and the prompt that it fills."""

    row: Row
    nodes: tuple[Node, ...]
    label: Any
    source: Any
    prompt: Any

    def shape(self) -> tuple[Any, ...]:
        return (
            tuple(node.shape() for node in self.nodes),
            self.label is None,
            self.source is None,
            self.prompt is None,
        )


class _RowFile(SettingsFile):
    """A row in place of a settings file, for the location of errors."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.where)

    def where(self, place: Place) -> str:
        return self.name


class RowReader:
    """Fills the entries of a recipe from rows.

    Attributes:
        filled: the names of parameters, such as ``judge``, that have a placeholder in any entry.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.specs = recipe, recipe.control_specs()
        places = [place for spec in nested_specs(self.specs) for _, place in placeholders_in(spec.params)]
        self.filled = {step for place in places for step in place if isinstance(step, str)}
        self._fixed: dict[Place, list[BaseModel]] = {}
        # To find a control, the files of all installed packages are read.
        self._kinds: dict[str, type[Control[Any]]] = {}

    def read(self, row: Row) -> Target:
        """Fill the recipe from a row.

        Raises:
            RecipeError: a cell has a value that its placeholder does not accept; the message names the row's line.
        """
        try:
            nodes = tuple(node for spec in self.specs if (node := self._node(spec, row)) is not None)
            conditioning = [
                fill_placeholders(getattr(self.recipe, name), row.cells).value for name in ("label", "source", "prompt")
            ]
        except UserError as error:
            raise self.with_row(error, row) from None
        return Target(row, nodes, *conditioning)

    def with_row(self, error: UserError, row: Row) -> UserError:
        """The error with the row's line in front, and with the columns that fill the control or setting at fault."""
        if error.where == row.where:
            return error
        inner = error.where if error.where and not error.where.startswith("sample ") else None
        what = f"{inner}: {error.what}" if inner else error.what
        names = [name for part in (inner or "").split(" and ") for name in self._columns_of(part)]
        return RecipeError(_column_prefix(names) + what, where=row.where, remedy=error.remedy)

    def _columns_of(self, part: str) -> list[str]:
        """The columns that fill the controls with a name, or a setting of the recipe."""
        values = [spec.params for spec in nested_specs(self.specs) if spec.name == part]
        values += [[getattr(self.recipe, part)]] if part in PLACEHOLDER_SETTINGS else []
        return [name for value in values for name, _ in placeholders_in(value)]

    def _node(self, spec: ControlSpec, row: Row) -> Node | None:
        if spec.control is not None:
            return Node(spec, (), ())
        if spec.name in COMBINATIONS:
            parts = tuple(node for part in spec.parts if (node := self._node(part, row)) is not None)
            return Node(spec, (), parts) if parts else None
        if spec.name not in self._kinds:
            self._kinds[spec.name] = find_control(spec.name)
        kind = self._kinds[spec.name]
        if spec.place not in self._fixed and not any(placeholders_in(spec.params)):
            self._fixed[spec.place] = params_of_entry(kind, spec, PythonSettings("recipe"))
        if spec.place in self._fixed:
            return Node(spec, self._fixed[spec.place], (), kind)
        row_params = [self._params(kind, spec, params, row) for params in spec.params]
        filled_sets = [params for params in row_params if params is not None]
        return Node(spec, filled_sets, (), kind) if filled_sets else None

    def _params(self, kind: type[Control[Any]], spec: ControlSpec, params: Any, row: Row) -> BaseModel | None:
        filled_params = fill_params(kind.Params, params, row.cells)
        for name, *at in filled_params.cells:
            if len(at) == 1 and isinstance(at[0], int):
                cell = filled_params.value[name][at[0]]
                columns = (column for column, _ in placeholders_in(params) if row.cells.get(column) == cell)
                warn_of_cell(kind.Params, str(name), next(columns), cell)
        try:
            return read_params(kind.Params, filled_params, decimal_comma=row.decimal_comma)
        except ValidationError as error:
            place = settings_place(error.errors(include_url=False)[0], filled_params.value)
            fault = explain(error, kind.Params, spec.place, _RowFile(row), filled_params.value)
            message = _column_prefix([name for name, _ in placeholders_in(_deepest_value(params, place))]) + fault.what
            raise RecipeError(message, where=fault.where, remedy=fault.remedy) from None
        except UserError:
            raise
        except Exception as error:  # from a plug-in's validators
            message = f"the control {spec.name!r} fails on this row: {typed_message(error)}."
            raise UserError(message, where=row.where) from error


def _deepest_value(value: Any, place: Place) -> Any:
    """The value at a place, or at the deepest existing step of it."""
    for step in place:
        has_step = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
        if not has_step:
            break
        value = value[step]
    return value


def _column_prefix(names: Sequence[str]) -> str:
    """The columns at fault, as a prefix of the message."""
    listed = [repr(readable(name, 60)) for name in dict.fromkeys(names)]
    return f"column{'s' if len(listed) > 1 else ''} {', '.join(listed)}: " if listed else ""


def named_columns(recipe: Recipe) -> Iterator[tuple[str, Place]]:
    """The columns that a recipe's placeholders name, each with the place of its placeholder."""
    return placeholders_in({name: getattr(recipe, name) for name in PLACEHOLDER_SETTINGS})


def check_columns(recipe: Recipe, table: Rows, origin: SettingsFile | None) -> None:
    """Check that the table has every column that a placeholder names.

    Raises:
        RecipeError: one is missing; the message names the line of the placeholder.
    """
    file = origin or SettingsFile("recipe")
    for column, place in named_columns(recipe):
        if column not in table.columns:
            shown = ", ".join(table.columns[:12]) + (", ..." if len(table.columns) > 12 else "")
            remedy = f"Its columns are {shown}." if shown else "It has no columns at all."
            raise file.error(place, f"{table.name} has no column {column!r}.", remedy)


def measures_of(specs: Sequence[ControlSpec]) -> dict[str, tuple[str, ...]]:
    """The labels of a text's checks if its row fills every entry (see ``check_all``), and the values that each has."""
    checked = list(_checked(specs))
    labels = unique_labels([spec.name for spec in checked])
    return {label: tuple(_measures(spec)) for label, spec in zip(labels, checked, strict=True)}


def _checked(specs: Sequence[ControlSpec]) -> Iterator[ControlSpec]:
    for spec in specs:
        if spec.name == "all" and spec.weight == 1:
            yield from _checked(spec.parts)
        else:
            yield spec


def _measures(spec: ControlSpec) -> Iterator[str]:
    """The names of the values that the check of an entry may have."""
    if spec.parts:
        yield from (name for part in spec.parts for name in _measures(part))
    else:
        yield from (find_control(spec.name) if spec.control is None else type(spec.control)).measures


def control_of(targets: Sequence[Target], samples: Mapping[int, tuple[int, int]]) -> Control[Any] | None:
    """A control for the samples of rows of the same shape, or None if they have none.

    Args:
        samples: for each sample, the position of its row in ``targets`` and the number of its text within the row.
    """
    controls = [
        _joint_control([target.nodes[at] for target in targets], samples) for at in range(len(targets[0].nodes))
    ]
    if not controls:
        return None
    return controls[0] if len(controls) == 1 else All(controls)


def _joint_control(nodes: Sequence[Node], samples: Mapping[int, tuple[int, int]]) -> Control[Any]:
    spec, params, parts, kind = nodes[0]
    if spec.control is not None:
        return spec.control
    if kind is None:
        components = [_joint_control([node.parts[at] for node in nodes], samples) for at in range(len(parts))]
        control = combination(spec.name, components)
    else:
        set_count = len(params)
        is_fixed = all(node.params is params for node in nodes)
        param_sets = params if is_fixed else [param_set for node in nodes for param_set in node.params]
        control = control_from_sets(kind, spec, param_sets)
        control.places = {
            sample: (0 if is_fixed else row * set_count) + text % set_count for sample, (row, text) in samples.items()
        }
    control.weight *= spec.weight
    return control
