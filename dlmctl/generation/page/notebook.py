"""Samples and steps as a notebook shows them, by the same drawing as the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from dlmctl.control.check import Check
from dlmctl.errors import readable
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.page.steps import steps_html

if TYPE_CHECKING:
    from dlmctl.generation.results import Sample
    from dlmctl.sampling.trace import Frame

LEFT = 'style="text-align: left; vertical-align: top"'


def verdict(check: Check) -> str:
    """A check in short."""
    return f"{check.score:.0%} {'pass' if check.passed else 'fail'}"


def samples_html(samples: Sequence[Sample], note: str = "") -> str:
    """A row a text, its words marked; a column a control, whose reason shows when pointed at.

    Args:
        note: what stands below.
    """
    names = list(samples[0].checks) if samples else []
    heads = "".join(f"<th {LEFT}>{escape(name)}</th>" for name in ["", "text", *names])
    rows = "".join(f"<tr><td {LEFT}>{one.index}</td>{_text(one)}{_cells(one.checks)}</tr>" for one in samples)
    foot = f"<p>{escape(note)}</p>" if note else ""
    return _styled(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{foot}")


def trace_html(frames: Sequence[Frame], energies: Mapping[str, Sequence[float | None]]) -> str:
    """Some of the steps of a text, and the energies."""
    return _styled(steps_html(frames, energies))


def _text(sample: Sample) -> str:
    if sample.unmet is not None:
        return f'<td class="t" {LEFT}>({escape(readable(sample.unmet))})</td>'
    marks = {name: check.seen for name, check in sample.checks.items()}
    return f'<td class="t" {LEFT}>{text_html(sample.text, sample.words, marks)}</td>'


def _cells(checks: Mapping[str, Check]) -> str:
    return "".join(
        f'<td title="{escape(readable(check.why))}" style="text-align: left; vertical-align: top; white-space: nowrap; '
        f'color: var({"--pale" if check.passed else "--fault"})">{verdict(check)}</td>'
        for check in checks.values()
    )


def _styled(body: str) -> str:
    return f'<div class="dlmctl"><style>{_style()}</style>{body}</div>'


@cache
def _style() -> str:
    return (resources.files("dlmctl.generation.page") / "templates" / "texts.css").read_text("utf-8")
