"""``dlmctl decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli.options import (
    Device,
    Json,
    ModelArgument,
    Preset,
    Quiet,
    Sampler,
    Samples,
    Scorer,
    Seed,
    Settings,
    ShardRows,
    Steps,
    overrides,
)


def decode(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the texts, their latents and the figures.")],
    samples: Samples = None,
    seed: Seed = None,
    preset: Preset = None,
    steps: Steps = None,
    sampler: Sampler = None,
    device: Device = None,
    references: Annotated[
        Path | None, typer.Option(help="Texts to compare with: a file, or a prepared data set (its validation split).")
    ] = None,
    scorer: Scorer = None,
    measure: Annotated[int, typer.Option(min=1, help="Number of texts to measure, from the first.")] = 1000,
    shard_rows: ShardRows = None,
    settings: Settings = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw many texts with their latents, and measure them: perplexity, diversity, closeness to references.

    The same command continues an interrupted run.
    """
    import json as encoder

    from dlmctl.cli.render import bulk_progress, print_decoded
    from dlmctl.evaluation.decode import decode as run
    from dlmctl.evaluation.decode import report
    from dlmctl.recipe.load import read_recipe

    all_settings = overrides(
        settings, samples=samples, seed=seed, model=model, preset=preset, steps=steps, sampler=sampler, device=device
    )
    recipe, _ = read_recipe("", "command line", all_settings)
    with bulk_progress(quiet=quiet or json) as advance:
        decoded = run(
            recipe,
            out,
            references=references,
            scorer=scorer,
            measured=measure,
            shard_rows=shard_rows,
            progress=advance,
        )
    if decoded is not None and json:
        typer.echo(encoder.dumps(report(decoded), indent=2))
    elif decoded is not None and not quiet:
        print_decoded(decoded, out)
