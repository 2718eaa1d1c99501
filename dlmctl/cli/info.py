"""``dlmctl info``."""

from __future__ import annotations

from dlmctl.cli.options import ModelArgument


def info(model: ModelArgument = "everyday") -> None:
    """Show a model: its sizes, the controls with weights for it, and its model card."""
    from rich.markdown import Markdown

    from dlmctl.checkpoint.describe import describe
    from dlmctl.text.terminal import make_console

    sizes, card = describe(model)
    console = make_console()
    width = max(map(len, sizes))
    unwrapped = not console.is_terminal  # programs that read a pipe need whole lines
    for name, value in sizes.items():
        console.print(f"{name:<{width}}  {value}", markup=False, highlight=False, soft_wrap=unwrapped)
    if card:
        console.print()
        console.print(card if unwrapped else Markdown(card), markup=False, highlight=False, soft_wrap=unwrapped)
