"""Shell completion: known names and file paths, without heavy imports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """Bundled recipes, and YAML files."""
    from dlmctl.checkpoint.bundled import bundled_names

    return [*_with_prefix(incomplete, bundled_names("recipes")), *_paths(incomplete, (".yaml", ".yml"))]


def models(incomplete: str) -> list[str]:
    """Bundled models, and folders."""
    from dlmctl.checkpoint.bundled import bundled_names

    return [*_with_prefix(incomplete, bundled_names("models")), *_paths(incomplete, ())]


def controls(incomplete: str) -> list[str]:
    """Controls of installed packages."""
    from dlmctl.control.registry import offered_controls

    return _with_prefix(incomplete, offered_controls())


def configurations(incomplete: str) -> list[str]:
    """Training configurations of the package, and YAML files."""
    from dlmctl.training.config import shipped_configs

    return [*_with_prefix(incomplete, shipped_configs()), *_paths(incomplete, (".yaml", ".yml"))]


def _with_prefix(prefix: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Folders, with a / at the end, and files with one of the suffixes, that complete a path."""
    parent, slash, prefix = incomplete.rpartition("/")
    try:
        entries = sorted(Path(parent + slash or ".").iterdir())
    except OSError:
        return []
    matches = [path for path in entries if path.name.startswith(prefix) and (prefix or not path.name.startswith("."))]
    named = [(f"{parent}{slash}{path.name}", path) for path in matches]
    return [f"{name}/" if path.is_dir() else name for name, path in named if path.is_dir() or path.suffix in suffixes]
