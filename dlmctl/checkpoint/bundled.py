"""Paths of the bundled models, recipes and annotators, in a checkout or inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["models", "recipes", "annotators"]

PACKAGE = Path(__file__).resolve().parents[1]


def bundled_path(kind: Kind, name: str) -> Path | None:
    """The path of a bundled folder (for recipes: a YAML file) by name, or None if there is none.

    ``name`` is a plain name, not a path: nothing outside the bundled folders is ever returned.
    """
    return _bundled_paths(kind).get(name)


def bundled_names(kind: Kind) -> list[str]:
    """The names of all bundled models, recipes or annotators, sorted."""
    return sorted(_bundled_paths(kind))


def model_name(folder: Path) -> str:
    """How a person names the model in a folder: a bundled one by its name, which means the same on every machine."""
    return folder.name if bundled_path("models", folder.name) == folder else str(folder)


def _bundled_paths(kind: Kind) -> dict[str, Path]:
    folder = _folder(kind)
    if not folder.is_dir():
        return {}
    if kind == "recipes":
        return {path.stem: path for path in folder.glob("*.yaml")}
    return {path.name: path for path in folder.iterdir() if path.is_dir() and _is_complete(kind, path)}


def _folder(kind: Kind) -> Path:
    if (PACKAGE / "_bundled").is_dir():  # a wheel
        return PACKAGE / "_bundled" / kind
    checkout = PACKAGE.parent
    return {
        "models": checkout / "data",
        "recipes": checkout / "recipes",
        "annotators": checkout / "data" / "annotators",
    }[kind]


def _is_complete(kind: Kind, path: Path) -> bool:
    # data/ also holds the small corpus and the annotators; only a model has a config.json.
    return kind != "models" or (path / "config.json").is_file()
