"""What people see: tables and colours on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dlmctl.processes import is_main

if TYPE_CHECKING:
    from dlmctl.bulk import Outcome
    from dlmctl.generation import Generation


def say(message: str) -> None:
    """Print a line, in the first process only."""
    if is_main():
        print(message)


@contextmanager
def sampling_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr over all reverse steps; it shows while the model loads, too."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading the model", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, description="reverse steps", completed=done, total=total)

        yield advance


@contextmanager
def bulk_progress(*, quiet: bool) -> Iterator[Callable[[float, int], None]]:
    """A bar on stderr over all texts of a long run, in the first process."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal or not is_main()
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("loading the model", total=None)
        most = 0.0

        def advance(done: float, total: int) -> None:
            nonlocal most
            most = max(most, done)  # a second round of drawing does not take back what is shown
            bar.update(task, description="texts", completed=int(most), total=total)

        yield advance


def print_outcome(outcome: Outcome) -> None:
    """Where the texts of a long run are, and its totals."""
    speed = f" in {outcome.seconds:.1f} s ({outcome.drawn / max(outcome.seconds, 1e-9):.1f} a second)"
    drawn = "" if outcome.drawn == outcome.tally.rows else f"{outcome.drawn} of them now"
    totals = [f"{outcome.tally.rows} texts{', ' + drawn if drawn else ''}{speed if outcome.drawn else ''}"]
    totals += outcome.tally.sentences()
    if outcome.tally.problems:
        totals.append(f"Guidance failed for {outcome.tally.problems}, see `problem` in their rows")
    console = Console()
    console.print(f"texts saved in {outcome.place}", highlight=False, markup=False, soft_wrap=True)
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)


def print_generation(result: Generation) -> None:
    """Texts with each control's score, then totals. Piped output is one text a line, with tab-separated scores."""
    from dlmctl.output import record
    from dlmctl.tally import Tally

    console = Console()
    names = list(result.samples[0].checks) if result.samples else []
    if not console.is_terminal:
        for sample in result:
            scores = [f"{name}={check.score:.2f}{'' if check.passed else '!'}" for name, check in sample.checks.items()]
            print("\t".join([sample.text, *scores]))
    else:
        table = Table(show_lines=False, pad_edge=False)
        table.add_column("", justify="right", style="dim")
        table.add_column("text", overflow="fold", ratio=1)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for sample in result:
            marks = [
                f"[green]{check.score:.0%} pass[/]" if check.passed else f"[red]{check.score:.0%} fail[/]"
                for check in sample.checks.values()
            ]
            table.add_row(str(sample.index), escape(sample.text), *marks)
        console.print(table)
    totals = [f"{len(result)} texts in {result.seconds:.1f} s ({len(result) / max(result.seconds, 1e-9):.1f} a second)"]
    totals += Tally.of(record(sample) for sample in result).sentences()
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False)
    for sample in result:
        if sample.problem:
            notes.print(f"sample {sample.index}: {sample.problem}.", highlight=False, markup=False, style="yellow")
