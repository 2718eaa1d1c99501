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
    from dlmctl.generation.destination import Target
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

# Texts of which a page shows how they came about, unless told otherwise.
TRACED = 8

Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER/",
        help="Write the texts to FILE.csv, .tsv, .jsonl, .txt, .parquet or .npz, or as shards into FOLDER/. The same "
        "command continues a long run that was cut off.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="Write a page to look at: every text and what each control saw in it."),
]
Trace = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Keep how the first N texts came about, step by step, in --json, --out FILE.jsonl and --report. "
        f"By default {TRACED} with --report, else none.",
    ),
]

QuietTexts = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress, no table: the texts alone, one a line; nothing at all with --out."
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace the files of --out and --report if they are there.")
    ] = False,
    shard_rows: ShardRows = None,
    part: PartOption = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    report: Report = None,
    trace: Trace = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the words as they settle, in a terminal; not with --out.")
    ] = False,
    quiet: QuietTexts = False,
    json: Json = False,
) -> None:
    """Generate texts that satisfy a recipe, or free texts where none is given."""
    basics = {"targets": targets, "unique": unique or None, "samples": samples, "seed": seed, "model": model}
    ways = {"prompt": prompt, "preset": preset, "steps": steps, "sampler": sampler, "device": device}
    resolved, origin = _read(recipe, model, overrides(settings, **basics, **ways), control or [])
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
        from dlmctl.generation.destination import target_of

    traced = trace if trace is not None else TRACED if report is not None else 0
    shown = Shown(quiet, json, strict, report, traced, watch)
    target = target_of(out, force=force, part=part)
    cut = Cut(shard_rows, part)
    _check_looks(shown, out, cut, force=force)
    if target is not None:
        _to_files(resolved, origin, target, cut, shown)
    else:
        _to_screen(resolved, origin, shown)


def _read(
    recipe: str | None, model: str | None, given: Sequence[str], controls: Sequence[str]
) -> tuple[Recipe, SettingsFile]:
    """The recipe that a command line asks for, and where it stands."""
    with importing():
        from dlmctl.recipe.load import free_recipe, load_recipe, read_recipe

        if recipe is not None:
            resolved, origin = load_recipe(recipe, given, controls=controls)
            if recipe == resolved.targets == "-":
                what = "holds the recipe, and cannot hold its targets too."
                raise UserError(what, where="standard input", remedy="Put one of them into a file.")
            return resolved, origin
        return read_recipe(free_recipe(model), "command line", given, controls=controls)


class Cut(NamedTuple):
    """How a long run is cut up: texts of each new shard, and which part of it this command draws."""

    shard_rows: int | None
    part: str | None


class Shown(NamedTuple):
    """What is shown of a run: the steps of the first ``trace`` texts; with ``strict`` failing is an error."""

    quiet: bool
    json: bool
    strict: bool
    report: Path | None
    trace: int
    watch: bool

    @property
    def silent(self) -> bool:
        return self.quiet or self.json


def _to_files(recipe: Recipe, origin: SettingsFile, target: Target, cut: Cut, shown: Shown) -> None:
    """Draw into shards or a file, and print totals."""
    import json

    from dlmctl.cli.render import bulk_progress, print_outcome
    from dlmctl.generation.bulk import generate_bulk
    from dlmctl.generation.part import read_part

    with bulk_progress(quiet=shown.silent) as advance:
        outcome = generate_bulk(
            recipe,
            target,
            shard_rows=cut.shard_rows,
            traced=shown.trace,
            strict=shown.strict,
            part=None if cut.part is None else read_part(cut.part),
            origin=origin,
            progress=advance,
        )
    if outcome is None:  # of several processes this is not the first
        return
    if shown.report is not None:
        from dlmctl.generation.page.report import write_report
        from dlmctl.generation.page.source import read_results

        write_report(read_results(outcome.place, recipe.model_dump()), shown.report)
    if shown.json:
        typer.echo(json.dumps({"recipe": recipe.model_dump(), **outcome.figures()}, indent=2))
    elif not shown.quiet:
        print_outcome(outcome)
    _end(outcome.tally.passed == outcome.tally.rows, strict=shown.strict)


def _to_screen(recipe: Recipe, origin: SettingsFile, shown: Shown) -> None:
    """Draw and print."""
    from dlmctl.cli.render_texts import print_generation
    from dlmctl.cli.watch import drawing
    from dlmctl.generation.output import as_json, as_lines
    from dlmctl.generation.run import run_recipe

    counted = recipe.targets is not None or recipe.quota is not None
    with drawing(watch=shown.watch, quiet=shown.silent, texts=counted) as look:
        result = run_recipe(recipe, origin=origin, strict=shown.strict, trace=shown.trace, **look)
    if shown.report is not None:
        from dlmctl.generation.page.report import write_report
        from dlmctl.generation.page.source import of_run

        write_report(of_run(result, recipe.model_dump()), shown.report)
    if shown.json:
        typer.echo(as_json(result, recipe))
    elif shown.quiet:
        for line in as_lines(result.to_dicts(), ".txt"):
            typer.echo(line, nl=False)
        unmet = sum(sample.unmet is not None for sample in result)
        if unmet:  # or lines would be taken for rows
            said = f"dlmctl: {unmet} of {len(result)} texts could not be drawn and have no line; --json says why."
            typer.echo(said, err=True)
    else:
        print_generation(result)
    _end(all(sample.passed for sample in result), strict=shown.strict)


def _end(passed: bool, *, strict: bool) -> None:
    """Exit with 1 where every text should have passed and one did not."""
    if strict and not passed:
        raise typer.Exit(1)


def _check_looks(shown: Shown, out: str | None, cut: Cut, *, force: bool) -> None:
    """Raise UserError where what is to be looked at, or how the run is cut up, does not go with where the texts go."""
    if cut.shard_rows is not None and out is None:
        raise UserError("only texts that go to files come in shards.", where="--shard-rows", remedy="Give --out.")
    if shown.watch and out is not None:
        raise UserError("shows texts that go to the terminal.", where="--watch", remedy="Leave out --out.")
    if shown.report is None:
        return

    from dlmctl.generation.page.report import check_page

    check_page(shown.report, force=force)
    if out is not None and Path(out).suffix not in ("", ".jsonl"):
        remedy = "Write .jsonl or a folder, of which a page can be made."
        raise UserError("these texts come without what the controls saw.", where=f"--out {out}", remedy=remedy)
