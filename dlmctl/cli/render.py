"""What people see: tables and colours on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dlmctl.processes import is_main

if TYPE_CHECKING:
    from pathlib import Path

    from dlmctl.evaluation.decode import Decoded
    from dlmctl.generation.bulk import Outcome
    from dlmctl.generation.matched import MatchedSets
    from dlmctl.generation.run_counts import RunCounts

# Between two lines on progress in a log.
LOG_SECONDS = 30.0


def say(message: str) -> None:
    """Print a line, in the first process only."""
    if is_main():
        print(message)


@contextmanager
def counting(what: str, *, quiet: bool, last: str | None = None) -> Iterator[Callable[[float, int], None]]:
    """A bar on stderr over ``what`` is counted, in the first process; it shows while the model loads, too.

    Where stderr is no terminal, such as in a log, a line every ``LOG_SECONDS``.

    Args:
        last: what goes on when all are counted.
    """
    console = Console(stderr=True)
    if not (quiet or console.is_terminal) and is_main():
        yield _logged(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal or not is_main()
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("loading the model", total=None)

        def advance(done: float, total: int) -> None:
            now = last if last is not None and done == total else what
            bar.update(task, description=now, completed=int(done), total=total)

        yield advance


def _logged(what: str) -> Callable[[float, int], None]:
    """Says on stderr how far it is, at most once in ``LOG_SECONDS``."""
    said = time.monotonic()

    def advance(done: float, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= LOG_SECONDS:
            said = time.monotonic()
            print(f"{int(done)} of {total} {what}", file=sys.stderr, flush=True)

    return advance


@contextmanager
def working(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with a word on what is being done; where that is no terminal, a line for each."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what: None if quiet else print(what, file=sys.stderr, flush=True)
        return
    with console.status("loading the model") as status:
        yield lambda what: status.update(what)


def sampling_progress(*, quiet: bool) -> AbstractContextManager[Callable[[float, int], None]]:
    """A bar over all reverse steps."""
    return counting("reverse steps", quiet=quiet)


@contextmanager
def bulk_progress(*, quiet: bool) -> Iterator[Callable[[float, int], None]]:
    """A bar over all texts of a long run."""
    with counting("texts", quiet=quiet, last="merging and measuring") as advance:
        most = 0.0

        def forward(done: float, total: int) -> None:
            nonlocal most
            most = max(most, done)  # a second round of drawing does not take back what is shown
            advance(most, total)

        yield forward


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1, section: int = 0) -> None:
    """A table on a terminal, tab-separated lines in a pipe.

    Args:
        texts: so many columns, from the left, are aligned left, and the figures behind them right.
        section: a line is drawn after every so many rows; 0 for none.
    """
    console = Console()
    if not console.is_terminal:
        for row in [heads, *rows]:
            print("\t".join(row))
        return
    table = Table(*heads, pad_edge=False)
    for column in table.columns[texts:]:
        column.justify = "right"
    for number, row in enumerate(rows, start=1):
        table.add_row(*row, end_section=section > 0 and number % section == 0)
    console.print(table)


def print_outcome(outcome: Outcome) -> None:
    """Where the texts of a long run are, and its totals."""
    totals = [drawn_in(outcome.tally.rows, outcome.drawn, outcome.seconds), *outcome.tally.sentences()]
    if outcome.tally.problems:
        totals.append(f"Guidance failed for {outcome.tally.problems}, see `problem` in their rows")
    console = Console()
    without = f"; {outcome.left_out} of {outcome.tally.rows} have no line there" if outcome.left_out else ""
    console.print(f"texts saved in {outcome.place}{without}", highlight=False, markup=False, soft_wrap=True)
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)
    tell_unmet(outcome.tally)


def tell_unmet(tally: RunCounts) -> None:
    """Say on stderr which rows of the targets could not be met, and why."""
    notes = Console(stderr=True)
    for why in tally.unmet:
        notes.print(why, highlight=False, markup=False, soft_wrap=True, style="yellow")
    if tally.missing > sum(tally.unmet.values()):
        notes.print("There are more of these; see `problem` in their lines.", highlight=False, markup=False)


def print_decoded(decoded: Decoded, out: Path) -> None:
    """One table: the figures of the texts beside those of the references."""
    names = list(decoded.samples)
    columns = {"samples": decoded.samples, **({"references": decoded.references} if decoded.references else {})}
    rows = [[name, *(figure(figures.get(name)) for figures in columns.values())] for name in names]
    print_table(["", *columns], rows)
    notes = Console(stderr=not Console().is_terminal)
    drawn = drawn_in(decoded.rows, decoded.drawn, decoded.seconds)
    notes.print(f"{drawn}, saved in {out}.", highlight=False, markup=False, soft_wrap=True)
    if "perplexity" not in decoded.samples:
        notes.print("There is no scorer beside the model, so there is no perplexity.", soft_wrap=True)


def figure(value: float | None) -> str:
    """A figure of a table: a count as it is, a measure with four digits, nothing where there is none."""
    if value is None:
        return ""
    return f"{value}" if isinstance(value, int) else f"{value:.4f}"


def drawn_in(rows: int, drawn: int, seconds: float) -> str:
    """How many texts there are, how many of them were drawn now, and how fast."""
    now = "" if drawn == rows else f", {drawn} of them now"
    speed = f" in {seconds:.1f} s ({drawn / max(seconds, 1e-9):.1f} a second)" if drawn else ""
    return f"{rows} {'text' if rows == 1 else 'texts'}{now}{speed}"


def print_matched(found: MatchedSets) -> None:
    """One row an item: the text of each condition, and what is wrong with the item, if anything; then totals."""
    texts = [[item.texts[name].text if name in item.texts else "" for name in found.conditions] for item in found.items]
    rows = [[str(item.index), *row, item.why] for item, row in zip(found.items, texts, strict=True)]
    print_table(["item", *found.conditions, "why"], rows, texts=len(found.conditions) + 2)
    notes = Console(stderr=not Console().is_terminal)
    items = "1 item" if len(found.items) == 1 else f"{len(found.items)} items"
    total = f"{items} in {found.seconds:.1f} s, {found.success:.0%} of them whole."
    notes.print(total, highlight=False, markup=False)
