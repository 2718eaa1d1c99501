"""``dlmctl bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dlmctl.evaluation.speed import Speed


def bench(
    model: Annotated[str, typer.Option(help="A bundled name, a folder or a hub name.")] = "e2e",
    samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="Texts of each kind.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time the presets on this machine: free text, and controls whose targets the model itself can write."""
    from dlmctl.checkpoint import from_pretrained
    from dlmctl.cli.render import working
    from dlmctl.evaluation.speed import compare, own_cases
    from dlmctl.presets import PRESETS

    with working(quiet=json) as watch:
        pretrained = from_pretrained(model)
        cases = own_cases(pretrained, samples, seed=seed)
        rows = list(compare(pretrained, cases, list(PRESETS), repeats=repeats, seed=seed, watch=watch))
    if json:
        import json as encoder

        typer.echo(encoder.dumps([row._asdict() for row in rows], indent=2))
    else:
        _show(rows)


def _show(rows: list[Speed]) -> None:
    from rich.console import Console
    from rich.table import Table

    from dlmctl.evaluation.speed import against_paper

    heads = ("text", "preset", "s a sample", "times paper", "success", "lm-score")
    lines = [
        (
            row.case,
            row.preset,
            f"{row.seconds:.3f}",
            f"{against_paper(rows, row):.1f}",
            "" if row.success is None else f"{row.success:.1%}",
            "" if row.lm_score is None else f"{row.lm_score:.2f}",
        )
        for row in rows
    ]
    console = Console()
    if not console.is_terminal:
        for line in (heads, *lines):
            print("\t".join(line))
        return
    table = Table(*heads, pad_edge=False)
    for line in lines:
        table.add_row(*line, end_section=line is lines[-1] or line[1] == rows[-1].preset)
    console.print(table)
