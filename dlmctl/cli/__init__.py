"""The command line: one file per command group, no logic of its own. Heavy imports wait for their command."""

from __future__ import annotations

import sys

import typer

from dlmctl.cli import data, evaluate, generate, info, recipe, train

app = typer.Typer(
    name="dlmctl",
    help="Controllable text generation on diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.generate)
app.command("info")(info.info)
app.add_typer(recipe.app, name="recipe", help="Look at, check and list recipes.")
app.add_typer(train.app, name="train", help="Train language models, control classifiers, scorers and taggers.")
app.add_typer(evaluate.app, name="evaluate", help="Measure a model's samples and its controls.")
app.add_typer(data.app, name="data", help="Prepare data sets for training.")


def main() -> None:
    """Entry point: errors that the user can mend become one message on stderr and exit code 2."""
    from dlmctl.errors import UserError

    try:
        app()
    except UserError as error:
        print(f"dlmctl: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("dlmctl: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(141)
