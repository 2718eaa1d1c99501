"""Bounds on -log p as people see them: a table in nats and bits, and the parts as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from dlmctl.evaluation.masked_nll import MaskedLikelihood
    from dlmctl.evaluation.nll import Likelihood

# In nats.
BIT = math.log(2)
Row = tuple[str, float]


def print_likelihood(found: Likelihood | MaskedLikelihood) -> None:
    """The bound, then its parts."""
    from dlmctl.evaluation.nll import Likelihood

    if isinstance(found, Likelihood):
        _print_latent(found)
    else:
        _print_masked(found)


def _print_latent(found: Likelihood) -> None:
    rows = [
        (f"per token (START, {found.unit}s, END)", found.nats),
        ("per word", found.nats_per_word),
        ("standard error per token", found.standard_error),
        ("prior", found.prior),
        ("diffusion", sum(part.nats for part in found.diffusion)),
        (f"{found.unit}s given the last latent", found.words),
        ("of it on PAD", found.padding),
    ]
    parts = [(f"t {part.since:.2f} to {part.until:.2f}", part.nats) for part in found.diffusion]
    _print_table(rows, parts)
    told = f"{found.sentences} texts, {found.token_count} tokens; {found.draws} of {found.steps} steps drawn for each"
    unknown = f"; {found.unknown:.1%} of the {found.unit}s are unknown to the model" if found.unknown else ""
    _print_note(f"{told}{unknown}.")


def _print_masked(found: MaskedLikelihood) -> None:
    figures = [
        (f"per {found.unit}, given the length", found.nats_given_length),
        (f"per {found.unit}, with the length", found.nats_with_length),
        (f"standard error per {found.unit}", found.standard_error),
    ]
    rows = [(name, nats) for name, nats in figures if nats is not None]
    if found.unit == "token":
        rows.insert(-1, ("per word", found.nats_per_word))
    parts = [(f"{part.since:.0%} to {part.until:.0%} masked", part.nats) for part in found.parts]
    _print_table(rows, parts)
    words = f" in {found.written} words" if found.unit == "token" else ""
    counts = f"{found.sentences} texts, {found.word_count} {found.unit}s{words}"
    told = f"{counts}; {found.repeats} masked canvases drawn for each"
    share = f"; {found.unknown:.1%} of the {found.unit}s are unknown to the model and not counted"
    unknown = share if found.unknown else ""
    unseen = f"; no training text is as long as {found.unseen_lengths} of them" if found.unseen_lengths else ""
    _print_note(f"{told}{unknown}{unseen}.")


def _print_table(rows: Sequence[Row], parts: Sequence[Row]) -> None:
    """Nats and bits, with bars for the parts; tab-separated lines in a pipe."""
    console = Console()
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
    most = max(nats for _, nats in parts)
    for name, nats in parts:
        table.add_row(name, f"{nats:.4f}", f"{nats / BIT:.4f}", Bar(most, 0, nats, width=30, color="cyan"))
    console.print(table)


def _print_note(note: str) -> None:
    Console(stderr=not Console().is_terminal).print(f"{note}", highlight=False, markup=False, soft_wrap=True)
