"""``dlmctl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli import complete
from dlmctl.cli.options import Table, overrides
from dlmctl.errors import UserError


def report(
    results: Annotated[
        Path, typer.Argument(help="A .jsonl file or a folder written by --out, or a .json file with the --json output.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page to write; by default next to the results.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="The recipe to show, if the results do not contain it.",
            autocompletion=complete.recipes,
        ),
    ] = None,
    targets: Table = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing page.")] = False,
) -> None:
    """Write an HTML page of results: every text and what each control saw in it."""
    from dlmctl.generation.page.report import check_page, write_report
    from dlmctl.generation.page.source import read_results, with_recipe
    from dlmctl.recipe.load import load_recipe

    source = read_results(results)
    if recipe is not None:
        source = with_recipe(source, load_recipe(recipe, overrides(None, targets=targets))[0])
    elif targets is not None:
        raise UserError("--targets is the table of a recipe.", remedy="Name the recipe: --recipe.")
    page = out or (results / "report.html" if results.is_dir() else results.with_suffix(".html"))
    check_page(page, force=force)
    rows = write_report(source, page)
    typer.echo(f"{rows} {'text' if rows == 1 else 'texts'} shown in {page}")
