"""``dlmctl generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dlmctl.cli import complete
from dlmctl.cli.options import (
    AnyModel,
    Controls,
    Device,
    Json,
    PartOption,
    Preset,
    Prompt,
    QuotaFlag,
    Sampler,
    Samples,
    Seed,
    Settings,
    ShardRows,
    Steps,
    Strict,
    Targets,
    UniqueFlag,
    overrides,
)
from dlmctl.cli.start import importing
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.generation.destination import Destination
    from dlmctl.recipe.recipe import Recipe
    from dlmctl.recipe.yaml_file import SettingsFile

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help="A recipe file, the name of a bundled one, or - for standard input.",
        autocompletion=complete.recipes,
    ),
]

# Texts whose steps --report shows by default.
TRACED = 8

Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER/",
        help="Write the texts to FILE.csv, .tsv, .jsonl, .txt, .parquet or .npz, or as shards to FOLDER/. The same "
        "command continues an interrupted run.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="Write an HTML page of all texts and what each control saw in them."),
]
Trace = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Keep every sampling step of the first N texts, in --json, --out FILE.jsonl and --report. "
        f"By default {TRACED} with --report, otherwise none.",
    ),
]

QuietTexts = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print no progress and no table, only the texts, one per line; nothing with --out."
    ),
]


def generate(
    recipe: RecipeOption = None,
    control: Controls = None,
    targets: Targets = None,
    samples: Samples = None,
    seed: Seed = None,
    model: AnyModel = None,
    prompt: Prompt = None,
    preset: Preset = None,
    steps: Steps = None,
    sampler: Sampler = None,
    device: Device = None,
    quota: QuotaFlag = False,
    unique: UniqueFlag = False,
    strict: Strict = False,
    out: Out = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files of --out and --report.")] = False,
    shard_rows: ShardRows = None,
    part: PartOption = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and exit.")] = False,
    report: Report = None,
    trace: Trace = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the words in the terminal as they settle; not with --out.")
    ] = False,
    quiet: QuietTexts = False,
    json: Json = False,
) -> None:
    """Generate texts that satisfy a recipe, or free texts without one."""
    run_options = {"targets": targets, "unique": unique or None, "samples": samples, "seed": seed, "model": model}
    prompts = prompt[0] if prompt and len(prompt) == 1 else prompt  # alone it needs no column
    sampling_options = {"prompt": prompts, "preset": preset, "steps": steps, "sampler": sampler, "device": device}
    all_settings = overrides(settings, **run_options, **sampling_options)
    resolved, origin = _read(recipe, all_settings, control or [], quiet=quiet or json)
    if quota and resolved.quota is None:
        from dlmctl.recipe.load import require_passing
        from dlmctl.recipe.settings import Quota

        resolved.quota = Quota()
        require_passing(resolved, origin)
    if dry_run:
        from dlmctl.recipe.recipe import dump_recipe

        typer.echo(dump_recipe(resolved), nl=False)
        return

    with importing():
        from dlmctl.generation.destination import read_destination

    traced = trace if trace is not None else TRACED if report is not None else 0
    display = Display(quiet, json, strict, report, traced, watch)
    target = read_destination(out, force=force, part=part)
    division = Division(shard_rows, part)
    _check_options(display, out, division, force=force)
    if target is not None:
        _draw_to_files(resolved, origin, target, division, display)
    else:
        _draw_to_screen(resolved, origin, display)


def _read(
    recipe: str | None, settings: Sequence[str], controls: Sequence[str], *, quiet: bool
) -> tuple[Recipe, SettingsFile]:
    """The recipe that a command line specifies, and the source of its settings."""
    with importing(quiet=quiet or recipe == "-"):
        from dlmctl.recipe.load import free_recipe, load_recipe, read_recipe

        if recipe is not None:
            resolved, origin = load_recipe(recipe, settings, controls=controls)
            if recipe == resolved.targets == "-":
                what = "holds the recipe, so it cannot hold the targets too."
                raise UserError(what, where="standard input", remedy="Put one of them into a file.")
            return resolved, origin
        return read_recipe(free_recipe(settings), "command line", settings, controls=controls)


class Division(NamedTuple):
    """How a long run is divided: the texts per new shard, and the part that this command draws."""

    shard_rows: int | None
    part: str | None


class Display(NamedTuple):
    """What a run shows; ``trace`` counts the texts whose steps are kept, ``strict`` makes a failed check an error."""

    quiet: bool
    json: bool
    strict: bool
    report: Path | None
    trace: int
    watch: bool

    @property
    def silent(self) -> bool:
        return self.quiet or self.json


def _draw_to_files(
    recipe: Recipe, origin: SettingsFile, target: Destination, division: Division, display: Display
) -> None:
    """Draw texts into shards or a file, and print totals."""
    import json

    from dlmctl.cli.render import bulk_progress, print_outcome
    from dlmctl.generation.bulk import generate_bulk
    from dlmctl.generation.part import read_part

    with bulk_progress(quiet=display.silent) as advance:
        outcome = generate_bulk(
            recipe,
            target,
            shard_rows=division.shard_rows,
            traced=display.trace,
            strict=display.strict,
            part=None if division.part is None else read_part(division.part),
            origin=origin,
            progress=advance,
        )
    if outcome is None:  # only the first of several processes reports
        return
    if display.report is not None:
        from dlmctl.generation.page.report import write_report
        from dlmctl.generation.page.source import read_results

        write_report(read_results(outcome.place, recipe.model_dump()), display.report)
    if display.json:
        typer.echo(json.dumps({"recipe": recipe.model_dump(), **outcome.figures()}, indent=2))
    elif not display.quiet:
        print_outcome(outcome)
    _fail_if_strict(outcome.tally.passed == outcome.tally.rows, strict=display.strict)


def _draw_to_screen(recipe: Recipe, origin: SettingsFile, display: Display) -> None:
    """Draw texts and print them."""
    from dlmctl.cli.render_texts import print_generation
    from dlmctl.cli.watch import drawing
    from dlmctl.generation.output import as_json, as_lines
    from dlmctl.generation.run import run_recipe

    by_texts = recipe.targets is not None or recipe.quota is not None
    with drawing(watch=display.watch, quiet=display.silent, texts=by_texts) as callbacks:
        result = run_recipe(recipe, origin=origin, strict=display.strict, trace=display.trace, **callbacks)
    if display.report is not None:
        from dlmctl.generation.page.report import write_report
        from dlmctl.generation.page.source import results_of_run

        write_report(results_of_run(result, recipe.model_dump()), display.report)
    if display.json:
        typer.echo(as_json(result, recipe))
    elif display.quiet:
        for line in as_lines(result.to_dicts(), ".txt"):
            typer.echo(line, nl=False)
        unmet = sum(sample.unmet is not None for sample in result)
        if unmet:  # without this note, line numbers would be taken for row numbers
            note = f"dlmctl: {unmet} of {len(result)} texts could not be drawn and have no line; --json says why."
            typer.echo(note, err=True)
    else:
        print_generation(result, draws_once=recipe.until is None and recipe.quota is None)
    _fail_if_strict(all(sample.passed for sample in result), strict=display.strict)


def _fail_if_strict(passed: bool, *, strict: bool) -> None:
    """Exit with 1 if every text had to pass and one did not."""
    if strict and not passed:
        raise typer.Exit(1)


def _check_options(display: Display, out: str | None, division: Division, *, force: bool) -> None:
    """Raise UserError where --shard-rows, --watch or --report cannot be combined with the destination of the texts."""
    if division.shard_rows is not None and out is None:
        raise UserError("only texts written to files have shards.", where="--shard-rows", remedy="Give --out.")
    if display.watch and out is not None:
        raise UserError("only shows texts printed to the terminal.", where="--watch", remedy="Leave out --out.")
    if display.report is None:
        return

    from dlmctl.generation.page.report import check_page

    check_page(display.report, force=force)
    if out is not None and Path(out).suffix not in ("", ".jsonl"):
        remedy = "Write .jsonl or a folder instead."
        what = "this format does not keep what the controls saw, which --report shows."
        raise UserError(what, where=f"--out {out}", remedy=remedy)
