"""``dlmctl matched``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli.options import Device, Json, Quiet, Seed, Settings, overrides
from dlmctl.cli.start import importing
from dlmctl.errors import UserError


def matched(
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe with conditions: a file or a bundled name.")],
    samples: Annotated[int | None, typer.Option("-n", "--samples", help="Number of items.")] = None,
    seed: Seed = None,
    model: Annotated[str | None, typer.Option(help="A bundled name, a folder or a hub name.")] = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the items to FILE.csv, FILE.tsv or FILE.jsonl.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="A row of --out for each text, with its condition, not for each item.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file of --out.")] = False,
    unique: Annotated[bool, typer.Option("--unique", help="No exchanged word in two items.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any item is incomplete.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fill the same frames under two or more conditions: one row per item, one column per condition."""
    import json as encoder

    from dlmctl.cli.render import counting, print_matched
    from dlmctl.generation.matched_table import FORMATS, objects_of, write_table
    from dlmctl.generation.output import check_file, require_new
    from dlmctl.recipe.load import load_matched

    all_settings = overrides(settings, samples=samples, seed=seed, model=model, device=device, unique=unique or None)
    with importing(quiet=quiet or json or recipe == "-"):
        resolved, origin = load_matched(recipe, all_settings)
    if long and out is None:
        raise UserError("is the form of the table in a file.", where="--long", remedy="Give --out.")
    if out is not None:
        check_file(out, FORMATS)
        require_new(out, force=force)
    with counting("items", quiet=quiet or json) as progress:
        from dlmctl.generation.matched import run_matched

        sets = run_matched(resolved, origin=origin, progress=progress)
    if out is not None:
        write_table(sets, out, long=long)
    if json:
        typer.echo(encoder.dumps({"recipe": resolved.model_dump(), "items": list(objects_of(sets))}, indent=2))
    elif not quiet:
        print_matched(sets)
    if strict and sets.success < 1:
        raise typer.Exit(1)
