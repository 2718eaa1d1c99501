"""``dlmctl evaluate``: free samples, control success on targets, texts from sources, overlap with references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dlmctl.cli import complete
from dlmctl.cli.options import DrawSettings, FiguresAsJson, Judge, settings_recipe

app = typer.Typer(no_args_is_help=True)

# Settings of the texts that ``evaluate control`` measures.
CONTROL_SETTINGS = ("preset", "sampler", "guidance", "until", "candidates", "rank_by", "scorer", "second_scorer")

TaskModel = Annotated[
    str,
    typer.Option(
        help="A bundled name, a folder or a hub name. The tasks of the Diffusion-LM paper are for e2e.",
        autocompletion=complete.models,
    ),
]
Tokenize = Annotated[
    str,
    typer.Option(help="Tokenisation before the comparison: 13a, zh (Chinese) or char (characters)."),
]


@app.command()
def samples(
    data: Annotated[Path, typer.Option(help="The prepared data set that the model was trained on.")],
    model: TaskModel = "e2e",
    samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="Number of free samples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    scorer: Judge = None,
    settings: DrawSettings = None,
    json: FiguresAsJson = False,
) -> None:
    """Measure fluency, diversity and novelty of free samples, next to those of the validation text."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.cli.render import sampling_progress
    from dlmctl.evaluation.samples import evaluate_samples

    recipe = settings_recipe(settings, model, takes=("preset", "sampler"))
    with sampling_progress(quiet=json) as progress:
        figures = evaluate_samples(
            from_pretrained(model),
            data,
            samples=samples,
            seed=seed,
            sampler=recipe.sampler,
            scorer=scorer,
            progress=progress,
        )
    _print(figures, json)


@app.command()
def control(
    names: Annotated[list[str], typer.Argument(help="A control, e.g. pos, or several that must all hold.")],
    targets: Annotated[Path, typer.Option(help="JSON lines, each a target: a sentence as `words`, or parameters.")],
    model: TaskModel = "e2e",
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of targets, from the first.")] = None,
    params: Annotated[
        list[str] | None, typer.Option("--param", metavar="KEY=VALUE", help="Override a parameter of every target.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Tagger or parser that reads the targets and checks: a folder, stanza:en or spacy:MODEL."),
    ] = None,
    scorer: Judge = None,
    settings: DrawSettings = None,
    json: FiguresAsJson = False,
) -> None:
    """Measure success and fluency of a control: one sample for each target, guided and unguided."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.cli.render import sampling_progress
    from dlmctl.control.base import All
    from dlmctl.errors import UserError
    from dlmctl.evaluation.control_success import evaluate_control, read_targets

    recipe = settings_recipe(settings, model, takes=CONTROL_SETTINGS)
    if params and len(names) > 1:
        raise UserError("--param works with a single control only.", where="command line")
    controls = [read_targets(name, targets, limit, _params(params), judge) for name in names]
    control, count = controls[0] if len(controls) == 1 else (All([single for single, _ in controls]), controls[0][1])
    with sampling_progress(quiet=json) as progress:
        figures = evaluate_control(
            control,
            from_pretrained(model),
            count,
            seed=seed,
            settings=recipe,
            scorer=scorer,
            progress=progress,
        )
    _print(figures, json)


@app.command()
def source(
    model: Annotated[str, typer.Argument(help="A model that is conditioned on a source: a folder or a hub name.")],
    data: Annotated[Path, typer.Option(help="A prepared data set, or aNLG (JSON) or E2E (CSV) as released.")],
    split: Annotated[str, typer.Option(help="Split of a prepared data set.")] = "valid",
    candidates: Annotated[
        int,
        typer.Option(
            "-k", "--candidates", min=1, help="Texts drawn for each source; the one most like the others is kept."
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of sources, from the first.")] = None,
    settings: DrawSettings = None,
    encoder: Annotated[
        Path | None, typer.Option("--bertscore", help="Folder of a Hugging Face encoder; adds BERTScore.")
    ] = None,
    layer: Annotated[int, typer.Option("--bertscore-layer", help="Encoder layer for BERTScore; -1 is the last.")] = -1,
    tokenize: Tokenize = "13a",
    out: Annotated[Path | None, typer.Option(help="Write the texts to FILE.txt, FILE.jsonl or FILE.npz.")] = None,
    json: FiguresAsJson = False,
) -> None:
    """Compare one text per distinct source with all its references: BLEU, NIST, METEOR, ROUGE-L and CIDEr."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.cli.render import sampling_progress
    from dlmctl.evaluation.source import evaluate_source, read_tasks, source_fields
    from dlmctl.generation.output import check_target, write
    from dlmctl.metrics.text_files import split_by

    recipe = settings_recipe(settings, model, takes=("preset", "sampler"))
    split_words = split_by(tokenize)
    if out is not None:
        check_target(out)
    pretrained = from_pretrained(model)
    tasks = read_tasks(data, split, source_fields(pretrained))[:limit]
    with sampling_progress(quiet=json) as progress:
        figures, result = evaluate_source(
            pretrained,
            tasks,
            seed=seed,
            candidates=candidates,
            sampler=recipe.sampler,
            encoder=encoder,
            encoder_layer=layer,
            words=split_words,
            progress=progress,
        )
    if out is not None:
        write(result, out)
    _print(figures, json)


@app.command()
def overlap(
    hypotheses: Annotated[Path, typer.Argument(help="Texts, one per line, or JSON lines with a `text`.")],
    references: Annotated[
        Path,
        typer.Argument(help="A group of texts for each, with empty lines between, or JSON lines with `references`."),
    ],
    tokenize: Tokenize = "13a",
    json: FiguresAsJson = False,
) -> None:
    """Compute BLEU, NIST, METEOR, ROUGE-L and CIDEr of texts against references, as in the E2E challenge."""
    from dlmctl.metrics.overlap import overlap as compare
    from dlmctl.metrics.text_files import read_hypotheses, read_references, split_by
    from dlmctl.text.terminal import spinning

    split = split_by(tokenize)
    with spinning("comparing the texts with their references"):
        figures = compare(read_hypotheses(hypotheses, split), read_references(references, split))
    _print(figures._asdict(), json)


def _params(settings: list[str] | None) -> dict[str, Any]:
    from dlmctl.recipe.overrides import override

    params: dict[str, Any] = {}
    for setting in settings or []:
        override(params, setting)
    return params


def _print(figures: dict[str, Any], json: bool) -> None:
    if json:
        import json as encoder

        typer.echo(encoder.dumps(figures, indent=2))
        return
    from dlmctl.cli.render import figure, print_table
    from dlmctl.control.catalogue import in_yaml

    by_target = figures.pop("by_target", [])
    for name, value in figures.items():
        typer.echo(f"{name:<28} {figure(value)}")
    if by_target:
        rows = [
            [row["control"], in_yaml(row["target"])[1:-1], *map(figure, list(row.values())[2:])] for row in by_target
        ]
        print_table([name.replace("_", " ") for name in by_target[0]], rows, texts=2)  # a terminal breaks at spaces
