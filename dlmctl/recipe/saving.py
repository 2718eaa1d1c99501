"""A recipe made in Python as a file."""

from __future__ import annotations

from pathlib import Path

import yaml

from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.plain_values import name_of


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe to a YAML file, with the settings that were given.

    >>> dlmctl.save_recipe(dlmctl.Recipe(samples=2, controls=[Length(8)]), "mine.yaml")
    >>> dlmctl.run("mine.yaml")

    Raises:
        UserError: it is no recipe, it holds what a file cannot name, such as a function of a notebook or a control that
            no package offers, or the file cannot be written.
    """
    if not isinstance(recipe, Recipe):
        what = f"{type(recipe).__name__!r} is not a recipe."
        raise UserError(what, where="recipe", remedy="Make one with dlmctl.Recipe(...).")
    settings, given = recipe.model_dump(mode="json", exclude_defaults=True, fallback=name_of), recipe.given()
    plain = {"model": recipe.model, **{name: value for name, value in settings.items() if name in given}}
    plain |= {name: given[name] for name in ("sampler", "guidance") if name in given}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    try:
        read_recipe(text, str(path))
    except RecipeError as error:
        what = f"the recipe would not be read back: {error.what}"
        remedy = "A file names functions and controls of your own as `mine.py:name`."
        raise RecipeError(what, where=str(path), remedy=remedy) from None
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}.", where=str(path)) from None
