"""Output for people: tables and colours on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dlmctl.processes import is_main
from dlmctl.text.terminal import make_console, redraws

if TYPE_CHECKING:
    from pathlib import Path

    from dlmctl.evaluation.decode import Decoded
    from dlmctl.generation.bulk import Outcome
    from dlmctl.generation.matched_sets import MatchedSets
    from dlmctl.generation.run_counts import RunCounts

# Seconds between two progress lines in a log.
LOG_SECONDS = 30.0


def say(message: str) -> None:
    """Print a line, in the first process only."""
    if is_main():
        print(message)


@contextmanager
def counting(unit: str, *, quiet: bool, final_step: str | None = None) -> Iterator[Callable[[float, int], None]]:
    """A progress bar on stderr that counts ``unit``, in the first process; it is shown while the model loads, too.

    Where stderr is not a terminal, such as in a log, a line every ``LOG_SECONDS``.

    Args:
        final_step: the description of what follows once all are counted.
    """
    console = make_console(stderr=True)
    if not (quiet or redraws(console)) and is_main():
        yield _log_progress(unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console.quiet = hidden = quiet or not redraws(console) or not is_main()  # before 14.3 a hidden bar ends a line
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("loading the model", total=None)

        def advance(done: float, total: int) -> None:
            description = final_step if final_step is not None and done == total else unit
            bar.update(task, description=description, completed=int(done), total=total)

        yield advance


def _log_progress(unit: str) -> Callable[[float, int], None]:
    """A callback that prints progress to stderr, at most once every ``LOG_SECONDS``."""
    last_time = time.monotonic()

    def advance(done: float, total: int) -> None:
        nonlocal last_time
        if time.monotonic() - last_time >= LOG_SECONDS:
            last_time = time.monotonic()
            print(f"{int(done)} of {total} {unit}", file=sys.stderr, flush=True)

    return advance


@contextmanager
def working(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with the current activity; where stderr is not a terminal, a line for each activity."""
    console = make_console(stderr=True)
    if quiet or not redraws(console):
        yield lambda activity: None if quiet else print(activity, file=sys.stderr, flush=True)
        return
    with console.status("loading the model") as status:
        yield lambda activity: status.update(activity)


def sampling_progress(*, quiet: bool) -> AbstractContextManager[Callable[[float, int], None]]:
    """A progress bar over all reverse steps."""
    return counting("reverse steps", quiet=quiet)


@contextmanager
def bulk_progress(*, quiet: bool) -> Iterator[Callable[[float, int], None]]:
    """A progress bar over all texts of a long run."""
    with counting("texts", quiet=quiet, final_step="merging and measuring") as advance:
        furthest = 0.0

        def advance_only(done: float, total: int) -> None:
            nonlocal furthest
            furthest = max(furthest, done)  # the bar must not go back in a second round of drawing
            advance(furthest, total)

        yield advance_only


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1, section: int = 0) -> None:
    """Print a table on a terminal, tab-separated lines in a pipe.

    Args:
        texts: number of left-aligned columns, from the left; the figures after them are right-aligned.
        section: number of rows after which a rule is drawn; 0 for no rules.
    """
    console = make_console()
    if not console.is_terminal:
        for row in [headings, *rows]:
            print("\t".join(row))
        return
    table = Table(*headings, pad_edge=False)
    for column in table.columns[texts:]:
        column.justify = "right"
    for number, row in enumerate(rows, start=1):
        table.add_row(*row, end_section=section > 0 and number % section == 0)
    console.print(table)


def print_outcome(outcome: Outcome) -> None:
    """Print where the texts of a long run are, and its totals."""
    totals = [drawn_in(outcome.tally.rows, outcome.drawn, outcome.seconds), *outcome.tally.sentences()]
    if outcome.tally.problems:
        totals.append(f"Guidance failed for {outcome.tally.problems}, see `problem` in their rows")
    console = make_console()
    missing = f"; {outcome.left_out} of {outcome.tally.rows} have no line there" if outcome.left_out else ""
    console.print(f"texts saved in {outcome.place}{missing}", highlight=False, markup=False, soft_wrap=True)
    notes = make_console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)
    print_unmet(outcome.tally)


def print_unmet(tally: RunCounts) -> None:
    """Print to stderr which rows of the targets could not be satisfied, and why."""
    notes = make_console(stderr=True)
    for reason in tally.unmet:
        notes.print(reason, highlight=False, markup=False, soft_wrap=True, style="yellow")
    if tally.missing > sum(tally.unmet.values()):
        notes.print("There are more of these; see `problem` in their lines.", highlight=False, markup=False)


def print_decoded(decoded: Decoded, out: Path) -> None:
    """Print a table of figures: the texts next to the references."""
    names = list(decoded.samples)
    columns = {"samples": decoded.samples, **({"references": decoded.references} if decoded.references else {})}
    rows = [[name, *(figure(figures.get(name)) for figures in columns.values())] for name in names]
    print_table(["", *columns], rows)
    notes = make_console(stderr=not make_console().is_terminal)
    drawn = drawn_in(decoded.rows, decoded.drawn, decoded.seconds)
    notes.print(f"{drawn}, saved in {out}.", highlight=False, markup=False, soft_wrap=True)
    if "perplexity" not in decoded.samples:
        notes.print("The model has no scorer, so there is no perplexity.", soft_wrap=True)


def figure(value: float | None) -> str:
    """A figure as text: a count unchanged, a measure with four decimals, "" for None."""
    if value is None:
        return ""
    return f"{value}" if isinstance(value, int) else f"{value:.4f}"


def drawn_in(rows: int, drawn: int, seconds: float) -> str:
    """How many texts there are, how many of them were drawn by this command, and how fast."""
    newly_drawn = "" if drawn == rows else f", {drawn} of them now"
    rate = drawn / max(seconds, 1e-9)
    pace = "" if drawn == 1 else f" ({rate:.1f} a second)" if rate >= 1 else f" ({seconds / max(drawn, 1):.1f} s each)"
    speed = f" in {seconds:.1f} s{pace}" if drawn else ""
    return f"{rows} {'text' if rows == 1 else 'texts'}{newly_drawn}{speed}"


def print_matched(sets: MatchedSets) -> None:
    """Print one row per item: the text of each condition, and what is wrong with the item, if anything; then totals."""
    texts = [[item.texts[name].text if name in item.texts else "" for name in sets.conditions] for item in sets.items]
    rows = [[str(item.index), *row, item.why] for item, row in zip(sets.items, texts, strict=True)]
    print_table(["item", *sets.conditions, "why"], rows, texts=len(sets.conditions) + 2)
    notes = make_console(stderr=not make_console().is_terminal)
    notes.print(f"{sets.totals}.", highlight=False, markup=False)
