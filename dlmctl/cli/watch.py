"""``--watch``: the words of texts on a terminal as they settle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dlmctl.cli.render import bulk_progress, sampling_progress
from dlmctl.errors import readable

if TYPE_CHECKING:
    from dlmctl.diffusion.noise import Draw
    from dlmctl.sampling.trace import Frame, OnFrames

# Frames a second, and lines of a terminal that are left free.
RATE, FREE = 12, 3


@contextmanager
def drawing(*, watch: bool, quiet: bool, texts: bool = False) -> Iterator[dict[str, Any]]:
    """What ``run_recipe`` is to tell of its work: a bar over all reverse steps, or with ``texts`` over all texts, or
    with ``watch``, where both stdout and stderr are a terminal, the texts themselves."""
    console = Console(stderr=True)
    if watch and not quiet and console.is_terminal and Console().is_terminal:
        with watching(console) as look:
            yield {"watch": look}
        return
    if texts:
        with bulk_progress(quiet=quiet) as advance:
            yield {"texts": advance}
        return
    with sampling_progress(quiet=quiet) as progress:
        yield {"progress": progress}


@contextmanager
def watching(console: Console) -> Iterator[OnFrames]:
    """A live view of the texts that are being drawn, as many as the terminal has lines for; it goes when they are done.

    Words that stand are bright, the others pale.
    """
    with Live(Text("loading the model"), console=console, refresh_per_second=RATE, transient=True) as live:
        yield lambda frames: live.update(view(frames, console.height - FREE))


def view(frames: Mapping[Draw, Frame], lines: int) -> Table:
    """The texts of one moment, a line each, with the time that is left above them."""
    several = any(draw.attempt for draw in frames)
    left = max((frame.t for frame in frames.values()), default=0.0)
    table = Table(box=None, pad_edge=False, title=f"{1 - left:.0%} of the way", title_style="dim", title_justify="left")
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for draw in sorted(frames)[: max(1, lines)]:
        number = f"{draw.sample}.{draw.attempt}" if several else str(draw.sample)
        table.add_row(number, _words(frames[draw]))
    table.show_header = False
    return table


def _words(frame: Frame) -> Text:
    text = Text()
    for word, settled in zip(frame.words, frame.settled, strict=False):
        text.append(readable(word), style="bold" if settled else "dim italic")
        text.append(" ")
    return text
