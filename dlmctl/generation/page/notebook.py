"""Samples and steps as HTML for notebooks, drawn as on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from dlmctl.control.check import Check, Mark
from dlmctl.errors import readable
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.page.steps import steps_html

if TYPE_CHECKING:
    from dlmctl.generation.matched_sets import Item
    from dlmctl.generation.results import Sample
    from dlmctl.sampling.trace import Frame

LEFT_ALIGNED = 'style="text-align: left; vertical-align: top"'
# Wide enough to read beside many controls, since a notebook's table scrolls; words run in their own direction.
TEXT_CELL = '<td class="t" dir="auto" style="text-align: start; vertical-align: top; min-width: min(26em, 60vw)">'


def verdict(check: Check) -> str:
    """A check as a score with pass or fail."""
    return f"{check.score:.0%} {'pass' if check.passed else 'fail'}"


def samples_html(samples: Sequence[Sample], note: str = "") -> str:
    """A table with a row per text, its words marked, and a column per control, with the reason as a tooltip.

    Args:
        note: a line below the table.
    """
    names = list(samples[0].checks) if samples else []
    header = "".join(f"<th {LEFT_ALIGNED}>{escape(name)}</th>" for name in ["", "text", *names])
    rows = "".join(
        f"<tr><td {LEFT_ALIGNED}>{sample.index}</td>{_text_cell(sample)}{_check_cells(sample.checks)}</tr>"
        for sample in samples
    )
    footer = f"<p>{escape(note)}</p>" if note else ""
    return _styled(f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>{footer}")


def items_html(items: Sequence[Item], conditions: Sequence[str], note: str = "") -> str:
    """A table with a row per item of matched sets and a column per condition; exchanged words are underlined.

    Args:
        note: a line below the table.
    """
    header = "".join(f"<th {LEFT_ALIGNED}>{escape(name)}</th>" for name in ["", *conditions, ""])
    rows = "".join(
        f"<tr><td {LEFT_ALIGNED}>{item.index}</td>{''.join(_condition_cell(item, name) for name in conditions)}"
        f'<td style="text-align: left; vertical-align: top; color: var({"--pale" if item.passed else "--fault"})">'
        f"{escape(readable(item.why)) or 'pass'}</td></tr>"
        for item in items
    )
    footer = f"<p>{escape(note)}</p>" if note else ""
    return _styled(f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>{footer}")


def _condition_cell(item: Item, condition: str) -> str:
    sample = item.texts.get(condition)
    if sample is None:
        return "<td></td>"
    marks = {"exchanged": [Mark(place, place) for place in item.places]}
    return f"{TEXT_CELL}{text_html(sample.text, sample.words, marks)}</td>"


def trace_html(frames: Sequence[Frame], energies: Mapping[str, Sequence[float | None]]) -> str:
    """Some of the steps of a text, and its energies."""
    return _styled(steps_html(frames, energies))


def _text_cell(sample: Sample) -> str:
    if sample.unmet is not None:
        return f"{TEXT_CELL}({escape(readable(sample.unmet))})</td>"
    marks = {name: check.seen for name, check in sample.checks.items()}
    return f"{TEXT_CELL}{text_html(sample.text, sample.words, marks)}</td>"


def _check_cells(checks: Mapping[str, Check]) -> str:
    return "".join(
        f'<td title="{escape(readable(check.why))}" style="text-align: left; vertical-align: top; white-space: nowrap; '
        f'color: var({"--pale" if check.passed else "--fault"})">{verdict(check)}</td>'
        for check in checks.values()
    )


def _styled(body: str) -> str:
    return f'<div class="dlmctl"><style>{_stylesheet()}</style>{body}</div>'


@cache
def _stylesheet() -> str:
    return (resources.files("dlmctl.generation.page") / "templates" / "texts.css").read_text("utf-8")
