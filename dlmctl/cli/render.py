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
    from pathlib import Path

    from dlmctl.bulk import Outcome
    from dlmctl.evaluation.decode import Decoded
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
            if done == total:
                bar.update(task, description="merging and measuring")

        yield advance


def print_outcome(outcome: Outcome) -> None:
    """Where the texts of a long run are, and its totals."""
    totals = [_drawn(outcome.tally.rows, outcome.drawn, outcome.seconds), *outcome.tally.sentences()]
    if outcome.tally.problems:
        totals.append(f"Guidance failed for {outcome.tally.problems}, see `problem` in their rows")
    console = Console()
    console.print(f"texts saved in {outcome.place}", highlight=False, markup=False, soft_wrap=True)
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)


def print_decoded(decoded: Decoded, out: Path) -> None:
    """One table: the figures of the texts beside those of the references."""
    console = Console()
    names = list(decoded.samples)
    columns = {"samples": decoded.samples, **({"references": decoded.references} if decoded.references else {})}
    rows = [[name, *(_figure(figures.get(name)) for figures in columns.values())] for name in names]
    if console.is_terminal:
        table = Table(pad_edge=False)
        table.add_column("")
        for name in columns:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in [["", *columns], *rows]:
            print("\t".join(row))
    notes = Console(stderr=not console.is_terminal)
    drawn = _drawn(decoded.rows, decoded.drawn, decoded.seconds)
    notes.print(f"{drawn}, saved in {out}.", highlight=False, markup=False, soft_wrap=True)
    if "perplexity" not in decoded.samples:
        notes.print("There is no scorer beside the model, so there is no perplexity.", soft_wrap=True)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value == int(value) and value > 1 else f"{value:.4f}"


def _drawn(rows: int, drawn: int, seconds: float) -> str:
    """How many texts there are, how many of them were drawn now, and how fast."""
    now = "" if drawn == rows else f", {drawn} of them now"
    speed = f" in {seconds:.1f} s ({drawn / max(seconds, 1e-9):.1f} a second)" if drawn else ""
    return f"{rows} texts{now}{speed}"


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
    totals = [_drawn(len(result), len(result), result.seconds)]
    totals += Tally.of(record(sample) for sample in result).sentences()
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False)
    for sample in result:
        if sample.problem:
            notes.print(f"sample {sample.index}: {sample.problem}.", highlight=False, markup=False, style="yellow")
