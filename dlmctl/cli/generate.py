"""``dlmctl generate``."""

from __future__ import annotations

from typing import Annotated

import typer

from dlmctl.cli import complete
from dlmctl.cli.options import (
    AnyModel,
    Device,
    Json,
    Preset,
    Prompt,
    Quiet,
    Sampler,
    Samples,
    Seed,
    Settings,
    ShardRows,
    Steps,
    overrides,
)

RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="A recipe file or the name of a bundled one.", autocompletion=complete.recipes),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER/",
        help="Write the texts to FILE.txt, FILE.jsonl or FILE.npz, or as shards into FOLDER/. The same command "
        "continues a long run that was cut off.",
    ),
]


def generate(
    recipe: RecipeOption = None,
    samples: Samples = None,
    seed: Seed = None,
    model: AnyModel = None,
    prompt: Prompt = None,
    preset: Preset = None,
    steps: Steps = None,
    sampler: Sampler = None,
    device: Device = None,
    out: Out = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out if there is one.")] = False,
    shard_rows: ShardRows = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Generate texts that satisfy a recipe, or free texts where none is given."""
    import json as encoder

    from dlmctl.recipe.load import load_recipe, read_recipe
    from dlmctl.recipe.recipe import dump_recipe

    given = overrides(
        settings,
        samples=samples,
        seed=seed,
        model=model,
        prompt=prompt,
        preset=preset,
        steps=steps,
        sampler=sampler,
        device=device,
    )
    resolved, origin = load_recipe(recipe, given) if recipe else read_recipe("", "command line", given)
    if dry_run:
        typer.echo(dump_recipe(resolved), nl=False)
        return

    from dlmctl.cli.render import bulk_progress, print_generation, print_outcome, sampling_progress
    from dlmctl.generation.bulk import generate_bulk, target_of
    from dlmctl.generation.generate import run_recipe
    from dlmctl.generation.output import as_json

    target = target_of(out, force=force)
    if target is not None:
        with bulk_progress(quiet=quiet or json) as advance:
            outcome = generate_bulk(resolved, target, shard_rows=shard_rows, origin=origin, progress=advance)
        if outcome is not None and json:
            typer.echo(encoder.dumps({"recipe": resolved.model_dump(), **outcome.figures()}, indent=2))
        elif outcome is not None and not quiet:
            print_outcome(outcome)
        return
    with sampling_progress(quiet=quiet or json) as progress:
        result = run_recipe(resolved, origin=origin, progress=progress)
    if json:
        typer.echo(as_json(result, resolved))
    elif not quiet:
        print_generation(result)
