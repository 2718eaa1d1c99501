"""What a training run shows and records: a bar or plain lines, ``metrics.jsonl`` and TensorBoard events.

Before most of the steps are taken it says how long they will take, from the time of the first few.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from dlmctl.errors import UserError
from dlmctl.text.files import require_file
from dlmctl.training.run_folder import FIGURES

# The first steps are slower than the rest (memory, kernels, compilation); the time of those behind them is measured.
UNMEASURED, MEASURED = 2, 5


class Grid(NamedTuple):
    """Figures of a validation that are read as a table.

    Attributes:
        head: what the columns are.
        columns: their names.
        rows: by the name of each row, the name of the figure in each column.
    """

    head: str
    columns: list[str]
    rows: dict[str, list[str]]

    def lines(self, figures: dict[str, float]) -> list[list[str]]:
        """The table as texts, the heads first."""
        rows = [[row, *(f"{figures[name]:.3f}" for name in names)] for row, names in self.rows.items()]
        return [[self.head, *self.columns], *rows]

    def names(self) -> set[str]:
        """The figures that stand in the table."""
        return {name for names in self.rows.values() for name in names}


class TrainingProgress:
    """Context of one run. ``loss`` is the running mean since the last log.

    Args:
        flops: operations of one position, and of the devices in a second; None leaves their utilisation out.
    """

    def __init__(
        self, steps: int, start: int, out: Path, *, quiet: bool, flops: tuple[float, float] | None = None
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.steps, self.out, self.quiet, self._start = steps, out, quiet, start
        self.flops = flops
        self._taken, self._first = 0, 0.0
        self._clear()
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[speed]:,.0f} positions/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=start, loss="", speed=0.0)
        self._events: Any = None
        if not quiet:
            _forget_after(out / FIGURES, start)
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(out / "tensorboard"), purge_step=start or None)
            except ImportError:
                pass

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._events is not None:
            self._events.close()

    @property
    def loss(self) -> float:
        return self._losses / max(1, self._count)

    def _clear(self) -> None:
        self._positions, self._losses, self._count, self._waited = 0, 0.0, 0, 0.0
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context of what is no training, a validation or a checkpoint, whose time the speed leaves out."""
        began = time.perf_counter()
        yield
        spent = time.perf_counter() - began
        self._since, self._first = self._since + spent, self._first + spent

    @property
    def clocked(self) -> bool:
        """Whether the time of the step in progress is taken, so that a device has to be waited for."""
        return self._taken + 1 in (UNMEASURED, UNMEASURED + MEASURED)

    def took(self, losses: list[float]) -> None:
        """Take in the losses of some steps, which may come later than their number."""
        for loss in losses:
            self._losses, self._count = self._losses + loss, self._count + 1
        if losses:
            self._bar.update(self._task, loss=f"loss {self.loss:.3f}")

    def advance(self, positions: int, waited: float) -> None:
        """Take in one step's positions, and the seconds that it waited for its data."""
        self._positions, self._waited = self._positions + positions, self._waited + waited
        self._bar.update(self._task, advance=1, speed=self._speed())
        self._taken += 1
        if self._taken == UNMEASURED:
            self._first = time.perf_counter()
        elif self._taken == UNMEASURED + MEASURED:
            self._estimate((time.perf_counter() - self._first) / MEASURED)

    def _estimate(self, seconds: float) -> None:
        """Say how long the rest of the steps takes, ``seconds`` each."""
        left = self.steps - self._start - self._taken
        if left > UNMEASURED + MEASURED:
            each = f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
            what = f"about {in_words(left * seconds)} for the {left} steps left"
            self.say(f"{what} ({each} a step, measured over {MEASURED}; validations come on top)")

    def _seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self._since)

    def _speed(self) -> float:
        return self._positions / self._seconds()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of a step; the speed joins a training loss, and the running means start anew."""
        if "loss" in figures:
            speed = self._speed()
            figures = {**figures, "positions_per_second": speed, "data_share": self._waited / self._seconds()}
            if self.flops is not None:
                each, peak = self.flops
                figures["mfu"] = each * speed / peak
            self._clear()
        self._write(step, figures)
        if not self.console.is_terminal or "loss" not in figures:
            self._print(step, figures)

    def validated(self, step: int, figures: dict[str, float], grid: Grid | None = None) -> None:
        """Record and show the figures of a validation, those of ``grid`` as a table."""
        self._write(step, {f"valid_{name}": value for name, value in figures.items()})
        apart = set() if grid is None else grid.names()
        self._print(step, {f"valid_{name}": value for name, value in figures.items() if name not in apart})
        if grid is not None:
            self._tabulate(grid.lines(figures))

    def _write(self, step: int, figures: dict[str, float]) -> None:
        if self.quiet:
            return
        record = {"step": step, **figures, "time": time.time()}
        with (self.out / FIGURES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, step)

    def _print(self, step: int, figures: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(f"step {step}/{self.steps}  {shown}")

    def _tabulate(self, lines: list[list[str]]) -> None:
        """A table on a terminal, else columns of plain text."""
        heads, *rows = lines
        if not self.console.is_terminal:
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            for line in lines:
                first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
                self.say("  ".join(["", line[0].ljust(len(first)), *rest]))
            return
        table = Table(heads[0], *(Column(head, justify="right") for head in heads[1:]))
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def show(self, texts: list[str]) -> None:
        """Print sample texts."""
        for text in texts:
            self.say(f"  {text}")


def in_words(seconds: float) -> str:
    """A time as people say it: 40 s, 25 min, 3 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _forget_after(path: Path, step: int) -> None:
    """Take figures of later steps out of ``metrics.jsonl``: a killed run had gone on after its last checkpoint.

    Raises:
        UserError: it is a folder, a pipe or a device.
    """
    if not path.exists():
        return
    require_file(path, error=UserError, remedy="Move it away: the figures of the run are written there.")
    lines = path.read_text("utf-8", errors="replace").split("\n")
    path.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")


def _step_of(line: str) -> float:
    """The step that a line of figures is of; later than all for the empty end, one cut short, or what is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return math.inf
