"""Pictures of figures, by matplotlib (extra ``plot``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlmctl.errors import UserError
from dlmctl.generation.output import replacing

if TYPE_CHECKING:
    from dlmctl.evaluation.nll import Picture

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Find out before measuring whether a picture can be drawn.

    Raises:
        UserError: matplotlib is not installed, the ending is not known, or there is no such folder.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        remedy = "Install it with `pip install matplotlib`."
        raise UserError("a plot needs matplotlib.", where="--plot", remedy=remedy) from None
    if path.suffix not in FORMATS:
        what = f"the ending {path.suffix!r} is not known."
        raise UserError(what, where=str(path), remedy=f"Use {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(path.parent), remedy="Make it first.")


def plot_parts(picture: Picture, path: Path) -> None:
    """The parts of a bound as bars.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    starts, widths = zip(*((part.since, part.until - part.since) for part in picture.parts), strict=True)
    axes.bar(starts, [part.nats for part in picture.parts], width=widths, align="edge", edgecolor="white")
    axes.set_xlim(0, 1)
    axes.set_xlabel(picture.along)
    axes.set_ylabel(picture.unit)
    axes.set_title(picture.title, fontsize="medium")
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)
