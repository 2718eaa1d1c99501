"""``dlmctl nll``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dlmctl.cli.options import Json, ModelArgument, Quiet


def nll(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="A prepared data set with the model's vocabulary, or a file of texts.")],
    split: Annotated[str, typer.Option(help="Of a prepared data set.")] = "valid",
    limit: Annotated[int, typer.Option(min=1, help="Use at most so many texts, spread evenly.")] = 1000,
    draws: Annotated[
        int, typer.Option(min=1, help="Steps of the process, or masked canvases, drawn for each text.")
    ] = 20,
    steps: Annotated[
        int | None,
        typer.Option(
            min=2, help="Steps of the process (not of masked models); 2000 if not given. Each number has its own bound."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Draw the parts over t: FILE.png, .svg or .pdf.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """How likely a model finds texts: an upper bound on -log p, and its parts over time or over the share masked."""
    import json as encoder

    from dlmctl.cli.render import counting
    from dlmctl.cli.render_bound import print_likelihood
    from dlmctl.evaluation.plot import check_plot, plot_parts

    if plot is not None:
        check_plot(plot)
    with counting("texts", quiet=quiet or json) as progress:
        from dlmctl.checkpoint.pretrained import from_pretrained
        from dlmctl.evaluation.masked_nll import bound_of_texts
        from dlmctl.evaluation.nll import read_texts
        from dlmctl.sampling.device import choose_device

        pretrained = from_pretrained(model, choose_device(device))
        texts = read_texts(data, pretrained, split, limit)
        found = bound_of_texts(pretrained, texts, steps=steps, draws=draws, seed=seed, progress=progress)
    if plot is not None:
        plot_parts(found.picture(), plot)
    if json:
        typer.echo(encoder.dumps(_finite(found.figures()), indent=2, allow_nan=False))
    else:
        print_likelihood(found)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON has not, such as the standard error of a single text."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
