"""Output of generated texts: a table on a terminal, one line per text in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dlmctl.cli.render import drawn_in, print_unmet
from dlmctl.generation.page.notebook import verdict
from dlmctl.text.terminal import make_console
from dlmctl.text.tokenizer import END

if TYPE_CHECKING:
    from dlmctl.control.check import Check
    from dlmctl.generation.results import Generation, Sample

# Minimum width of the text column, and width of the border and padding between two columns.
MIN_TEXT_WIDTH, SEPARATOR_WIDTH = 30, 3


def print_generation(result: Generation, *, draws_once: bool = False) -> None:
    """Print texts with each control's score and, if there is a scorer, their fluency; then totals, and if texts are not
    drawn again (``draws_once``), how to have those that fail drawn again.

    Piped output is one line per text: the text, its row of the targets if there are any, and its scores,
    tab-separated.
    """
    from dlmctl.generation.run_counts import RunCounts

    console = make_console()
    if console.is_terminal:
        console.print(_table(result, console.width))
    else:
        for sample in result:
            if sample.unmet is None:
                print("\t".join([sample.text, *_figures(sample)]))
    tally = RunCounts.of(result.to_dicts())
    totals = [drawn_in(len(result) - tally.missing, len(result) - tally.missing, result.seconds), *tally.sentences()]
    notes = make_console(stderr=not console.is_terminal)
    failed = [sample for sample in result if sample.unmet is None and not sample.passed]
    if failed and not console.is_terminal:
        totals.append("A ! after a score marks a failed check")
    if draws_once and any(sample.rounds == 1 for sample in failed):
        totals.append("Texts that fail were not drawn again: --quota draws until they pass")
    notes.print(". ".join(totals) + ".", highlight=False, markup=False, soft_wrap=True)
    for sample in result:
        if sample.problem:
            note = f"sample {sample.index}: {sample.problem}."
            notes.print(note, highlight=False, markup=False, soft_wrap=True, style="yellow")
    print_unmet(tally)


def _figures(sample: Sample) -> list[str]:
    scores = [f"{name}={check.score:.2f}{'' if check.passed else '!'}" for name, check in sample.checks.items()]
    row = [] if sample.target is None else [f"row={sample.target.number}"]
    return [*row, *scores, *(f"{name}={value}" for name, value in _fluency_figures(sample).items())]


def _fluency_figures(sample: Sample) -> dict[str, str]:
    """The lm-score, the worst word with its nats and the acceptability, formatted."""
    if sample.fluency is None:
        return {}
    fluency = sample.fluency
    word = "(end of text)" if fluency.worst_word == END else fluency.worst_word
    acceptability = {} if fluency.acceptability is None else {"acceptability": f"{fluency.acceptability:.2f}"}
    return {"lm-score": f"{fluency.lm_score:.2f}", "worst": f"{word} {fluency.worst_nats:.1f}", **acceptability}


def _table(result: Generation, width: int) -> Table:
    """A table with a column for each figure, or with the figures in a line under each text if they do not fit.

    Args:
        width: columns of the terminal.
    """
    samples = [sample for sample in result if sample.unmet is None]
    numbers = [sample.index if sample.target is None else sample.target.number for sample in samples]
    figures = [_formatted_figures(sample) for sample in samples]
    names = [*dict.fromkeys(name for sample in samples for name in sample.checks)]
    names += dict.fromkeys(name for row in figures for name in row if name not in names)
    has_rows = any(sample.target is not None for sample in samples)
    longest = max((cell_len(sample.text) for sample in samples), default=0)
    is_narrow = _text_width(numbers, names, figures, width) < min(MIN_TEXT_WIDTH, longest)
    table = Table(show_lines=is_narrow, pad_edge=False)
    table.add_column("row" if has_rows else "", justify="right", style="dim", no_wrap=True)
    table.add_column("text", overflow="fold", ratio=1)
    if is_narrow:
        for number, sample, row in zip(numbers, samples, figures, strict=True):
            below = Text.assemble("  ").join(Text.assemble((f"{name} ", "dim"), value) for name, value in row.items())
            table.add_row(str(number), Text("\n").join([Text(sample.text), *[below] * bool(row)]))
        return table
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for number, sample, row in zip(numbers, samples, figures, strict=True):
        table.add_row(str(number), escape(sample.text), *(row.get(name, Text()) for name in names))
    return table


def _formatted_figures(sample: Sample) -> dict[str, Text]:
    """The verdict of each control and the figures of fluency, by name."""
    verdicts = {name: _coloured_verdict(check) for name, check in sample.checks.items()}
    return {**verdicts, **{name: Text(value) for name, value in _fluency_figures(sample).items()}}


def _coloured_verdict(check: Check) -> Text:
    return Text(verdict(check), "green" if check.passed else "red")


def _text_width(numbers: Sequence[int], names: Sequence[str], figures: Sequence[Mapping[str, Text]], width: int) -> int:
    """The width that remains for the text next to a column for each figure."""
    widths = [max(3, *(len(str(number)) for number in numbers))] if numbers else [3]
    widths += [max(cell_len(name), *(row[name].cell_len for row in figures if name in row)) for name in names]
    return width - sum(widths) - SEPARATOR_WIDTH * (len(widths) + 1)
