"""``dlmctl controls``: list, show, new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmctl.cli import complete

if TYPE_CHECKING:
    from dlmctl.control.catalogue import Plugin

app = typer.Typer(no_args_is_help=True)

Model = Annotated[
    str | None,
    typer.Option(
        help="Show whether this model has weights for the control: a bundled name, a folder, ...",
        autocompletion=complete.models,
    ),
]


@app.command("list")
def list_(
    model: Model = None, json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False
) -> None:
    """List the installed controls and their packages; for those that fail to import, the error."""
    from dlmctl.control.catalogue import catalogue

    records = catalogue(model)
    if json:
        import json as json_

        typer.echo(json_.dumps(records, indent=2, ensure_ascii=False))
        return
    _print_list(records)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="The name of a control, or file.py:Class.", autocompletion=complete.controls)
    ],
    model: Model = None,
    json: Annotated[bool, typer.Option("--json", help="Print the JSON schema of its parameters.")] = False,
) -> None:
    """Show a control: its parameters, examples in YAML and Python, and how to train it."""
    from dlmctl.control.catalogue import find_plugin

    plugin = find_plugin(name)
    if json:
        import json as json_

        typer.echo(json_.dumps(plugin.schema(), indent=2, ensure_ascii=False))
        return
    _print_plugin(plugin, model)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the control in recipes, e.g. word_order.")],
    out: Annotated[Path | None, typer.Option(help="Folder to create; by default dlmctl-NAME.")] = None,
) -> None:
    """Write a package with a new control, as a starting point."""
    from dlmctl.control.skeleton import distribution_name, write_skeleton

    folder = out or Path(distribution_name(name))
    for file in write_skeleton(name, folder):
        typer.echo(folder / file)


def _print_list(records: list[dict[str, Any]]) -> None:
    """A table; in a pipe one tab-separated line per control: name, summary or error, origin, trainable, weights."""
    from rich.markup import escape
    from rich.table import Table

    from dlmctl.text.terminal import make_console

    has_weights = any("weights" in record for record in records)
    console = make_console()
    table = Table("control", "what it does", "from", "trained", *["weights"] * has_weights, pad_edge=False)
    for record in records:
        is_broken = "fault" in record
        summary = record["fault"] if is_broken else record["summary"]
        trained = "" if is_broken else "trainable" if record["trainable"] else "no training"
        row = [record["name"], summary, record["origin"], trained, *[record.get("weights", "")] * has_weights]
        if console.is_terminal:
            table.add_row(*map(escape, row), style="red" if is_broken else None)
        else:
            typer.echo("\t".join(row))
    if console.is_terminal:
        console.print(table)


def _print_plugin(plugin: Plugin, model: str | None) -> None:
    """Print a description, a table of the parameters and examples; in a pipe without colours and boxes."""
    from rich.markup import escape
    from rich.syntax import Syntax
    from rich.table import Table

    from dlmctl.text.terminal import make_console

    console = make_console()

    def line(text: str = "", style: str | None = None) -> None:
        if console.is_terminal:
            console.print(text, style=style, markup=False, highlight=False)
        else:
            typer.echo(text)

    def code(text: str | None, language: str) -> None:
        if text is None:
            line("none: its author has provided no examples")
        elif console.is_terminal:
            console.print(Syntax(text.rstrip(), language, background_color="default"))
        else:
            line(text.rstrip())

    line(f"{plugin.name}, from {plugin.origin}", "bold")
    line(plugin.description)
    line()
    line("Parameters", "bold")
    rows = _parameter_rows(plugin)
    if console.is_terminal:
        table = Table("name", "type", "default", "what it is", "examples", pad_edge=False)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    else:
        for row in rows:
            line("\t".join(row))
    line()
    line("In a recipe", "bold")
    example_model = model or _model_with_weights(plugin)
    code(plugin.recipe_example(example_model), "yaml")
    line()
    line("In Python", "bold")
    code(plugin.python_example(example_model), "python")
    for text, style in _weights_lines(plugin, model):
        line(text, style)


def _model_with_weights(plugin: Plugin) -> str:
    """The default model, unless only another bundled model has the weights that the control needs."""
    from dlmctl.checkpoint.bundled import bundled_names
    from dlmctl.recipe.recipe import DEFAULT_MODEL

    models = [DEFAULT_MODEL, *bundled_names("models")]
    return next((name for name in models if plugin.weights(name) != "missing"), DEFAULT_MODEL)


def _parameter_rows(plugin: Plugin) -> list[tuple[str, str, str, str, str]]:
    """The name, type, default, description and examples of each parameter."""
    return [
        (
            parameter.name,
            parameter.type,
            "required" if parameter.required else parameter.default or "optional",
            parameter.description,
            "; ".join(parameter.examples),
        )
        for parameter in plugin.parameters()
    ]


def _weights_lines(plugin: Plugin, model: str | None) -> list[tuple[str, str | None]]:
    """Lines on the values that the control's weights know and where the weights are, each with its style."""
    lines: list[tuple[str, str | None]] = []
    for name, values in _trained_values(plugin, model).items() if model else ():
        lines += [("", None), (f"Values of the weights {name}" if name else f"Values in the model {model}", "bold")]
        lines += [(f"{field}: {', '.join(known)}", None) for field, known in values.items()]
    return [*lines, ("", None), ("Weights", "bold"), *((text, None) for text in plugin.training_notes(model))]


def _trained_values(plugin: Plugin, model: str) -> dict[str, dict[str, list[str]]]:
    if not plugin.trainable:
        return {}
    from dlmctl.control.trained_values import trained_values

    return trained_values(plugin.kind, model)
