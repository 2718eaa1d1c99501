"""Progress of a training run: a bar or plain lines, ``metrics.jsonl`` and TensorBoard events.

Early in the run it prints an estimate of the remaining time, measured over the first few steps.
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

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from dlmctl.errors import UserError
from dlmctl.text.files import require_file
from dlmctl.text.terminal import make_console, redraws
from dlmctl.training.run_folder import METRICS_FILE

# The first steps are slower than the rest (memory, kernels, compilation), so the estimate times those after them.
WARMUP_STEPS, TIMED_STEPS = 2, 5


class Grid(NamedTuple):
    """Layout of validation figures as a table.

    Attributes:
        title: what the columns stand for.
        columns: their names.
        rows: for each row name, the name of the figure in each column.
    """

    title: str
    columns: list[str]
    rows: dict[str, list[str]]

    def lines(self, figures: dict[str, float]) -> list[list[str]]:
        """The cells of the table, header first."""
        rows = [[row, *(f"{figures[name]:.3f}" for name in names)] for row, names in self.rows.items()]
        return [[self.title, *self.columns], *rows]

    def names(self) -> set[str]:
        """The names of the figures in the table."""
        return {name for names in self.rows.values() for name in names}


class TrainingProgress:
    """Context manager for one run. ``loss`` is the running mean since the last log.

    Args:
        flops: operations per position, and per second of all devices; None leaves out their utilisation.
    """

    def __init__(
        self, steps: int, start: int, out: Path, *, quiet: bool, flops: tuple[float, float] | None = None
    ) -> None:
        self.console = make_console(stderr=True, quiet=quiet)
        self.steps, self.out, self.quiet, self._start = steps, out, quiet, start
        self.flops = flops
        self._steps_taken, self._timing_started = 0, 0.0
        self._reset_means()
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[speed]:,.0f} positions/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not redraws(self.console),
        )
        self._bar_task = self._bar.add_task("training", total=steps, completed=start, loss="", speed=0.0)
        self._events: Any = None
        if not quiet:
            _drop_figures_after(out / METRICS_FILE, start)
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
        return self._loss_sum / max(1, self._loss_count)

    def _reset_means(self) -> None:
        self._positions, self._loss_sum, self._loss_count, self._data_seconds = 0, 0.0, 0, 0.0
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager for work other than training (validation, checkpoint), whose time the speed leaves out."""
        started = time.perf_counter()
        yield
        elapsed = time.perf_counter() - started
        self._since, self._timing_started = self._since + elapsed, self._timing_started + elapsed

    @property
    def is_timed_step(self) -> bool:
        """Whether the clock is read after the current step, so that the device has to be waited for."""
        return self._steps_taken + 1 in (WARMUP_STEPS, WARMUP_STEPS + TIMED_STEPS)

    def add_losses(self, losses: list[float]) -> None:
        """Add the losses of some steps to the running mean; they may arrive later than ``advance``."""
        for loss in losses:
            self._loss_sum, self._loss_count = self._loss_sum + loss, self._loss_count + 1
        if losses:
            self._bar.update(self._bar_task, loss=f"loss {self.loss:.3f}")

    def advance(self, positions: int, data_seconds: float) -> None:
        """Count one step, its positions, and the seconds it waited for data."""
        self._positions, self._data_seconds = self._positions + positions, self._data_seconds + data_seconds
        self._bar.update(self._bar_task, advance=1, speed=self._speed())
        self._steps_taken += 1
        if self._steps_taken == WARMUP_STEPS:
            self._timing_started = time.perf_counter()
        elif self._steps_taken == WARMUP_STEPS + TIMED_STEPS:
            self._estimate((time.perf_counter() - self._timing_started) / TIMED_STEPS)

    def _estimate(self, seconds: float) -> None:
        """Print how long the remaining steps take at ``seconds`` each."""
        steps_left = self.steps - self._start - self._steps_taken
        if steps_left > WARMUP_STEPS + TIMED_STEPS:
            per_step = f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
            estimate = f"about {format_duration(steps_left * seconds)} for the {steps_left} steps left"
            self.say(f"{estimate} ({per_step} a step, measured over {TIMED_STEPS}; validations not included)")

    def _seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self._since)

    def _speed(self) -> float:
        return self._positions / self._seconds()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of a step; with a training loss also the speed, and then reset the running means."""
        if "loss" in figures:
            speed = self._speed()
            figures = {**figures, "positions_per_second": speed, "data_share": self._data_seconds / self._seconds()}
            if self.flops is not None:
                per_position, peak = self.flops
                figures["mfu"] = per_position * speed / peak
            self._reset_means()
        self._write(step, figures)
        if not redraws(self.console) or "loss" not in figures:
            self._print(step, figures)

    def log_validation(self, step: int, figures: dict[str, float], grid: Grid | None = None) -> None:
        """Record and print the figures of a validation, those of ``grid`` as a table."""
        self._write(step, {f"valid_{name}": value for name, value in figures.items()})
        tabulated = set() if grid is None else grid.names()
        self._print(step, {f"valid_{name}": value for name, value in figures.items() if name not in tabulated})
        if grid is not None:
            self._tabulate(grid.lines(figures))

    def _write(self, step: int, figures: dict[str, float]) -> None:
        if self.quiet:
            return
        record = {"step": step, **figures, "time": time.time()}
        with (self.out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, step)

    def _print(self, step: int, figures: dict[str, float]) -> None:
        summary = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(f"step {step}/{self.steps}  {summary}")

    def _tabulate(self, lines: list[list[str]]) -> None:
        """Print a table on a terminal, else columns of plain text."""
        header, *rows = lines
        if not self.console.is_terminal:
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            for line in lines:
                first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
                self.say("  ".join(["", line[0].ljust(len(first)), *rest]))
            return
        table = Table(header[0], *(Column(name, justify="right") for name in header[1:]))
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


def format_duration(seconds: float) -> str:
    """A duration for people to read: 40 s, 25 min, 3 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _drop_figures_after(path: Path, step: int) -> None:
    """Remove figures of later steps from ``metrics.jsonl``, which a killed run wrote after its last checkpoint.

    Raises:
        UserError: the path is a folder, a pipe or a device.
    """
    if not path.exists():
        return
    require_file(path, error=UserError, remedy="Move it away: the figures of the run are written there.")
    lines = path.read_text("utf-8", errors="replace").split("\n")
    path.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")


def _step_of(line: str) -> float:
    """The step of a line of figures; infinity if it is empty, cut short or otherwise not a record."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return math.inf
