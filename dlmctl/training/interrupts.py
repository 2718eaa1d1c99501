"""Ctrl-C and SIGTERM while training: the step in progress is finished, and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

# Several processes tell each other in one step of so many, because that waits for their devices.
TOGETHER = 8


class Interrupts:
    """Context in which the first signal is noted and a second one stops at once.

    Args:
        accelerator: whose processes stop together, because none can take a step alone.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._kept: dict[int, Any] = {}
        self.noted: int | None = None
        self._asked = 0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            self._kept = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = number
        for other in self._kept:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)

    def wanted(self) -> bool:
        """Whether any of the processes was told to stop; all of them must ask, after every step."""
        if self._accelerator.num_processes == 1:
            return self.noted is not None
        self._asked += 1
        if self._asked % TOGETHER:
            return False
        mine = torch.tensor(float(self.noted is not None), device=self._accelerator.device)
        return bool(self._accelerator.reduce(mine, "sum").item())
