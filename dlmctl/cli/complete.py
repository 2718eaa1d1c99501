"""What the shell offers when Tab is pressed: names of what is there, and files. Nothing heavy is imported for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """Bundled recipes, and files that may be one."""
    from dlmctl.checkpoint.bundled import bundled_names

    return [*_beginning(incomplete, bundled_names("recipes")), *_paths(incomplete, (".yaml", ".yml"))]


def models(incomplete: str) -> list[str]:
    """Bundled models, and folders."""
    from dlmctl.checkpoint.bundled import bundled_names

    return [*_beginning(incomplete, bundled_names("models")), *_paths(incomplete, ())]


def controls(incomplete: str) -> list[str]:
    """Controls that installed packages offer."""
    from dlmctl.control.registry import offers

    return _beginning(incomplete, offers())


def configurations(incomplete: str) -> list[str]:
    """Training configurations that come with the package, and files that may be one."""
    from dlmctl.training.config import shipped_configs

    return [*_beginning(incomplete, shipped_configs()), *_paths(incomplete, (".yaml", ".yml"))]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, with a / at the end, and files of these endings, as far as the path is written."""
    written, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(written + slash or ".").iterdir())
    except OSError:
        return []
    shown = [path for path in found if path.name.startswith(begun) and (begun or not path.name.startswith("."))]
    named = [(f"{written}{slash}{path.name}", path) for path in shown]
    return [f"{name}/" if path.is_dir() else name for name, path in named if path.is_dir() or path.suffix in endings]
