"""``dlmctl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli import complete


def report(
    results: Annotated[
        Path, typer.Argument(help="A .jsonl file of --out, the output of --json as .json, or a folder of --out.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page; by default beside the results.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="The recipe to show, where the results do not hold it.",
            autocompletion=complete.recipes,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page if there is one.")] = False,
) -> None:
    """Make a page of results to look at: one HTML file, with every text and what each control saw in it."""
    from dlmctl.generation.page.report import check_page, write_report
    from dlmctl.generation.page.source import read_results, with_recipe
    from dlmctl.recipe.load import load_recipe

    found = read_results(results)
    if recipe is not None:
        found = with_recipe(found, load_recipe(recipe)[0])
    page = out or (results / "report.html" if results.is_dir() else results.with_suffix(".html"))
    check_page(page, force=force)
    rows = write_report(found, page)
    typer.echo(f"{rows} {'text' if rows == 1 else 'texts'} shown in {page}")
