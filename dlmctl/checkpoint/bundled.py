"""Where the models, recipes and annotators that come with the toolkit lie: in a checkout or inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["models", "recipes", "annotators"]

PACKAGE = Path(__file__).resolve().parents[1]


def bundled_path(kind: Kind, name: str) -> Path | None:
    """The folder (recipes: the YAML file) of the bundled thing of this name, or None if there is none.

    ``name`` is one name, not a path: nothing outside the bundled folders is ever returned.
    """
    return _found(kind).get(name)


def bundled_names(kind: Kind) -> list[str]:
    """The names of all bundled things of a kind, sorted."""
    return sorted(_found(kind))


def _found(kind: Kind) -> dict[str, Path]:
    folder = _folder(kind)
    if not folder.is_dir():
        return {}
    if kind == "recipes":
        return {path.stem: path for path in folder.glob("*.yaml")}
    return {path.name: path for path in folder.iterdir() if path.is_dir() and _is_whole(kind, path)}


def _folder(kind: Kind) -> Path:
    if (PACKAGE / "_bundled").is_dir():  # a wheel
        return PACKAGE / "_bundled" / kind
    checkout = PACKAGE.parent
    return {
        "models": checkout / "data",
        "recipes": checkout / "recipes",
        "annotators": checkout / "data" / "annotators",
    }[kind]


def _is_whole(kind: Kind, path: Path) -> bool:
    # data/ also holds the small corpus and the annotators; what makes a folder a model is its config.json.
    return kind != "models" or (path / "config.json").is_file()
