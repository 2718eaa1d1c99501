"""``dlmctl info``."""

from __future__ import annotations

from typing import Annotated

import typer


def info(model: Annotated[str, typer.Argument(help="A bundled name, a folder or a hub name.")] = "e2e") -> None:
    """Show a model: its sizes, which controls have weights for it, and its card."""
    from rich.console import Console
    from rich.markdown import Markdown

    from dlmctl.checkpoint.describe import describe

    sizes, card = describe(model)
    console = Console()
    width = max(map(len, sizes))
    for name, value in sizes.items():
        console.print(f"{name:<{width}}  {value}", highlight=False)
    if card:
        console.print()
        console.print(Markdown(card) if console.is_terminal else card, markup=False, highlight=False)
