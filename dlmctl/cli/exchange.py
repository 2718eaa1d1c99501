"""``dlmctl import`` and ``dlmctl export``: models of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import_app = typer.Typer(no_args_is_help=True)
export_app = typer.Typer(no_args_is_help=True)


@import_app.callback()
def import_() -> None:
    """Import models of other programs."""


@import_app.command("original")
def import_original(
    folder: Annotated[Path, typer.Argument(help="Folder of a Diffusion-LM training run, with training_args.json.")],
    to: Annotated[Path, typer.Option(help="Folder for the model.")],
) -> None:
    """Convert a checkpoint of the original Diffusion-LM to a dlmctl model."""
    from dlmctl.checkpoint.original import load_original
    from dlmctl.checkpoint.pretrained import save_pretrained
    from dlmctl.checkpoint.weights import check_new

    check_new(to)
    save_pretrained(*load_original(folder), to)
    typer.echo(f"model saved in {to}")


@export_app.callback()
def export() -> None:
    """Export models to other programs."""


@export_app.command("original")
def export_original(
    model: Annotated[str, typer.Argument(help="A folder, a bundled name or a hub name.")],
    to: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
) -> None:
    """Convert a model to a checkpoint of the original Diffusion-LM, where the original can express it."""
    from dlmctl.checkpoint.original import export_original as write
    from dlmctl.checkpoint.pretrained import from_pretrained

    pretrained = from_pretrained(model)
    write(pretrained.latent, pretrained.tokenizer, to)
    typer.echo(f"checkpoint saved in {to}")
