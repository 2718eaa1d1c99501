"""The model that reads the texts of a model that was trained on from it: its acceptability weights fit only itself, so
the new model's folder holds its name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.control_weights import ACCEPTABILITY, CONTROLS, READER_FILE, acceptability_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError, readable
from dlmctl.text.files import read_object

# The keys in ``READER_FILE``: a bundled name or absolute path, and the path from the folder of the model that is read.
READER, RELATIVE = "reader", "relative"
_REMEDY = (
    "Put it back, correct the path there, or learn from verdicts anew: `dlmctl train acceptability` (docs/training.md)."
)


def named_reader(pretrained: Pretrained) -> Path | None:
    """The folder of the model that reads the texts of a model; None if it reads them itself, or nothing does.

    Only a bundled name or an absolute path is followed, and, if there is no model any more, the path from the folder of
    ``pretrained``, so that both can be moved together. A hub name would make a folder from anywhere use the network,
    and any other path, or a folder with a bundled name, would depend on where the command runs.

    Raises:
        ModelError: the file is damaged, or there is no such model any more.
    """
    folder = acceptability_folder(pretrained.folder, pretrained.model)
    if folder is None or any(folder.glob("*.safetensors")):
        return None
    path = folder / READER_FILE
    settings = read_object(path)
    name = settings.get(READER)
    if isinstance(name, str) and (bundled := bundled_path("models", name)) is not None:
        return bundled
    if not isinstance(name, str) or "\0" in name or not Path(name).is_absolute():
        what = f"{READER} must be a bundled model or the absolute path of a model."
        raise ModelError(what, where=str(path), remedy=_REMEDY)
    if _is_model(Path(name)):
        return Path(name)
    moved = _moved_along(pretrained.folder, settings)
    if moved is None:
        what = f"names the model that reads the texts, and it is not there (any more): {readable(name)}."
        raise ModelError(what, where=str(path), remedy=_REMEDY)
    return moved


def _moved_along(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The reader of the model in ``folder`` if it was moved together with it."""
    relative = settings.get(RELATIVE)
    if not isinstance(relative, str) or "\0" in relative or Path(relative).is_absolute():
        return None
    # Without links and "..", which a folder that is a link would lead elsewhere.
    place = Path(os.path.normpath(folder.resolve() / relative))
    return place if _is_model(place) else None


def _is_model(folder: Path) -> bool:
    """Whether a folder holds the configuration of a model."""
    try:
        return (folder / "config.json").is_file()
    except OSError:  # such as a name that is too long
        return False


def pass_reader_on(source: Pretrained, folder: Path) -> None:
    """Have the texts of the model in ``folder`` read by the model that reads those of ``source``.

    Raises:
        ModelError: there is no such model any more.
        OSError: the file cannot be written.
    """
    reader = named_reader(source) or source.folder
    write_reader(folder, name_of_reader(reader), _path_from(folder, reader))


def write_reader(folder: Path, name: str, relative: str | None = None) -> None:
    """Name the model that reads the texts of the model in ``folder``.

    Args:
        relative: the path from there, where one may be followed.
    """
    path = folder / CONTROLS / ACCEPTABILITY / READER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {READER: name} if relative is None else {READER: name, RELATIVE: relative}
    path.write_text(json.dumps(names) + "\n", "utf-8")


def _path_from(folder: Path, reader: Path) -> str | None:
    """The path of a reader from a model's folder; None for a bundled one, which is found by name."""
    if not Path(name_of_reader(reader)).is_absolute():
        return None
    try:
        return Path(os.path.relpath(reader.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return None


def name_of_reader(folder: Path) -> str:
    """The name of a bundled model, which holds on other machines, too; else the absolute path."""
    bundled = bundled_path("models", folder.name)
    return folder.name if bundled is not None and bundled.samefile(folder) else str(folder.resolve())
