"""The steps of a text as HTML: a table of a few steps, and the energies as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dlmctl.generation.page.figures import curves
from dlmctl.sampling.trace import Frame

# Most steps in the table.
MAX_STEPS = 7


def steps_html(frames: Sequence[Frame], energies: Mapping[str, Sequence[float | None]]) -> str:
    """Some steps from the first to the last as a table, with unsettled words in a pale colour, and the energies."""
    rows = "".join(
        f"<tr><th>{frame.t:.2f}</th><td>{_words(frame)}</td></tr>" for frame in evenly_spaced(frames, MAX_STEPS)
    )
    return f'<table class="steps">{rows}</table><div class="curves">{curves(energies)}</div>'


def evenly_spaced(frames: Sequence[Frame], count: int) -> list[Frame]:
    """At most ``count`` evenly spaced frames, including the first and the last."""
    if len(frames) <= count:
        return list(frames)
    return [frames[round(at * (len(frames) - 1) / (count - 1))] for at in range(count)]


def _words(frame: Frame) -> str:
    pairs = zip(frame.words, frame.settled, strict=False)
    return " ".join(escape(word) if is_settled else f"<u>{escape(word)}</u>" for word, is_settled in pairs)
