"""``dlmctl recipe``: new, validate, schema, list, show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmctl.cli.options import AnyModel, Preset, RecipeName, Samples, Seed, Settings, Table, overrides

if TYPE_CHECKING:
    from dlmctl.control.catalogue import Plugin

app = typer.Typer(no_args_is_help=True)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The recipe to write, e.g. mine.yaml.")],
    control: Annotated[
        list[str] | None,
        typer.Option(
            "--control", "-c", help="Add a control by name, or with parameters: 'length: {words: 12}'; repeatable."
        ),
    ] = None,
    model: AnyModel = None,
    samples: Samples = None,
    seed: Seed = None,
    preset: Preset = None,
    description: Annotated[str | None, typer.Option(help="Purpose of the recipe.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented recipe to start from, and next to it the schema with which editors check and complete it.

    In a terminal, without options, it prompts for the settings.
    """
    from dlmctl.errors import UserError
    from dlmctl.generation.output import atomic_write
    from dlmctl.recipe.starter import SCHEMA_FILE, read_entry, starter, write_schema

    if file.exists() and not force:
        raise UserError("exists already.", where=str(file), remedy="Name another file, or give --force.")
    if not file.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(file.parent), remedy="Make it first.")
    preset_name = None if preset is None else preset.value
    options = {"model": model, "samples": samples, "seed": seed, "preset": preset_name, "description": description}
    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if control:
        settings["controls"] = [read_entry(text) for text in control]
    elif not settings and sys.stdin.isatty():
        settings = _prompt_for_settings()
    text = starter(settings, file.name, SCHEMA_FILE)
    with atomic_write(file) as partial:
        partial.write_text(text, "utf-8")
    with atomic_write(file.with_name(SCHEMA_FILE)) as partial:
        write_schema(partial)
    typer.echo(f"{file} written, and {file.with_name(SCHEMA_FILE)} for editors. Draw from it with:")
    typer.echo(f"dlmctl generate --recipe {file}")
    if settings.get("controls"):
        _print_obstacles(file)


def _print_obstacles(file: Path) -> None:
    """Print to stderr why a new recipe cannot be drawn yet, and which bundled models have the weights it needs."""
    from dlmctl.checkpoint.bundled import bundled_names, bundled_path
    from dlmctl.control.registry import find_control
    from dlmctl.errors import UserError
    from dlmctl.generation.diagnose import validate_recipe
    from dlmctl.recipe.load import load_recipe
    from dlmctl.recipe.recipe import COMBINATIONS, nested_specs

    recipe, origin = load_recipe(str(file))
    names = sorted({spec.name for spec in nested_specs(recipe.control_specs())} - set(COMBINATIONS))
    trained = [name for name in names if find_control(name).Labels is not None]
    if not trained or recipe.targets is not None:
        return
    try:
        validate_recipe(recipe, origin)
    except UserError as error:
        typer.echo(f"Not yet: {error}", err=True)
        folders = {model: bundled_path("models", model) for model in bundled_names("models")}
        suitable = [
            model
            for model, folder in folders.items()
            if folder is not None and all((folder / "controls" / name).is_dir() for name in trained)
        ]
        if suitable and recipe.model not in suitable:
            typer.echo(f"Bundled models with the weights: {', '.join(suitable)}. Give --model {suitable[0]}.", err=True)


def _prompt_for_settings() -> dict[str, Any]:
    """Prompt for the settings of a new recipe, one by one; an invalid answer is asked for again."""
    from dlmctl.checkpoint.bundled import bundled_names
    from dlmctl.control.catalogue import installed
    from dlmctl.recipe.recipe import DEFAULT_MODEL

    models = ", ".join(bundled_names("models"))
    settings: dict[str, Any] = {"model": typer.prompt(f"Model ({models}, or a folder)", default=DEFAULT_MODEL)}
    plugins = {plugin.name: plugin for plugin in installed()[0]}
    for plugin in plugins.values():
        typer.echo(f"  {plugin.name:<12} {plugin.summary}")
    entries = []
    while name := typer.prompt("A control (Enter: no more)", default="", show_default=False).strip():
        if name in plugins:
            entries.append({name: _prompt_for_parameters(plugins[name])})
        else:
            typer.echo(f"There is no control {name!r}.")
    if entries:
        settings["controls"] = entries
    return {**settings, "samples": typer.prompt("How many texts", default=8, type=int)}


def _prompt_for_parameters(plugin: Plugin) -> dict[str, Any]:
    """Prompt for the parameters in a control's example, as YAML."""
    from pydantic import ValidationError

    from dlmctl.control.catalogue import in_yaml
    from dlmctl.errors import UserError, first_validation_error
    from dlmctl.recipe.yaml_file import parse

    parameters = {parameter.name: parameter for parameter in plugin.parameters()}
    example = plugin.example or {name: None for name, parameter in parameters.items() if parameter.required}
    while True:
        values = {}
        try:
            for name, value in example.items():
                if name in parameters:
                    typer.echo(f"  {name}: {parameters[name].description}")
                answer = typer.prompt(f"  {name}", default=None if value is None else in_yaml(value))
                values[name] = parse(answer, name)[0]
            plugin.kind.Params.model_validate(values)
            return values
        except UserError as error:
            typer.echo(f"  {error}")
        except ValidationError as error:
            typer.echo(f"  {first_validation_error(error)}")


@app.command()
def validate(
    name: RecipeName,
    model: AnyModel = None,
    targets: Table = None,
    settings: Settings = None,
) -> None:
    """Check a recipe against its model without drawing; the first error is reported with its line."""
    from dlmctl.generation.diagnose import validate_recipe
    from dlmctl.recipe.load import load_recipe

    validate_recipe(*load_recipe(name, overrides(settings, model=model, targets=targets)))
    typer.echo(f"{name}: valid")


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="Write it to a file, for editors; see docs/recipes.md.")] = None,
) -> None:
    """Print the JSON schema of recipes, with the parameters of every installed control."""
    import json

    from dlmctl.recipe.schema import recipe_schema

    if out is not None:
        from dlmctl.recipe.starter import write_schema

        write_schema(out)
        return
    typer.echo(json.dumps(recipe_schema(), indent=2))


@app.command("list")
def list_() -> None:
    """List the bundled recipes."""
    from dlmctl.checkpoint.bundled import bundled_names, bundled_path
    from dlmctl.recipe.yaml_file import parse, read_yaml

    for name in bundled_names("recipes"):
        path = bundled_path("recipes", name)
        if path is not None:
            # Not checked, as by `load_recipe`: for that the controls are imported, and with some of them torch.
            settings, _ = parse(read_yaml(path), str(path))
            typer.echo(f"{name:<16} {settings.get('description', '')}")


@app.command()
def show(name: RecipeName) -> None:
    """Print a recipe with every default written out."""
    from dlmctl.recipe.load import load_recipe
    from dlmctl.recipe.recipe import dump_recipe

    typer.echo(dump_recipe(load_recipe(name)[0]), nl=False)
