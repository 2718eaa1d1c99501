"""The command line: one file per command group, no logic of its own. Heavy imports wait for their command."""

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
from dlmctl.errors import UserError, readable
from dlmctl.processes import Terminated, is_main, leave, rank

# The class of all errors about how a command was written. Newer releases of typer have a click of their own inside, so
# it is reached by way of a class that every release has.
USAGE_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class CommandLine(TyperGroup):
    """Whatever a user can mend or has caused becomes one message on stderr, never a traceback.

    Exit codes: 2 for errors, 130 when interrupted (143 by SIGTERM), 141 when the reader of the output has gone.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        standalone = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        if not standalone:
            return super().main(*args, **extra)
        _open_what_is_closed()
        _replace_what_cannot_be_printed()
        try:
            code = super().main(*args, **extra)
        except USAGE_ERROR as error:
            sys.exit(_usage(error))
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here rather than at exit, where a failure could not be handled
            return result
        except UserError as error:
            return _stop(str(error), 2)
        except KeyboardInterrupt as interrupt:
            return _stop(str(interrupt) or "interrupted.", 143 if isinstance(interrupt, Terminated) else 130)
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(141) from None
        except OSError as error:  # a full disk, a folder without permission: the name says which
            _silence_stdout()
            return _stop(readable(f"{error.filename or 'output'}: {error.strerror or error}."), 2)


def _usage(error: Any) -> int:
    """Say what is wrong with a command as it was written; a group without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    elif is_main():
        said = error.format_message().strip().rstrip(".") + "."
        path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "dlmctl"
        print(f"dlmctl: {readable(said[:1].lower() + said[1:])} See `{path} --help`.", file=sys.stderr)
    return int(error.exit_code)


def _open_what_is_closed() -> None:
    """Where a command was started with stdout or stderr closed (``>&-``), what is said there goes nowhere; a closed
    stdin (``<&-``) is an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (to the end)


def _replace_what_cannot_be_printed() -> None:
    """Where stdout is not UTF-8, write a ? for each character that it does not have rather than fail at the first."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _stop(message: str, code: int) -> None:
    # Until several processes are connected they all fail alike; after that, each for reasons of its own.
    if is_main():
        print(f"dlmctl: {message}", file=sys.stderr)
    elif code not in (130, 143) and _connected():
        print(f"dlmctl, process {rank()}: {message}", file=sys.stderr)
    raise typer.Exit(code) from None


def _connected() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_initialized()


def _silence_stdout() -> None:
    """What is still buffered has nowhere to go; Python would complain about it at exit."""
    with suppress(OSError):  # where stdout is no file, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=CommandLine,
    name="dlmctl",
    help="Controllable text generation on diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
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
app.add_typer(recipe.app, name="recipe", help="Look at, check and list recipes.")
app.add_typer(controls.app, name="controls", help="List, show and start controls.")
app.add_typer(train.app, name="train", help="Train language models, control classifiers, scorers and taggers.")
app.add_typer(evaluate.app, name="evaluate", help="Measure a model's samples and its controls.")
app.add_typer(exchange.import_app, name="import", help="Make models of other programs ours.")
app.add_typer(exchange.export_app, name="export", help="Write models for other programs.")
app.add_typer(data.app, name="data", help="Prepare data sets for training.")


def main() -> None:
    """Entry point."""
    try:
        app(prog_name="dlmctl")  # also where it was started as `python -m dlmctl`
    except SystemExit as end:
        if end.code in (0, 1, 2):  # else it was stopped, perhaps in the middle of telling others something
            leave()
        raise
