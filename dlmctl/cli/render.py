"""What people see: tables and colours on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from dlmctl.generation import Generation


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
def working(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with a word on what is being done."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what: None
        return
    with console.status("loading the model") as status:
        yield lambda what: status.update(what)


def print_generation(result: Generation) -> None:
    """Texts with each control's score, then totals. Piped output is one text a line, with tab-separated scores."""
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
    for name in names:
        checks = [sample.checks[name] for sample in result]
        mean = sum(check.score for check in checks) / len(checks)
        totals.append(f"{name}: mean score {mean:.1%}, {sum(check.passed for check in checks)} of {len(checks)} pass")
    rounds = max((sample.rounds for sample in result), default=1)
    if rounds > 1:
        totals.append(f"Drawn in {rounds} rounds")
    notes = Console(stderr=not console.is_terminal)
    notes.print(". ".join(totals) + ".", highlight=False, markup=False)
    for sample in result:
        if sample.problem:
            notes.print(f"sample {sample.index}: {sample.problem}.", highlight=False, markup=False, style="yellow")
