"""``dlmctl matched``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli.options import Device, Json, Quiet, Seed, Settings, overrides


def matched(
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe with conditions: a file or a bundled name.")],
    samples: Annotated[int | None, typer.Option("-n", "--samples", help="How many items.")] = None,
    seed: Seed = None,
    model: Annotated[str | None, typer.Option(help="A bundled name, a folder or a hub name.")] = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the items to FILE.csv, FILE.tsv or FILE.jsonl.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out if it is there.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where an item is not whole.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fill the same frames under two or more conditions: one row an item, one column a condition."""
    import json as encoder

    from dlmctl.cli.render import counting, print_matched
    from dlmctl.generation.matched_table import FORMATS, objects_of, write_table
    from dlmctl.generation.output import check_file, require_new
    from dlmctl.recipe.load import load_matched

    given = overrides(settings, samples=samples, seed=seed, model=model, device=device)
    resolved, origin = load_matched(recipe, given)
    if out is not None:
        check_file(out, FORMATS)
        require_new(out, force=force)
    with counting("items", quiet=quiet or json) as progress:
        from dlmctl.generation.matched import run_matched

        found = run_matched(resolved, origin=origin, progress=progress)
    if out is not None:
        write_table(found, out)
    if json:
        typer.echo(encoder.dumps({"recipe": resolved.model_dump(), "items": list(objects_of(found))}, indent=2))
    elif not quiet:
        print_matched(found)
    if strict and found.success < 1:
        raise typer.Exit(1)
