"""``dlmctl recipe``: validate, schema, list, show."""

from __future__ import annotations

import typer

from dlmctl.cli.options import RecipeName

app = typer.Typer(no_args_is_help=True)


@app.command()
def validate(name: RecipeName) -> None:
    """Check a recipe against its model without drawing anything; the first fault is named with its line."""
    from dlmctl.generation.diagnose import validate_recipe
    from dlmctl.recipe.load import load_recipe

    validate_recipe(*load_recipe(name))
    typer.echo(f"{name}: valid")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, with the parameters of every installed control."""
    import json

    from dlmctl.recipe.schema import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


@app.command("list")
def list_() -> None:
    """List the bundled recipes."""
    from dlmctl.checkpoint.bundled import bundled_names
    from dlmctl.recipe.load import load_recipe

    for name in bundled_names("recipes"):
        recipe, _ = load_recipe(name)
        typer.echo(f"{name:<16} {recipe.description}")


@app.command()
def show(name: RecipeName) -> None:
    """Print a recipe with every default written out."""
    from dlmctl.recipe.load import load_recipe
    from dlmctl.recipe.recipe import dump_recipe

    typer.echo(dump_recipe(load_recipe(name)[0]), nl=False)
