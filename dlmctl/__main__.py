"""The command ``dlmctl``, also ``python -m dlmctl``."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Entry point.

    From the first import to the exit, Ctrl-C ends the process at once and without a traceback, except while a command
    runs, which cleans up first.
    """
    # Processes that wait for each other are ended by exceptions, see ``dlmctl.processes.terminable``.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and not os.environ.get("WORLD_SIZE"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlmctl.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
