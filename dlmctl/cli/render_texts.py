"""The texts of a run as people see them: a table on a terminal, one line a text in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlmctl.cli.render import drawn_in, tell_unmet

if TYPE_CHECKING:
    from dlmctl.generation.results import Generation, Sample


def print_generation(result: Generation) -> None:
    """Texts with each control's score and, where there is a scorer, their fluency; then totals.

    Piped output is one text a line, with tab-separated scores; the row of its targets stands before them.
    """
    from dlmctl.generation.tally import Tally

    console = Console()
    if console.is_terminal:
        console.print(_table(result))
    else:
        for sample in result:
            if sample.unmet is None:
                print("\t".join([sample.text, *_figures(sample)]))
    tally = Tally.of(result.to_dicts())
    totals = [drawn_in(len(result) - tally.missing, len(result) - tally.missing, result.seconds), *tally.sentences()]
    notes = Console(stderr=not console.is_terminal)
    if not console.is_terminal and any(not sample.passed for sample in result if sample.unmet is None):
        totals.append("A score with ! behind it is of a text that does not pass")
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)
    for sample in result:
        if sample.problem:
            told = f"sample {sample.index}: {sample.problem}."
            notes.print(told, highlight=False, markup=False, soft_wrap=True, style="yellow")
    tell_unmet(tally)


def _figures(sample: Sample) -> list[str]:
    scores = [f"{name}={check.score:.2f}{'' if check.passed else '!'}" for name, check in sample.checks.items()]
    row = [] if sample.target is None else [f"row={sample.target.number}"]
    return [*row, *scores, *(f"{name}={said}" for name, said in _fluency(sample).items())]


def _fluency(sample: Sample) -> dict[str, str]:
    """The lm-score, the worst word with its nats and the acceptability, as they are shown."""
    if sample.fluency is None:
        return {}
    found = sample.fluency
    accepted = {} if found.acceptability is None else {"accepted": f"{found.acceptability:.2f}"}
    return {"lm-score": f"{found.lm_score:.2f}", "worst": f"{found.worst_word} {found.worst_nats:.1f}", **accepted}


def _table(result: Generation) -> Table:
    shown = [sample for sample in result if sample.unmet is None]
    names = list(dict.fromkeys(name for sample in shown for name in sample.checks))
    scored = list(dict.fromkeys(name for sample in shown for name in _fluency(sample)))
    rows = any(sample.target is not None for sample in shown)
    table = Table(show_lines=False, pad_edge=False)
    table.add_column("row" if rows else "", justify="right", style="dim")
    table.add_column("text", overflow="fold", ratio=1)
    for name in [*names, *scored]:
        table.add_column(name, justify="right", no_wrap=True)
    for sample in shown:
        number = sample.index if sample.target is None else sample.target.number
        marks = [_mark(sample, name) for name in names]
        figures = [escape(_fluency(sample).get(name, "")) for name in scored]
        table.add_row(str(number), escape(sample.text), *marks, *figures)
    return table


def _mark(sample: Sample, name: str) -> str:
    check = sample.checks.get(name)
    if check is None:
        return ""
    return f"[green]{check.score:.0%} pass[/]" if check.passed else f"[red]{check.score:.0%} fail[/]"
