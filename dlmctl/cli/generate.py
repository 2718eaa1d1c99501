"""``dlmctl generate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class SamplerName(str, Enum):
    ancestral = "ancestral"
    ddim = "ddim"
    dpmpp_2m = "dpmpp_2m"


class PresetName(str, Enum):
    fast = "fast"
    balanced = "balanced"
    quality = "quality"
    paper = "paper"


def generate(
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe file or the name of a bundled one.")
    ] = None,
    samples: Annotated[int | None, typer.Option("-n", "--samples", help="How many texts.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same texts.")] = None,
    model: Annotated[str | None, typer.Option(help="A bundled name, a folder or a hub name.")] = None,
    preset: Annotated[
        PresetName | None, typer.Option(help="Sampler and guidance where the recipe says nothing of them.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Reverse steps.")] = None,
    sampler: Annotated[SamplerName | None, typer.Option(help="Which sampler.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER/",
            help="Write the texts to FILE.txt, FILE.jsonl or FILE.npz, or as shards into FOLDER/. The same command "
            "continues a long run that was cut off.",
        ),
    ] = None,
    shard_rows: Annotated[
        int | None, typer.Option(min=1, help="Texts in each new shard of a long run; 512 if not given.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Generate texts that satisfy a recipe, or free texts where none is given."""
    import json as encoder

    from dlmctl.recipe import dump_recipe, load_recipe, read_recipe

    options = {
        "samples": samples,
        "seed": seed,
        "model": model,
        "preset": preset.value if preset else None,
        "sampler.steps": steps,
        "sampler.name": sampler.value if sampler else None,
        "device": device,
    }
    # As JSON, which is YAML: a folder named 12 or null is still a name.
    given = [f"{key}={encoder.dumps(value)}" for key, value in options.items() if value is not None]
    overrides = [*(settings or []), *given]
    resolved, origin = load_recipe(recipe, overrides) if recipe else read_recipe("", "command line", overrides)
    if dry_run:
        typer.echo(dump_recipe(resolved), nl=False)
        return

    from dlmctl.bulk import generate_bulk, target_of
    from dlmctl.cli.render import bulk_progress, print_generation, print_outcome, sampling_progress
    from dlmctl.output import as_json, write

    target = target_of(out, resolved.samples)
    if target is not None:
        with bulk_progress(quiet=quiet or json) as advance:
            outcome = generate_bulk(resolved, target, shard_rows=shard_rows, progress=advance)
        if outcome is not None and json:
            typer.echo(encoder.dumps({"recipe": resolved.model_dump(), **outcome.figures()}, indent=2))
        elif outcome is not None and not quiet:
            print_outcome(outcome)
        return
    with sampling_progress(quiet=quiet or json) as progress:
        from dlmctl.generation import run_recipe

        result = run_recipe(resolved, origin=origin, progress=progress)
    if out is not None:
        write(result, Path(out))
    if json:
        typer.echo(as_json(result, resolved))
    elif not quiet:
        print_generation(result)
