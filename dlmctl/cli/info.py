"""``dlmctl info``."""

from __future__ import annotations

from dlmctl.cli.options import ModelArgument


def info(model: ModelArgument = "everyday") -> None:
    """Show a model: its sizes, which controls have weights for it, and its card."""
    from rich.console import Console
    from rich.markdown import Markdown

    from dlmctl.checkpoint.describe import describe

    sizes, card = describe(model)
    console = Console()
    width = max(map(len, sizes))
    whole = not console.is_terminal  # what reads a pipe wants lines as they are
    for name, value in sizes.items():
        console.print(f"{name:<{width}}  {value}", markup=False, highlight=False, soft_wrap=whole)
    if card:
        console.print()
        console.print(card if whole else Markdown(card), markup=False, highlight=False, soft_wrap=whole)
