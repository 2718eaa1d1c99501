"""Matched sets as a table: a row per item, a column per condition, and the properties of the words that differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmctl.generation.output import atomic_write
from dlmctl.generation.tabular import row_writer

if TYPE_CHECKING:
    from dlmctl.generation.matched_sets import Item, MatchedSets
    from dlmctl.generation.results import Sample

FORMATS = (".csv", ".tsv", ".jsonl")
# The columns of a long table beside the properties and values of a condition, and those before and after all others.
LONG_COLUMNS = ("condition", "text")
LAST_COLUMNS = ("frame", "drawn", "rounds", "passed", "why")
# Separates the words of a cell if an item exchanges several.
SEPARATOR = "; "
BLANK = "___"


def columns_of(sets: MatchedSets, *, long: bool = False) -> list[str]:
    """The columns: item, each condition's text, then each condition's words and their properties, and the largest
    difference in each property of ``control_for``; in ``long`` tables those of one condition, which they name."""
    by_condition = _columns_by_condition(sets)
    differences = [f"difference_{name}" for name in sets.control_for]
    conditions = [*sets.conditions, *(f"{name}_{column}" for name in sets.conditions for column in by_condition)]
    if long:
        conditions = [*LONG_COLUMNS, *map(_in_long_table, by_condition)]
    return ["item", *conditions, *differences, *LAST_COLUMNS]


def rows_of(sets: MatchedSets, *, long: bool = False, as_text: bool = True) -> Iterator[dict[str, Any]]:
    """A row for each item, or in ``long`` tables for each text, by column.

    Args:
        as_text: values as a table on disk has them; otherwise the property of a single word is a number.
    """
    property_names, value_names = _property_names(sets), _value_names(sets)
    for item in sets.items:
        row: dict[str, Any] = {"item": item.index, "frame": frame_of(item), "drawn": item.drawn, "rounds": item.rounds}
        row |= {"passed": int(item.passed) if as_text else item.passed, "why": item.why}
        row |= {f"difference_{name}": _cell(value) if as_text else value for name, value in item.differences.items()}
        for condition in sets.conditions:
            sample = item.texts.get(condition)
            row[condition] = "" if sample is None else sample.text
            measured = dict(_values_of(sample))
            for name in value_names:
                row[f"{condition}_{name}"] = _cell(measured.get(name)) if as_text else measured.get(name)
            row[f"{condition}_word"] = SEPARATOR.join(item.exchanged(condition))
            for name in property_names:
                values = [word_properties.get(name) for word_properties in item.properties.get(condition, [])]
                joined = SEPARATOR.join(map(_cell, values))
                row[f"{condition}_{name}"] = joined if as_text or len(values) > 1 else next(iter(values), None)
        for condition in sets.conditions if long else ():
            own = {_in_long_table(column): row[f"{condition}_{column}"] for column in _columns_by_condition(sets)}
            yield row | {"condition": condition, "text": row[condition]} | own
        if not long:
            yield row


def _columns_by_condition(sets: MatchedSets) -> list[str]:
    return ["word", *_property_names(sets), *_value_names(sets)]


def _in_long_table(column: str) -> str:
    """The column of a long table for a property: a column of a user's table may be called ``text``, too."""
    return _beside(column, ("item", *LONG_COLUMNS, *LAST_COLUMNS))


def _beside(name: str, others: Collection[str]) -> str:
    """The name of a property of a word beside other names."""
    return f"word_{name}" if name in others else name


def frame_of(item: Item) -> str:
    """An item's words with blanks for the exchanged words."""
    words = item.texts[item.drawn].words
    return " ".join(BLANK if at in item.places else word for at, word in enumerate(words))


def objects_of(sets: MatchedSets) -> Iterator[dict[str, Any]]:
    """An object for each item: texts with their checks, and exchanged words with their places and properties."""
    for item in sets.items:
        conditions = {
            name: {
                **{
                    key: value
                    for key, value in sample.to_dict().items()
                    if key in ("text", "words", "passed", "checks")
                },
                "exchanged": [
                    {"place": place + 1, "word": sample.words[place]}
                    | {_beside(column, ("place",)): value for column, value in properties.items()}
                    for place, properties in zip(item.places, item.properties[name], strict=True)
                ],
            }
            for name, sample in item.texts.items()
        }
        about = {"frame": frame_of(item), "drawn": item.drawn, "rounds": item.rounds, "passed": item.passed}
        differences = {"differences": item.differences} if sets.control_for else {}
        yield {"item": item.index, **about, "why": item.why, **differences, "conditions": conditions}


def write_table(sets: MatchedSets, path: Path, *, long: bool = False) -> None:
    """Write the items as CSV, tab-separated values or one JSON object per line, or in ``long`` tables the texts. The
    write is atomic.

    Raises:
        UserError: it cannot be written.
    """
    columns = columns_of(sets, long=long)
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            records = sets.to_dicts(long=True) if long else objects_of(sets)
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        else:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = row_writer(file, columns, delimiter)
            writer.writeheader()
            writer.writerows({name: row[name] for name in columns} for row in rows_of(sets, long=long))


def _property_names(sets: MatchedSets) -> list[str]:
    """The properties of all exchanged words, in the order of their first occurrence."""
    names = [
        name
        for item in sets.items
        for words in item.properties.values()
        for word_properties in words
        for name in word_properties
    ]
    return list(dict.fromkeys(names))


def _value_names(sets: MatchedSets) -> list[str]:
    """The values that checks measured, in the order of their first occurrence."""
    return list(
        dict.fromkeys(name for item in sets.items for text in item.texts.values() for name, _ in _values_of(text))
    )


def _values_of(sample: Sample | None) -> Iterator[tuple[str, float]]:
    """The values that the checks of a text measured, by control and name."""
    for label, check in {} if sample is None else sample.checks.items():
        yield from ((f"{label}_{name}", value) for name, value in check.values.items())


def _cell(value: float | str | None) -> str:
    """A property as a cell: numbers with all digits, whole numbers without a point."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return "" if value is None else value
