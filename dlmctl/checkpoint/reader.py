"""The model that reads the texts of a model that was trained on from it: its acceptability weights fit only itself, so
the new model's folder holds its name."""

from __future__ import annotations

import json
from pathlib import Path

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.control_weights import ACCEPTABILITY, CONTROLS, READER_FILE, acceptability_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError, readable
from dlmctl.text.files import read_object

# The key in ``READER_FILE``.
READER = "reader"
_REMEDY = "Correct the path there, or learn from verdicts anew: `dlmctl train acceptability` (docs/training.md)."


def named_reader(pretrained: Pretrained) -> Path | None:
    """The folder of the model that reads the texts of a model; None if it reads them itself, or nothing does.

    Only a bundled name or an absolute path is followed: a hub name would make a folder from anywhere use the network,
    and a relative path, or a folder with a bundled name, would depend on where the command runs.

    Raises:
        ModelError: the file is damaged, or there is no such model any more.
    """
    folder = acceptability_folder(pretrained.folder, pretrained.model)
    if folder is None or any(folder.glob("*.safetensors")):
        return None
    path = folder / READER_FILE
    name = read_object(path).get(READER)
    if isinstance(name, str) and (bundled := bundled_path("models", name)) is not None:
        return bundled
    if not isinstance(name, str) or "\0" in name or not Path(name).is_absolute():
        what = f"{READER} must be a bundled model or the absolute path of a model."
        raise ModelError(what, where=str(path), remedy=_REMEDY)
    if not _is_model(Path(name)):
        what = f"names the model that reads the texts, and it is not there (any more): {readable(name)}."
        raise ModelError(what, where=str(path), remedy=_REMEDY)
    return Path(name)


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
    write_reader(folder, name_of_reader(named_reader(source) or source.folder))


def write_reader(folder: Path, name: str) -> None:
    """Name the model that reads the texts of the model in ``folder``."""
    path = folder / CONTROLS / ACCEPTABILITY / READER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({READER: name}) + "\n", "utf-8")


def name_of_reader(folder: Path) -> str:
    """The name of a bundled model, which holds on other machines, too; else the absolute path."""
    bundled = bundled_path("models", folder.name)
    return folder.name if bundled is not None and bundled.samefile(folder) else str(folder.resolve())
