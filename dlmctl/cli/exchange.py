"""``dlmctl import`` and ``dlmctl export``: models of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import_app = typer.Typer(no_args_is_help=True)
export_app = typer.Typer(no_args_is_help=True)


@import_app.callback()
def import_() -> None:
    """Make models of other programs ours."""


@import_app.command("original")
def import_original(
    folder: Annotated[Path, typer.Argument(help="Folder of a training run of Diffusion-LM, with training_args.json.")],
    to: Annotated[Path, typer.Option(help="Folder for the model.")],
) -> None:
    """Turn a checkpoint of the original Diffusion-LM into a model of dlmctl."""
    from dlmctl.checkpoint.original import load_original
    from dlmctl.checkpoint.pretrained import save_pretrained
    from dlmctl.checkpoint.weights import check_new

    check_new(to)
    save_pretrained(*load_original(folder), to)
    typer.echo(f"model saved in {to}")


@export_app.callback()
def export() -> None:
    """Write models for other programs."""


@export_app.command("original")
def export_original(
    model: Annotated[str, typer.Argument(help="A folder, a bundled name or a hub name.")],
    to: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
) -> None:
    """Write a model as a checkpoint of the original Diffusion-LM, where the original can express it."""
    from dlmctl.checkpoint.original import export_original as write
    from dlmctl.checkpoint.pretrained import from_pretrained

    pretrained = from_pretrained(model)
    write(pretrained.latent, pretrained.tokenizer, to)
    typer.echo(f"checkpoint saved in {to}")
