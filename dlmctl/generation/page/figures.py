"""Small figures as inline SVG: how scores and lengths are distributed, and an energy over the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, FOOT = 220, 64, 14
CURVE_WIDTH, CURVE_HEIGHT = 150, 36
# Bars of a distribution at most.
MOST_BARS = 24


class Bar(NamedTuple):
    """A bar of a distribution: the values from ``low`` up to ``high``, and how many texts have them."""

    low: float
    high: float
    texts: int


@dataclass
class Distribution:
    """How often each value was seen, kept to two digits so that a million need no more room than a few hundred.

    Attributes:
        share: whether values are shares from 0 to 1, shown as percentages over the whole of that range.
    """

    name: str
    share: bool = False
    counts: Counter[float] = field(default_factory=Counter)
    total: float = 0.0

    def add(self, value: float) -> None:
        if math.isfinite(value):
            self.counts[round(value, 2)] += 1
            self.total += value

    @property
    def mean(self) -> float:
        return self.total / max(1, self.counts.total())

    def said(self, value: float) -> str:
        """A value as people write it; what is not quite all is not rounded to it."""
        if not self.share:
            return f"{value:,.4g}"
        return f"{value:.1%}" if 0.99 < value < 1 else f"{value:.0%}"

    def bars(self) -> list[Bar]:
        """The bars, of one width: at least 1 for whole numbers."""
        if not self.counts:
            return []
        low, high = (0.0, 1.0) if self.share else (min(self.counts), max(self.counts))
        whole = all(value == int(value) for value in self.counts) and not self.share
        width = _width(high - low, whole)
        first = math.floor(low / width + 1e-9)
        bars: Counter[int] = Counter()
        last = math.floor(high / width + 1e-9) - (1 if self.share else 0)
        for value, count in self.counts.items():
            bars[min(last, math.floor(value / width + 1e-9))] += count
        return [Bar(at * width, (at + 1) * width, bars[at]) for at in range(first, last + 1)]

    def svg(self) -> str:
        """The distribution as a figure, each bar with its count to point at."""
        bars = self.bars()
        if len(self.counts) < 2:  # what is said above it says all
            return ""
        most, step = max(bar.texts for bar in bars), min(WIDTH / len(bars), 22.0)
        drawn = []
        for at, bar in enumerate(bars):
            height = (HEIGHT - 2) * bar.texts / most
            top = HEIGHT - max(height, 1.5 if bar.texts else 0)
            drawn.append(
                f'<rect x="{at * step + 0.75:.1f}" y="{top:.1f}" width="{step - 1.5:.1f}" height="{HEIGHT - top:.1f}">'
                f"<title>{escape(self._range(bar))}: {bar.texts:,}</title></rect>"
            )
        end = step * len(bars)
        last = "" if len(bars) == 1 else self.said(1.0 if self.share else bars[-1].low)
        return (
            f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(self.told())}">'
            f'{"".join(drawn)}<line x1="0" y1="{HEIGHT}.5" x2="{end:.1f}" y2="{HEIGHT}.5"/>'
            f'<text x="1" y="{HEIGHT + FOOT - 2}">{self.said(bars[0].low)}</text>'
            f'<text x="{end - 1:.1f}" y="{HEIGHT + FOOT - 2}" text-anchor="end">{last}</text>'
            "</svg>"
        )

    def told(self) -> str:
        """The distribution in words, for those who cannot see it."""
        return (
            f"{self.name}: {self.said(min(self.counts))} to {self.said(max(self.counts))}, mean {self.said(self.mean)}"
        )

    def _range(self, bar: Bar) -> str:
        one = not self.share and bar.high - bar.low == 1
        return self.said(bar.low) if one else f"{self.said(bar.low)} to {self.said(bar.high)}"


def _width(span: float, whole: bool) -> float:
    """A round width of at most ``MOST_BARS`` bars over a span."""
    least = max(span / (MOST_BARS - 1), 1.0 if whole else 0.01)
    power = 10.0 ** math.floor(math.log10(least) + 1e-9)
    width = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least - 1e-9)
    return max(1.0, float(round(width))) if whole else width


def curve(name: str, values: Sequence[float | None]) -> str:
    """An energy over the steps, from left to right; the line at ``--at`` shows the step that is looked at."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(0.0, *(value for _, value in known)), max(value for _, value in known)
    across, up = CURVE_WIDTH / max(1, len(values) - 1), (CURVE_HEIGHT - 4) / max(high - low, 1e-9)
    points = " ".join(f"{at * across:.1f},{CURVE_HEIGHT - 2 - (value - low) * up:.1f}" for at, value in known)
    ends = known[0][1], known[-1][1]
    return (
        f'<figure class="curve"><figcaption>{escape(name)} <span>{ends[0]:.1f} → {ends[1]:.1f} nats</span></figcaption>'
        f'<svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="energy of '
        f'{escape(name)}, from {ends[0]:.1f} to {ends[1]:.1f} nats"><polyline points="{points}"/>'
        f'<line class="now" x1="0" y1="0" x2="0" y2="{CURVE_HEIGHT}"/></svg></figure>'
    )


def curves(energies: Mapping[str, Sequence[float | None]]) -> str:
    """A curve for each control."""
    return "".join(curve(name, values) for name, values in energies.items())
