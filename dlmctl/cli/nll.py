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
    split: Annotated[str, typer.Option(help="Split of a prepared data set.")] = "valid",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of texts, spread evenly over the data.")] = 1000,
    draws: Annotated[int, typer.Option(min=1, help="Diffusion steps, or masked canvases, drawn for each text.")] = 20,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Diffusion steps (not for masked models), by default 2000. The bound depends on it."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Plot the parts over t to FILE.png, .svg or .pdf.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Bound the likelihood of texts: an upper bound on -log p, and its parts over time or over the share masked."""
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

        pretrained = from_pretrained(model, choose_device(device, needs_float64=True))
        texts = read_texts(data, pretrained, split, limit)
        likelihood = bound_of_texts(pretrained, texts, steps=steps, draws=draws, seed=seed, progress=progress)
    if plot is not None:
        plot_parts(likelihood.plot_data(), plot)
    if json:
        typer.echo(encoder.dumps(_without_nan(likelihood.figures()), indent=2, allow_nan=False))
    else:
        print_likelihood(likelihood)


def _without_nan(value: Any) -> Any:
    """The value with None for numbers that JSON cannot express, such as the standard error of a single text."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
