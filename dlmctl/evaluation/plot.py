"""Plots of figures with matplotlib (extra ``plot``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlmctl.errors import UserError
from dlmctl.generation.output import atomic_write

if TYPE_CHECKING:
    from dlmctl.evaluation.nll import PlotData

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Check before measuring that a plot can be drawn and saved.

    Raises:
        UserError: matplotlib is not installed, the ending is not supported, or the folder does not exist.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        remedy = "Install it with `pip install matplotlib`."
        raise UserError("a plot needs matplotlib.", where="--plot", remedy=remedy) from None
    if path.suffix not in FORMATS:
        message = f"the ending {path.suffix!r} is not known."
        raise UserError(message, where=str(path), remedy=f"Use {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(path.parent), remedy="Make it first.")


def plot_parts(data: PlotData, path: Path) -> None:
    """Plot the parts of a bound as a bar chart.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    starts, widths = zip(*((part.since, part.until - part.since) for part in data.parts), strict=True)
    axes.bar(starts, [part.nats for part in data.parts], width=widths, align="edge", edgecolor="white")
    axes.set_xlim(0, 1)
    axes.set_xlabel(data.xlabel)
    axes.set_ylabel(data.ylabel)
    axes.set_title(data.title, fontsize="medium")
    with atomic_write(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)
