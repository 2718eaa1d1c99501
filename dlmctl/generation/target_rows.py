"""Rows of a table as what a recipe asks for: one control for rows of one shape, each with its own parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dlmctl.control.base import All, Control
from dlmctl.control.check import numbered
from dlmctl.control.registry import find_control
from dlmctl.datasets.target_table import Row, Rows
from dlmctl.errors import RecipeError, UserError, first_line, readable
from dlmctl.recipe.build import combined, made_of
from dlmctl.recipe.cells import fill_params, read_params
from dlmctl.recipe.explain import explain, settings_place
from dlmctl.recipe.placeholders import filled, placeholders_in
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Recipe, every
from dlmctl.recipe.stray_placeholders import FILLED
from dlmctl.recipe.yaml_file import Place, SettingsFile


class Node(NamedTuple):
    """An entry of the controls with a row's cells in it."""

    spec: ControlSpec
    params: Sequence[BaseModel]
    parts: tuple[Node, ...]

    def shape(self) -> tuple[Any, ...]:
        """What rows must have in common to be drawn together: the same entries, whatever their parameters."""
        return (*self.spec.place, len(self.params), tuple(part.shape() for part in self.parts))


class Target(NamedTuple):
    """What a row asks for."""

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
    """A row as the place of its faults."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.where)

    def where(self, place: Place) -> str:
        return self.name


class RowReader:
    """Reads rows by the entries of a recipe.

    Attributes:
        filled: the parameters, such as ``judge``, that have a placeholder in any of them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.specs = recipe, recipe.control_specs()
        places = [place for spec in every(self.specs) for _, place in placeholders_in(spec.params)]
        self.filled = {step for place in places for step in place if isinstance(step, str)}
        self._fixed: dict[Place, list[BaseModel]] = {}

    def read(self, row: Row) -> Target:
        """What a row asks for.

        Raises:
            RecipeError: a cell is not what its place takes; the message names the row's line.
        """
        try:
            nodes = tuple(node for spec in self.specs if (node := self._node(spec, row)) is not None)
            given = [filled(getattr(self.recipe, name), row.cells).value for name in ("label", "source", "prompt")]
        except UserError as error:
            raise self.located(error, row) from None
        return Target(row, nodes, *given)

    def located(self, error: UserError, row: Row) -> UserError:
        """An error about a row with the row's line in front, and the columns that what it names is filled from."""
        if error.where == row.where:
            return error
        inner = error.where if error.where and not error.where.startswith("sample ") else None
        what = f"{inner}: {error.what}" if inner else error.what
        names = [name for part in (inner or "").split(" and ") for name in self._columns_of(part)]
        return RecipeError(_of_columns(names) + what, where=row.where, remedy=error.remedy)

    def _columns_of(self, part: str) -> list[str]:
        """The columns that fill the controls of a name, or a setting of the recipe."""
        values = [spec.params for spec in every(self.specs) if spec.name == part]
        values += [[getattr(self.recipe, part)]] if part in FILLED else []
        return [name for value in values for name, _ in placeholders_in(value)]

    def _node(self, spec: ControlSpec, row: Row) -> Node | None:
        if spec.made is not None:
            return Node(spec, (), ())
        if spec.name in COMBINATIONS:
            parts = tuple(node for part in spec.parts if (node := self._node(part, row)) is not None)
            return Node(spec, (), parts) if parts else None
        kind = find_control(spec.name)
        if spec.place not in self._fixed and not any(placeholders_in(spec.params)):
            self._fixed[spec.place] = [kind.Params.model_validate(params) for params in spec.params]
        if spec.place in self._fixed:
            return Node(spec, self._fixed[spec.place], ())
        found = [self._params(kind, spec, params, row) for params in spec.params]
        kept = [params for params in found if params is not None]
        return Node(spec, kept, ()) if kept else None

    def _params(self, kind: type[Control[Any]], spec: ControlSpec, params: Any, row: Row) -> BaseModel | None:
        cells = fill_params(kind.Params, params, row.cells)
        try:
            return read_params(kind.Params, cells, decimal_comma=row.decimal_comma)
        except ValidationError as error:
            place = settings_place(error.errors(include_url=False)[0], cells.value)
            found = explain(error, kind.Params, spec.place, _RowFile(row), cells.value)
            what = _of_columns([name for name, _ in placeholders_in(_value_at(params, place))]) + found.what
            raise RecipeError(what, where=found.where, remedy=found.remedy) from None
        except UserError:
            raise
        except Exception as error:  # of a plug-in's own validators
            what = f"the control {spec.name!r} fails on this row: {first_line(error)}."
            raise UserError(what, where=row.where) from error


def _value_at(value: Any, place: Place) -> Any:
    """What stands at a place, as far as it leads."""
    for step in place:
        known = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
        if not known:
            break
        value = value[step]
    return value


def _of_columns(names: Sequence[str]) -> str:
    """The columns that a fault comes from, as they stand before it."""
    listed = [repr(readable(name, 60)) for name in dict.fromkeys(names)]
    return f"column{'s' if len(listed) > 1 else ''} {', '.join(listed)}: " if listed else ""


def named_columns(recipe: Recipe) -> Iterator[tuple[str, Place]]:
    """The columns that fill a recipe, each with the place of its placeholder."""
    return placeholders_in({name: getattr(recipe, name) for name in FILLED})


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


def labels_of(specs: Sequence[ControlSpec]) -> list[str]:
    """The labels of a text's checks where its row leaves nothing out; see ``check_all``."""
    return numbered(list(_names(specs)))


def _names(specs: Sequence[ControlSpec]) -> Iterator[str]:
    for spec in specs:
        if spec.name == "all" and spec.weight == 1:
            yield from _names(spec.parts)
        else:
            yield spec.name


def control_of(targets: Sequence[Target], samples: Mapping[int, tuple[int, int]]) -> Control[Any] | None:
    """One control for the samples of rows of one shape, or None if they have none.

    Args:
        samples: of each sample the place of its row in ``targets``, and which of the row's texts it is.
    """
    controls = [_joined([target.nodes[at] for target in targets], samples) for at in range(len(targets[0].nodes))]
    if not controls:
        return None
    return controls[0] if len(controls) == 1 else All(controls)


def _joined(nodes: Sequence[Node], samples: Mapping[int, tuple[int, int]]) -> Control[Any]:
    spec, params, parts = nodes[0]
    if spec.made is not None:
        return spec.made
    if spec.name in COMBINATIONS:
        inner = [_joined([node.parts[at] for node in nodes], samples) for at in range(len(parts))]
        made = combined(spec.name, inner)
    else:
        several = len(params)
        shared = all(node.params is params for node in nodes)
        sets = params if shared else [one for node in nodes for one in node.params]
        made = made_of(find_control(spec.name), spec, sets)
        made.places = {
            sample: (0 if shared else row * several) + text % several for sample, (row, text) in samples.items()
        }
    made.weight *= spec.weight
    return made
