"""Several processes: those of one command, as ``torchrun`` and ``accelerate launch`` start them, and other commands;
and the end of one by SIGTERM.

Who a process is stands in its environment, so that asking costs nothing; only ``Team`` connects the processes.
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
from types import FrameType
from typing import Any, TypeVar

from dlmctl.errors import UserError

T = TypeVar("T")
# A process may wait for the longest shard of another.
PATIENCE = timedelta(days=7)
_LAUNCH = "torchrun and accelerate launch set it; for one process alone unset RANK and WORLD_SIZE."


def count() -> int:
    """How many processes the command has.

    Raises:
        UserError: the environment says it, but not in numbers; so do ``rank`` and ``local_rank``.
    """
    return _number("WORLD_SIZE", 1) if os.environ.get("RANK") and os.environ.get("WORLD_SIZE") else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0, count() - 1) if count() > 1 else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return _number("LOCAL_RANK", 0) if count() > 1 and os.environ.get("LOCAL_RANK") else rank()


def is_main() -> bool:
    """Whether this process is the one that prints; also one whose number cannot be read, as somebody must say so."""
    try:
        return rank() == 0
    except UserError:
        return True


def _number(name: str, least: int, most: int | None = None) -> int:
    """A variable that the launcher sets."""
    said = os.environ[name]
    number = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else -1
    if number < least or (most is not None and number > most):
        kind = "number of processes" if name == "WORLD_SIZE" else "process of this run"
        raise UserError(f"{said!r} is no {kind}.", where=name, remedy=_LAUNCH)
    return number


def check_launch() -> None:
    """Find out whether the environment says all that it takes to connect the processes.

    Raises:
        UserError: it does not.
    """
    rank(), local_rank()
    if count() > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise UserError(f"is not set, but there are {count()} processes.", where=name, remedy=_LAUNCH)


class Team:
    """What the processes of a command tell each other; one process alone talks to itself.

    Attributes:
        rank, size: the number of this process, and how many there are.
    """

    def __init__(self) -> None:
        """Connects the processes. Raises as ``check_launch``."""
        check_launch()
        self.rank, self.size = rank(), count()
        if self.size > 1:
            from accelerate import PartialState

            # Only small objects travel, so gloo on the CPU serves GPUs too and does not keep them spinning.
            state = PartialState(cpu=True, timeout=PATIENCE)
            self.rank, self.size = state.process_index, state.num_processes

    def from_main(self, action: Callable[[], T]) -> T:
        """What ``action`` gives in the first process, in all of them.

        Raises:
            UserError: ``action`` raised it. It is raised in the first process; the others exit quietly with code 2.
        """
        result, error = _outcome(action) if self.rank == 0 else (None, None)
        if self.size > 1:
            from accelerate.utils import broadcast_object_list

            result, error = broadcast_object_list([result, error])
        return self._settled(result, error)

    def together(self, action: Callable[[], T]) -> T:
        """What ``action`` gives here, once it is done everywhere.

        Raises:
            UserError: it was raised anywhere, and is raised as in ``from_main``.
        """
        result, error = _outcome(action)
        if self.size > 1:
            from accelerate.utils import gather_object

            error = next((found for found in gather_object([error]) if found is not None), None)
        return self._settled(result, error)

    def _settled(self, result: Any, error: UserError | None) -> Any:
        if error is not None:
            raise error if self.rank == 0 else SystemExit(2)
        return result


def leave() -> None:
    """Take this process from its team, if it is in one, at its end: threads that still serve the team then would abort
    it, though its work is done. What is not told by now is never told."""
    torch = sys.modules.get("torch")  # without which there is no team
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _outcome(action: Callable[[], Any]) -> tuple[Any, UserError | None]:
    try:
        return action(), None
    except UserError as error:
        return None, error


@contextmanager
def held(lock: Path, what: str, where: Path, *, keep: bool = True, patience: float = 0) -> Iterator[None]:
    """Keep other commands out meanwhile; the system lets go of the lock however this process ends.

    Args:
        lock: the file to lock, made if need be.
        what: what is held, for the message: "run", "data set".
        where: what the message names.
        keep: False removes the file afterwards, where it would lie among a user's own.
        patience: seconds to wait for one that holds it.

    Raises:
        UserError: another process holds it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("ab"):  # where no file can be made the lock below would wait for one
            pass
        holder = FileLock(lock, timeout=patience)
        holder.acquire()
    except Timeout:
        raise UserError(f"another process is at work on this {what}.", where=str(where)) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        raise UserError(f"cannot hold a {what}: {error.strerror or error}.", where=str(where)) from None
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):
                lock.unlink()
        holder.release()


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems end what runs too long: as Ctrl-C, with an exit code of its own."""


# The signals that came and are to end what runs, the last one last.
_CAME: list[type[KeyboardInterrupt]] = []


def stop_if_told() -> None:
    """Raise again what a signal raised, for loops that go on: code in C that it came upon may have dropped it."""
    if _CAME:
        raise _CAME[-1]


@contextmanager
def terminable() -> Iterator[None]:
    """Context in which SIGTERM raises ``Terminated``, and Ctrl-C ``KeyboardInterrupt``, whatever was running; a second
    SIGTERM ends the process at once.

    Whoever handles them otherwise goes on to do so. Of several processes each ends at once: it may be waiting for
    another, where no handler would run.
    """
    usual: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be caught
    if not in_main or count() > 1 or any(signal.getsignal(number) is not kept for number, kept in usual.items()):
        yield
        return
    came = _CAME
    came.clear()

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, usual[signal.Signals(number)])
        came.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        raise came[-1]

    for number in usual:
        signal.signal(number, end)
    try:
        yield
    except Exception:
        # Code in C that the signal came upon may take what the handler raises for a fault of its own.
        if came:
            raise came[-1] from None
        raise
    finally:
        came.clear()
        for number, kept in usual.items():
            signal.signal(number, kept)
