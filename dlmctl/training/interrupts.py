"""Ctrl-C and SIGTERM during training: the current step is finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

# Steps between exchanges of several processes, as each exchange waits for the devices.
SYNC_EVERY = 8


class Interrupts:
    """Context manager that records the first signal; a second one stops at once.

    Args:
        accelerator: its processes stop together, because none can take a step alone.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._previous_handlers: dict[int, Any] = {}
        self.signal_number: int | None = None
        self._checks = 0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            self._previous_handlers = {
                number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        for other in self._previous_handlers:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)

    def is_requested(self) -> bool:
        """Whether any process received a signal; every process must call this after every step."""
        if self._accelerator.num_processes == 1:
            return self.signal_number is not None
        self._checks += 1
        if self._checks % SYNC_EVERY:
            return False
        is_signalled = torch.tensor(float(self.signal_number is not None), device=self._accelerator.device)
        return bool(self._accelerator.reduce(is_signalled, "sum").item())
