"""Small figures as inline SVG: histograms of scores and lengths, and energies over the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, FOOTER = 220, 64, 14
CURVE_WIDTH, CURVE_HEIGHT = 150, 36
# Most bars of a histogram.
MAX_BARS = 24


class Bar(NamedTuple):
    """A bar of a histogram: the values from ``low`` up to ``high``, and the number of texts that have them."""

    low: float
    high: float
    texts: int


@dataclass
class Distribution:
    """Counts of values, rounded to two decimals, so that a million values need no more memory than a few hundred.

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

    def formatted(self, value: float) -> str:
        """A value for display; a share just below 100% is not rounded up to it."""
        if not self.share:
            return f"{value:,.4g}"
        return f"{value:.1%}" if 0.99 < value < 1 else f"{value:.0%}"

    def bars(self) -> list[Bar]:
        """The bars of one or more values, of equal width: at least 1 for whole numbers."""
        low, high = (0.0, 1.0) if self.share else (min(self.counts), max(self.counts))
        is_whole = all(value == int(value) for value in self.counts) and not self.share
        width = _bar_width(high - low, is_whole)
        first_bar = math.floor(low / width + 1e-9)
        bars: Counter[int] = Counter()
        last_bar = math.floor(high / width + 1e-9) - (1 if self.share else 0)
        for value, count in self.counts.items():
            bars[min(last_bar, math.floor(value / width + 1e-9))] += count
        return [Bar(at * width, (at + 1) * width, bars[at]) for at in range(first_bar, last_bar + 1)]

    def svg(self) -> str:
        """The histogram as SVG; pointing at a bar shows its count."""
        if len(self.counts) < 2:  # the caption says everything
            return ""
        bars = self.bars()
        max_count, step = max(bar.texts for bar in bars), min(WIDTH / len(bars), 22.0)
        rects = []
        for at, bar in enumerate(bars):
            height = (HEIGHT - 2) * bar.texts / max_count
            top = HEIGHT - max(height, 1.5 if bar.texts else 0)
            rects.append(
                f'<rect x="{at * step + 0.75:.1f}" y="{top:.1f}" width="{step - 1.5:.1f}" height="{HEIGHT - top:.1f}">'
                f"<title>{escape(self._range(bar))}: {bar.texts:,}</title></rect>"
            )
        right = step * len(bars)
        last_label = "" if len(bars) == 1 else self.formatted(1.0 if self.share else bars[-1].low)
        return (
            f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT + FOOTER}" role="img" '
            f'aria-label="{escape(self.description())}">'
            f'{"".join(rects)}<line x1="0" y1="{HEIGHT}.5" x2="{right:.1f}" y2="{HEIGHT}.5"/>'
            f'<text x="1" y="{HEIGHT + FOOTER - 2}">{self.formatted(bars[0].low)}</text>'
            f'<text x="{right - 1:.1f}" y="{HEIGHT + FOOTER - 2}" text-anchor="end">{last_label}</text>'
            "</svg>"
        )

    def description(self) -> str:
        """The distribution in words, for screen readers."""
        low, high, mean = (self.formatted(value) for value in (min(self.counts), max(self.counts), self.mean))
        return f"{self.name}: {low} to {high}, mean {mean}"

    def _range(self, bar: Bar) -> str:
        is_single_value = not self.share and bar.high - bar.low == 1
        return (
            self.formatted(bar.low) if is_single_value else f"{self.formatted(bar.low)} to {self.formatted(bar.high)}"
        )


def _bar_width(span: float, is_whole: bool) -> float:
    """A round bar width with at most ``MAX_BARS`` bars over a span."""
    min_width = max(span / (MAX_BARS - 1), 1.0 if is_whole else 0.01)
    power = 10.0 ** math.floor(math.log10(min_width) + 1e-9)
    width = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= min_width - 1e-9)
    return max(1.0, float(round(width))) if is_whole else width


def curve(name: str, values: Sequence[float | None]) -> str:
    """An energy over the steps, from left to right; a script moves the line ``now`` to the step that is displayed."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(0.0, *(value for _, value in known)), max(value for _, value in known)
    x_scale, y_scale = CURVE_WIDTH / max(1, len(values) - 1), (CURVE_HEIGHT - 4) / max(high - low, 1e-9)
    points = " ".join(f"{at * x_scale:.1f},{CURVE_HEIGHT - 2 - (value - low) * y_scale:.1f}" for at, value in known)
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
