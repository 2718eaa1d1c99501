"""The steps of a text as HTML: a few of them one below the other, and the energies as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dlmctl.generation.page.figures import curves
from dlmctl.sampling.trace import Frame

# Steps that are shown one below the other.
MOST_STEPS = 7


def steps_html(frames: Sequence[Frame], energies: Mapping[str, Sequence[float | None]]) -> str:
    """Some steps from the first to the last as a table, words that do not stand yet pale, and the energies."""
    rows = "".join(f"<tr><th>{frame.t:.2f}</th><td>{_words(frame)}</td></tr>" for frame in spread(frames, MOST_STEPS))
    return f'<table class="steps">{rows}</table><div class="curves">{curves(energies)}</div>'


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """So many frames at even distances, the first and the last among them."""
    if len(frames) <= most:
        return list(frames)
    return [frames[round(at * (len(frames) - 1) / (most - 1))] for at in range(most)]


def _words(frame: Frame) -> str:
    pairs = zip(frame.words, frame.settled, strict=False)
    return " ".join(escape(word) if stands else f"<u>{escape(word)}</u>" for word, stands in pairs)
