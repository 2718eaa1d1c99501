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
from dlmctl.text.terminal import make_console, redraws

if TYPE_CHECKING:
    from dlmctl.diffusion.noise import Draw
    from dlmctl.sampling.trace import Frame, OnFrames

# Refreshes per second, and terminal lines left free.
REFRESH_RATE, FREE_LINES = 12, 3


@contextmanager
def drawing(*, watch: bool, quiet: bool, texts: bool = False) -> Iterator[dict[str, Any]]:
    """Callbacks for ``run_recipe``: a progress bar over all reverse steps, or over all texts with ``texts``; with
    ``watch``, if both stdout and stderr are a terminal, a view of the texts themselves."""
    console = make_console(stderr=True)
    if watch and not quiet and redraws(console) and make_console().is_terminal:
        with watching(console) as on_frames:
            yield {"watch": on_frames}
        return
    if texts:
        with bulk_progress(quiet=quiet) as advance:
            yield {"texts": advance}
        return
    with sampling_progress(quiet=quiet) as progress:
        yield {"progress": progress}


@contextmanager
def watching(console: Console) -> Iterator[OnFrames]:
    """A live view of the texts being drawn, as many as fit on the terminal; removed when they are done.

    Settled words are bold, the others dim.
    """
    with Live(Text("loading the model"), console=console, refresh_per_second=REFRESH_RATE, transient=True) as live:
        yield lambda frames: live.update(view(frames, console.height - FREE_LINES))


def view(frames: Mapping[Draw, Frame], lines: int) -> Table:
    """The current words of the texts, one line each, below the progress of the run."""
    has_attempts = any(draw.attempt for draw in frames)
    t = max((frame.t for frame in frames.values()), default=0.0)
    table = Table(box=None, pad_edge=False, title=f"{1 - t:.0%} done", title_style="dim", title_justify="left")
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for draw in sorted(frames)[: max(1, lines)]:
        number = f"{draw.sample}.{draw.attempt}" if has_attempts else str(draw.sample)
        table.add_row(number, _words(frames[draw]))
    table.show_header = False
    return table


def _words(frame: Frame) -> Text:
    text = Text()
    for word, settled in zip(frame.words, frame.settled, strict=False):
        text.append(readable(word), style="bold" if settled else "dim italic")
        text.append(" ")
    return text
