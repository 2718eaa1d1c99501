"""Control weights in the user's data folder, for models whose own folder must not be written to."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from dlmctl.checkpoint.bundled import bundled_names, bundled_path

# Has no files, and none can be made in it.
NO_FOLDER = Path(os.devnull)


def user_controls_folder() -> Path:
    """The folder of the user's own control weights; ``NO_FOLDER`` if the user has no home, as in some containers."""
    try:
        return platformdirs.user_data_path("dlmctl", appauthor=False) / "controls"
    except RuntimeError:
        return NO_FOLDER


def has_bundled_weights(model: str, control: str) -> bool:
    """Whether a bundled model has unnamed weights of a control; these take precedence and are never overwritten."""
    folder = bundled_path("models", model)
    return folder is not None and any((folder / "controls" / control).glob("*.safetensors"))


def available_weights(folder: Path, control: str) -> tuple[bool, list[str]]:
    """Whether a model has unnamed weights of a control, and the names of the others, without loading the model.

    In the user's data folder, the weights of every model of this name count, as only the embeddings tell them apart.
    """
    folders = [folder / "controls" / control, *user_controls_folder().glob(f"{folder.resolve().name}-*/{control}")]
    names = sorted({path.parent.name for parent in folders for path in parent.glob("*/*.safetensors")})
    return any(True for parent in folders for _ in parent.glob("*.safetensors")), names


def bundled_models_with(control: str, name: str | None = None) -> list[str]:
    """The bundled models that have weights of a control, under a name or without one."""
    models = []
    for model in bundled_names("models"):
        folder = bundled_path("models", model)
        unnamed, names = available_weights(folder, control) if folder is not None else (False, [])
        if unnamed if name is None else name in names:
            models.append(model)
    return models
