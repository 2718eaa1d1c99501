"""Where control weights of models that are not the user's to write to lie, and what is there."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from dlmctl.checkpoint.bundled import bundled_path


def users_controls() -> Path:
    """The folder of the user's own control weights."""
    return platformdirs.user_data_path("dlmctl", appauthor=False) / "controls"


def comes_with_weights(model: str, control: str) -> bool:
    """Whether a bundled model, given by its name, comes with weights of a control without a name: they are found first,
    and nothing is written over them.
    """
    folder = bundled_path("models", model)
    return folder is not None and any((folder / "controls" / control).glob("*.safetensors"))


def weights_beside(folder: Path, control: str) -> tuple[bool, list[str]]:
    """Whether a model has weights of a control without a name, and the names of the others, without loading the model.

    In the user's own folder those of every model of this name count: which are this one's its embeddings decide.
    """
    places = [folder / "controls" / control, *users_controls().glob(f"{folder.resolve().name}-*/{control}")]
    named = sorted({path.parent.name for place in places for path in place.glob("*/*.safetensors")})
    return any(True for place in places for _ in place.glob("*.safetensors")), named
