"""Output of bounds on -log p: a table in nats and bits, and the parts as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.table import Table

from dlmctl.text.terminal import make_console

if TYPE_CHECKING:
    from dlmctl.evaluation.masked_nll import MaskedLikelihood
    from dlmctl.evaluation.nll import Likelihood

# One bit in nats.
BIT = math.log(2)
Row = tuple[str, float]


def print_likelihood(likelihood: Likelihood | MaskedLikelihood) -> None:
    """Print the bound, then its parts."""
    from dlmctl.evaluation.nll import Likelihood

    if isinstance(likelihood, Likelihood):
        _print_latent(likelihood)
    else:
        _print_masked(likelihood)


def _print_latent(likelihood: Likelihood) -> None:
    rows = [
        (f"per token (START, {likelihood.unit}s, END)", likelihood.nats),
        ("per word", likelihood.nats_per_word),
        ("standard error per token", likelihood.standard_error),
        ("prior", likelihood.prior),
        ("diffusion", sum(part.nats for part in likelihood.diffusion)),
        (f"{likelihood.unit}s given the last latent", likelihood.words),
        ("of which PAD", likelihood.padding),
    ]
    parts = [(f"t {part.since:.2f} to {part.until:.2f}", part.nats) for part in likelihood.diffusion]
    _print_table(rows, parts)
    counts = f"{likelihood.sentences} texts, {likelihood.token_count} tokens"
    draws = f"; {likelihood.draws} of {likelihood.steps} steps drawn for each"
    share = f"; {likelihood.unknown:.1%} of the {likelihood.unit}s are unknown to the model"
    unknown = share if likelihood.unknown else ""
    _print_note(f"{counts}{draws}{unknown}.")


def _print_masked(likelihood: MaskedLikelihood) -> None:
    figures = [
        (f"per {likelihood.unit}, given the length", likelihood.nats_given_length),
        (f"per {likelihood.unit}, with the length", likelihood.nats_with_length),
        (f"standard error per {likelihood.unit}", likelihood.standard_error),
    ]
    rows = [(name, nats) for name, nats in figures if nats is not None]
    if likelihood.unit == "token":
        rows.insert(-1, ("per word", likelihood.nats_per_word))
    parts = [(f"{part.since:.0%} to {part.until:.0%} masked", part.nats) for part in likelihood.parts]
    _print_table(rows, parts)
    words = f" in {likelihood.written} words" if likelihood.unit == "token" else ""
    counts = f"{likelihood.sentences} texts, {likelihood.word_count} {likelihood.unit}s{words}"
    draws = f"; {likelihood.repeats} masked canvases drawn for each"
    share = f"; {likelihood.unknown:.1%} of the {likelihood.unit}s are unknown to the model and not counted"
    unknown = share if likelihood.unknown else ""
    lengths = f"; no training text is as long as {likelihood.unseen_lengths} of them"
    unseen = lengths if likelihood.unseen_lengths else ""
    _print_note(f"{counts}{draws}{unknown}{unseen}.")


def _print_table(rows: Sequence[Row], parts: Sequence[Row]) -> None:
    """Print nats and bits, with bars for the parts; tab-separated lines in a pipe."""
    console = make_console()
    if not console.is_terminal:
        print("\tnats\tbits")
        for name, nats in [*rows, *parts]:
            print(f"{name}\t{nats:.4f}\t{nats / BIT:.4f}")
        return
    table = Table(pad_edge=False)
    table.add_column("")
    table.add_column("nats", justify="right")
    table.add_column("bits", justify="right")
    table.add_column("")
    for name, nats in rows:
        table.add_row(name, f"{nats:.4f}", f"{nats / BIT:.4f}")
    table.add_section()
    largest = max(nats for _, nats in parts)
    for name, nats in parts:
        table.add_row(name, f"{nats:.4f}", f"{nats / BIT:.4f}", Bar(largest, 0, nats, width=30, color="cyan"))
    console.print(table)


def _print_note(note: str) -> None:
    make_console(stderr=not make_console().is_terminal).print(f"{note}", highlight=False, markup=False, soft_wrap=True)
