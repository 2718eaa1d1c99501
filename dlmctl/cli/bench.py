"""``dlmctl bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dlmctl.cli.options import DrawSettings, FiguresAsJson, Judge, Model, settings_recipe

if TYPE_CHECKING:
    from dlmctl.evaluation.speed import Speed


def bench(
    model: Model = "everyday",
    samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="Texts drawn for each case.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Timed repetitions of each case.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    scorer: Judge = None,
    settings: DrawSettings = None,
    json: FiguresAsJson = False,
) -> None:
    """Time the presets on this machine, for free text and for controls with targets the model itself can write."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.cli.render import print_table, working
    from dlmctl.evaluation.speed import compare, self_generated_cases, speedup_over_paper
    from dlmctl.recipe.presets import PRESETS, PresetSettings

    with working(quiet=json) as watch:
        recipes = {
            preset: settings_recipe(settings, model, preset, takes=("sampler", "guidance")) for preset in PRESETS
        }
        pretrained = from_pretrained(model)
        presets = {preset: PresetSettings(recipe.sampler, recipe.guidance) for preset, recipe in recipes.items()}
        cases = self_generated_cases(pretrained, samples, seed=seed, sampler=presets["balanced"].sampler)
        rows = list(compare(pretrained, cases, presets, repeats=repeats, seed=seed, scorer=scorer, watch=watch))
    if json:
        import json as encoder

        records = [{**row._asdict(), "times_paper": speedup_over_paper(rows, row)} for row in rows]
        typer.echo(encoder.dumps(records, indent=2))
    else:
        headings = ("text", "preset", "seconds per sample", "times paper", "success", "lm-score")
        print_table(
            headings, [_cells(row, speedup_over_paper(rows, row)) for row in rows], texts=2, section=len(PRESETS)
        )


def _cells(row: Speed, times_paper: float) -> tuple[str, ...]:
    success = "" if row.success is None else f"{row.success:.1%}"
    fluency = "" if row.lm_score is None else f"{row.lm_score:.2f}"
    return row.case, row.preset, f"{row.seconds:.3f}", f"{times_paper:.1f}", success, fluency
