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
        help="Say whether weights are present for this model: a bundled name, a folder, ...",
        autocompletion=complete.models,
    ),
]


@app.command("list")
def list_(
    model: Model = None, json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False
) -> None:
    """List the installed controls and where they come from; those that fail to import say why."""
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
    """Show a control: its parameters, an example in YAML and in Python, how to train it."""
    from dlmctl.control.catalogue import find_plugin

    plugin = find_plugin(name)
    if json:
        import json as json_

        typer.echo(json_.dumps(plugin.schema(), indent=2, ensure_ascii=False))
        return
    _print_plugin(plugin, model)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What recipes will call it, e.g. word_order.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; else dlmctl-NAME here.")] = None,
) -> None:
    """Write a package with a control of your own, to start from."""
    from dlmctl.control.skeleton import distribution_name, write_skeleton

    folder = out or Path(distribution_name(name))
    for file in write_skeleton(name, folder):
        typer.echo(folder / file)


def _print_list(records: list[dict[str, Any]]) -> None:
    """A table; in a pipe a line per control, tab-separated: name, summary or fault, origin, trainable, weights."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    weighed = any("weights" in record for record in records)
    console = Console()
    table = Table("control", "what it does", "from", "trained", *["weights"] * weighed, pad_edge=False)
    for record in records:
        broken = "fault" in record
        summary = record["fault"] if broken else record["summary"]
        trained = "" if broken else "trainable" if record["trainable"] else "no training"
        row = [record["name"], summary, record["origin"], trained, *[record.get("weights", "")] * weighed]
        if console.is_terminal:
            table.add_row(*map(escape, row), style="red" if broken else None)
        else:
            typer.echo("\t".join(row))
    if console.is_terminal:
        console.print(table)


def _print_plugin(plugin: Plugin, model: str | None) -> None:
    """Facts, a table of the parameters and examples; in a pipe without colours and boxes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.syntax import Syntax
    from rich.table import Table

    console = Console()

    def line(text: str = "", style: str | None = None) -> None:
        if console.is_terminal:
            console.print(text, style=style, markup=False, highlight=False)
        else:
            typer.echo(text)

    def code(text: str | None, language: str) -> None:
        if text is None:
            line("none: its author gives no examples")
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
    shown = model or _able(plugin)
    code(plugin.recipe_example(shown), "yaml")
    line()
    line("In Python", "bold")
    code(plugin.python_example(shown), "python")
    for text, style in _values(plugin, model):
        line(text, style)


def _able(plugin: Plugin) -> str:
    """The default model, unless only another bundled one has the weights that the control needs."""
    from dlmctl.checkpoint.bundled import bundled_names
    from dlmctl.recipe.recipe import DEFAULT_MODEL

    known = [DEFAULT_MODEL, *bundled_names("models")]
    return next((name for name in known if plugin.weights(name) != "missing"), DEFAULT_MODEL)


def _parameter_rows(plugin: Plugin) -> list[tuple[str, str, str, str, str]]:
    """Of each parameter the name, the type, the default, what it is, and examples."""
    return [
        (
            one.name,
            one.type,
            "required" if one.required else one.default or "optional",
            one.description,
            "; ".join(one.examples),
        )
        for one in plugin.parameters()
    ]


def _values(plugin: Plugin, model: str | None) -> list[tuple[str, str | None]]:
    """Lines on what its weights know and where they are, each with its style."""
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
