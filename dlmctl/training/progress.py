"""What a training run shows and records: a bar or plain lines, ``metrics.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlmctl.errors import UserError
from dlmctl.text.files import require_file


class TrainingProgress:
    """Context of one run. ``loss`` is the running mean since the last log.

    Args:
        flops: operations of one position, and of the devices in a second; None leaves their utilisation out.
    """

    def __init__(
        self, steps: int, start: int, out: Path, *, quiet: bool, flops: tuple[float, float] | None = None
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.steps, self.out, self.quiet = steps, out, quiet
        self.flops = flops
        self._clear()
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} positions/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=start, loss=0.0, speed=0.0)
        self._events: Any = None
        if not quiet:
            _forget_after(out / "metrics.jsonl", start)
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

    def advance(self, loss: float, positions: int, waited: float) -> None:
        """Take in one step's loss, positions, and the seconds that it waited for its data."""
        self._losses, self._count, self._positions = self._losses + loss, self._count + 1, self._positions + positions
        self._waited += waited
        self._bar.update(self._task, advance=1, loss=self.loss, speed=self._speed())

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
        if self.quiet:
            return
        record = {"step": step, **figures, "time": time.time()}
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, step)
        if not self.console.is_terminal or "loss" not in figures:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self.console.print(f"step {step}/{self.steps}  {shown}", highlight=False, soft_wrap=True)

    def show(self, texts: list[str]) -> None:
        """Print sample texts."""
        for text in texts:
            self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


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
