"""The processes of one command, as started by ``torchrun`` or ``accelerate launch``; locks against other commands; and
termination by SIGTERM.

Rank and size are read from the environment, which costs nothing; only ``Team`` connects the processes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import Any, TypeVar

from dlmctl.errors import UserError

T = TypeVar("T")
# A process may have to wait while another one draws a very long shard.
COLLECTIVE_TIMEOUT = timedelta(days=7)
_LAUNCH = "torchrun and accelerate launch set it; for one process alone unset RANK and WORLD_SIZE."


def count() -> int:
    """The number of processes of the command.

    Raises:
        UserError: the environment variable is not a valid number; ``rank`` and ``local_rank`` raise it too.
    """
    return _number("WORLD_SIZE", 1) if os.environ.get("RANK") and os.environ.get("WORLD_SIZE") else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0, count() - 1) if count() > 1 else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return _number("LOCAL_RANK", 0) if count() > 1 and os.environ.get("LOCAL_RANK") else rank()


def is_main() -> bool:
    """Whether this process is the one that prints. True also where its rank is invalid, so that the error is shown."""
    try:
        return rank() == 0
    except UserError:
        return True


def _number(name: str, minimum: int, maximum: int | None = None) -> int:
    """The value of an environment variable that the launcher sets."""
    value = os.environ[name]
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
    if number < minimum or (maximum is not None and number > maximum):
        kind = "a number of processes" if name == "WORLD_SIZE" else "a process of this run"
        raise UserError(f"{value!r} is not {kind}.", where=name, remedy=_LAUNCH)
    return number


def check_launch() -> None:
    """Check that the environment has all variables needed to connect the processes.

    Raises:
        UserError: one is missing or invalid.
    """
    rank(), local_rank()
    if count() > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise UserError(f"is not set, but there are {count()} processes.", where=name, remedy=_LAUNCH)


class Team:
    """Communication between the processes of a command; works for a single process too.

    Attributes:
        rank, size: the rank of this process, and the number of processes.
    """

    def __init__(self) -> None:
        """Connect the processes. Raises what ``check_launch`` raises."""
        check_launch()
        self.rank, self.size = rank(), count()
        if self.size > 1:
            from accelerate import PartialState

            # Only small objects are sent, so gloo on the CPU is enough, and GPUs do not spin while they wait.
            state = PartialState(cpu=True, timeout=COLLECTIVE_TIMEOUT)
            self.rank, self.size = state.process_index, state.num_processes

    def run_on_main(self, action: Callable[[], T]) -> T:
        """Run ``action`` in the first process and return its result in all of them.

        Raises:
            UserError: ``action`` raised it. It is raised in the first process; the others exit quietly with code 2.
        """
        result, error = _result_or_error(action) if self.rank == 0 else (None, None)
        if self.size > 1:
            from accelerate.utils import broadcast_object_list

            result, error = broadcast_object_list([result, error])
        return self._return_or_raise(result, error)

    def run_on_all(self, action: Callable[[], T]) -> T:
        """Run ``action`` in every process and return its result in this one, once all are done.

        Raises:
            UserError: ``action`` raised it in any process; it is raised as in ``run_on_main``.
        """
        result, error = _result_or_error(action)
        if self.size > 1:
            from accelerate.utils import gather_object

            error = next((error for error in gather_object([error]) if error is not None), None)
        return self._return_or_raise(result, error)

    def _return_or_raise(self, result: Any, error: UserError | None) -> Any:
        if error is not None:
            raise error if self.rank == 0 else SystemExit(2)
        return result


def leave_team() -> None:
    """Leave the process group, if there is one, before the process exits: its threads could otherwise abort the
    process although its work is done. Messages that are still pending are lost."""
    torch = sys.modules.get("torch")  # if torch was never imported, there is no process group
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _result_or_error(action: Callable[[], Any]) -> tuple[Any, UserError | None]:
    try:
        return action(), None
    except UserError as error:
        return None, error


@contextmanager
def run_lock(lock: Path, what: str, where: Path, *, keep: bool = True, patience: float = 0) -> Iterator[None]:
    """Hold a lock against other commands; the system releases it however this process ends.

    Args:
        lock: the lock file, created if missing.
        what: the kind of thing that is locked, for the message: "run", "data set".
        where: the path that the message names.
        keep: False removes the file afterwards, where it would lie among a user's own files.
        patience: seconds to wait for another process that holds the lock.

    Raises:
        UserError: another process holds the lock, or the file cannot be created.
    """
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # Fails at once where no file can be created; FileLock would wait. The lock file itself must not be created: on
        # file systems without locks, FileLock takes its existence for a lock.
        with lock.open("ab") if lock.exists() else TemporaryFile(dir=lock.parent):
            pass
        file_lock = FileLock(lock, timeout=patience)
        file_lock.acquire()
    except Timeout:
        raise UserError(f"another process is at work on this {what}.", where=str(where)) from None
    except NotImplementedError:  # older releases of filelock on a file system without locks
        yield
        return
    except OSError as error:
        raise UserError(f"cannot lock the {what}: {error.strerror or error}.", where=str(where)) from None
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):
                lock.unlink()
        file_lock.release()


class Terminated(KeyboardInterrupt):
    """SIGTERM, with which batch systems end jobs that run too long; handled like Ctrl-C, with its own exit code."""


# Exceptions of the signals received so far that are to end the run, the latest last.
_RECEIVED: list[type[KeyboardInterrupt]] = []
# The handlers that ``terminable`` has replaced.
_REPLACED: dict[signal.Signals, Any] = {}
# Handlers that it may replace: those of Python and of the system. An ignored signal stays ignored.
_DEFAULTS = {signal.SIGTERM: (signal.SIG_DFL,), signal.SIGINT: (signal.default_int_handler, signal.SIG_DFL)}


def raise_pending_signal() -> None:
    """Raise the exception of a received signal again, for loops that still run: C code may have swallowed it."""
    if _RECEIVED:
        raise _RECEIVED[-1]


def _end_run(number: int, frame: FrameType | None) -> None:
    """The handler of ``terminable``."""
    signal.signal(number, _REPLACED[signal.Signals(number)])
    _RECEIVED.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    raise _RECEIVED[-1]


@contextmanager
def terminable() -> Iterator[None]:
    """Context in which SIGTERM raises ``Terminated`` and Ctrl-C ``KeyboardInterrupt``, whatever was running; a second
    SIGTERM ends the process at once. Contexts may be nested.

    Handlers that others have installed are left in place, and ignored signals are still ignored. With several
    processes nothing is installed and each ends at once: it may be waiting for another process, where no handler would
    run.
    """
    installed = _install()
    try:
        yield
    except Exception:
        # C code that was interrupted may mistake the handler's exception for an error of its own.
        raise_pending_signal()
        raise
    finally:
        if installed:
            _RECEIVED.clear()
            for number in installed:
                signal.signal(number, _REPLACED[number])


def _install() -> list[signal.Signals]:
    """Install the handler of ``terminable`` and return the signals that now have it; none if it may not be."""
    if threading.current_thread() is not threading.main_thread() or count() > 1:  # handlers are set in the main thread
        return []
    current = {number: signal.getsignal(number) for number in _DEFAULTS}
    if any(handler not in (*_DEFAULTS[number], signal.SIG_IGN) for number, handler in current.items()):
        return []
    _RECEIVED.clear()
    numbers = [number for number, handler in current.items() if handler != signal.SIG_IGN]
    for number in numbers:
        _REPLACED[number] = current[number]
        signal.signal(number, _end_run)
    return numbers
