"""The texts of a run as people see them: a table on a terminal, one line a text in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dlmctl.cli.render import drawn_in, tell_unmet
from dlmctl.generation.page.notebook import verdict
from dlmctl.text.tokenizer import END

if TYPE_CHECKING:
    from dlmctl.control.check import Check
    from dlmctl.generation.results import Generation, Sample

# Columns of a terminal that a text is to have at least, and those that a table puts between two of its own.
LEAST_TEXT, BETWEEN = 30, 3


def print_generation(result: Generation) -> None:
    """Texts with each control's score and, where there is a scorer, their fluency; then totals.

    Piped output is one text a line, with tab-separated scores; the row of its targets stands before them.
    """
    from dlmctl.generation.run_counts import RunCounts

    console = Console()
    if console.is_terminal:
        console.print(_table(result, console.width))
    else:
        for sample in result:
            if sample.unmet is None:
                print("\t".join([sample.text, *_figures(sample)]))
    tally = RunCounts.of(result.to_dicts())
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
    word = "(end of text)" if found.worst_word == END else found.worst_word
    read = {} if found.acceptability is None else {"acceptability": f"{found.acceptability:.2f}"}
    return {"lm-score": f"{found.lm_score:.2f}", "worst": f"{word} {found.worst_nats:.1f}", **read}


def _table(result: Generation, width: int) -> Table:
    """A column for each figure; where the terminal has no room for these, they stand in a line under each text.

    Args:
        width: columns of the terminal.
    """
    shown = [sample for sample in result if sample.unmet is None]
    numbers = [sample.index if sample.target is None else sample.target.number for sample in shown]
    figures = [_told(sample) for sample in shown]
    names = [*dict.fromkeys(name for sample in shown for name in sample.checks)]
    names += dict.fromkeys(name for told in figures for name in told if name not in names)
    rows = any(sample.target is not None for sample in shown)
    longest = max((cell_len(sample.text) for sample in shown), default=0)
    narrow = _room(numbers, names, figures, width) < min(LEAST_TEXT, longest)
    table = Table(show_lines=narrow, pad_edge=False)
    table.add_column("row" if rows else "", justify="right", style="dim", no_wrap=True)
    table.add_column("text", overflow="fold", ratio=1)
    if narrow:
        for number, sample, told in zip(numbers, shown, figures, strict=True):
            below = Text.assemble("  ").join(Text.assemble((f"{name} ", "dim"), said) for name, said in told.items())
            table.add_row(str(number), Text("\n").join([Text(sample.text), *[below] * bool(told)]))
        return table
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for number, sample, told in zip(numbers, shown, figures, strict=True):
        table.add_row(str(number), escape(sample.text), *(told.get(name, Text()) for name in names))
    return table


def _told(sample: Sample) -> dict[str, Text]:
    """The verdict of each control and the figures of fluency, by name."""
    marks = {name: _mark(check) for name, check in sample.checks.items()}
    return {**marks, **{name: Text(said) for name, said in _fluency(sample).items()}}


def _mark(check: Check) -> Text:
    return Text(verdict(check), "green" if check.passed else "red")


def _room(numbers: Sequence[int], names: Sequence[str], figures: Sequence[Mapping[str, Text]], width: int) -> int:
    """What is left to the text beside a column for each figure."""
    taken = [max(3, *(len(str(number)) for number in numbers))] if numbers else [3]
    taken += [max(cell_len(name), *(told[name].cell_len for told in figures if name in told)) for name in names]
    return width - sum(taken) - BETWEEN * (len(taken) + 1)
