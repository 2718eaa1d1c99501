"""The command line: one file per command group, without logic of its own. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dlmctl import __version__
from dlmctl.cli import (
    bench,
    controls,
    data,
    decode,
    evaluate,
    exchange,
    generate,
    info,
    matched,
    nll,
    play,
    recipe,
    report,
    train,
)
from dlmctl.control.user_files import one_version
from dlmctl.errors import UserError, readable
from dlmctl.processes import Terminated, is_main, leave_team, rank, terminable

# The base class of usage errors. Newer releases of typer vendor click, so it is looked up through a class that every
# release exports.
USAGE_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class CommandLine(TyperGroup):
    """Turns errors that a user can fix or has caused into one message on stderr, never a traceback.

    Exit codes: 2 for errors, 130 when interrupted (143 by SIGTERM), 141 when the reader of the output has gone.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        standalone = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        if not standalone:
            return super().main(*args, **extra)
        _open_closed_streams()
        _ignore_empty_terminal()
        _set_encodings()
        try:
            code = super().main(*args, **extra)
        except USAGE_ERROR as error:
            sys.exit(_print_usage_error(error))
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            with terminable(), one_version():
                result = super().invoke(ctx)
                sys.stdout.flush()  # here rather than at exit, where a failure could not be handled
            return result
        except UserError as error:
            return _exit_with(str(error), 2)
        except KeyboardInterrupt as interrupt:
            return _exit_with(str(interrupt) or "interrupted.", 143 if isinstance(interrupt, Terminated) else 130)
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(141) from None
        except OSError as error:  # such as a full disk or a folder without permission
            _silence_stdout()
            return _exit_with(readable(f"{error.filename or 'output'}: {error.strerror or error}."), 2)


def _print_usage_error(error: Any) -> int:
    """Print a usage error and return its exit code; a group without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    elif is_main():
        message = error.format_message().strip().rstrip(".") + "."
        path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "dlmctl"
        print(f"dlmctl: {readable(message[:1].lower() + message[1:])} See `{path} --help`.", file=sys.stderr)
    return int(error.exit_code)


def _open_closed_streams() -> None:
    """Replace standard streams that are closed: output (``>&-``) is discarded, and stdin (``<&-``) is empty."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Stays open until the process exits.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _ignore_empty_terminal() -> None:
    """Take a size of 0 in the environment as unknown, as Python does; rich would print no column and no line."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name) == "0":
            del os.environ[name]


def _set_encodings() -> None:
    """Read stdin and write to pipes and files as UTF-8, whatever the locale; make a terminal, or an encoding that the
    user chose for Python, show a ? for each character that it lacks, rather than fail."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        is_chosen = sys.stdout.isatty() or "PYTHONIOENCODING" in os.environ
        sys.stdout.reconfigure(encoding=None if is_chosen else "utf-8", errors="replace")
    if isinstance(sys.stdin, TextIOWrapper):
        with suppress(OSError):  # it was read before
            sys.stdin.reconfigure(encoding="utf-8")


def _exit_with(message: str, code: int) -> None:
    # Before the processes are connected they all fail for the same reason; afterwards each has its own.
    if is_main():
        print(f"dlmctl: {message}", file=sys.stderr)
    elif code not in (130, 143) and _is_connected():
        print(f"dlmctl, process {rank()}: {message}", file=sys.stderr)
    raise typer.Exit(code) from None


def _is_connected() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_initialized()


def _silence_stdout() -> None:
    """Discard output that is still buffered; Python would report an error about it at exit."""
    with suppress(OSError):  # stdout is not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=CommandLine,
    name="dlmctl",
    help="Controllable text generation on diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"dlmctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Controllable text generation on diffusion language models."""


app.command("generate")(generate.generate)
app.command("matched")(matched.matched)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("decode")(decode.decode)
app.command("nll")(nll.nll)
app.command("info")(info.info)
app.command("play")(play.play)
app.add_typer(recipe.app, name="recipe", help="Write, check, show and list recipes.")
app.add_typer(controls.app, name="controls", help="List and show controls, and write new ones.")
app.add_typer(train.app, name="train", help="Train language models, control classifiers, scorers and taggers.")
app.add_typer(evaluate.app, name="evaluate", help="Measure a model's samples and its controls.")
app.add_typer(exchange.import_app, name="import", help="Import models of other programs.")
app.add_typer(exchange.export_app, name="export", help="Export models to other programs.")
app.add_typer(data.app, name="data", help="Prepare data sets for training.")


def main() -> None:
    """Entry point."""
    try:
        app(prog_name="dlmctl")  # the same name under `python -m dlmctl`
    except SystemExit as system_exit:
        if system_exit.code in (0, 1, 2):  # otherwise it was interrupted, perhaps while it sent to other processes
            leave_team()
        raise
