"""Several processes: those of one command, as ``torchrun`` and ``accelerate launch`` start them, and other commands;
and the end of one by SIGTERM.

Who a process is stands in its environment, so that asking costs nothing; only ``Team`` connects the processes.
"""

from __future__ import annotations

import os
import signal
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


def count() -> int:
    """How many processes the command has."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that prints."""
    return rank() == 0


class Team:
    """What the processes of a command tell each other; one process alone talks to itself.

    Attributes:
        rank, size: the number of this process, and how many there are.
    """

    def __init__(self) -> None:
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
    came: list[type[KeyboardInterrupt]] = []

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
        for number, kept in usual.items():
            signal.signal(number, kept)
