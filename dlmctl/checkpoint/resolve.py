"""Which folder a model's name means: a folder, a bundled model, or one of the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.errors import ModelError, nearest

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(source: str | Path) -> Path:
    """The folder of a model given as a folder, a bundled name (``e2e``) or a hub name (``user/repo``).

    A folder wins over a bundled model of the same name. Only a hub name uses the network, and only for what is
    not in the hub's cache yet.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded.
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser would raise where there is no such user
    if (path / "config.json").is_file() or (path / "training_args.json").is_file():
        return path
    bundled = bundled_path("models", str(source))
    if bundled is not None:
        return bundled
    if path.is_dir():
        raise ModelError("is not a model: config.json is missing.", where=str(source), remedy=_known(path))
    if path.is_file():
        raise ModelError("is a file; a model is a folder.", where=str(source), remedy=f"Perhaps {str(path.parent)!r}.")
    if isinstance(source, str) and _HUB_NAME.fullmatch(source):
        return _download(source)
    raise ModelError("there is no such model.", where=str(source), remedy=_known(path))


def _known(path: Path) -> str:
    """A hint at the models that were perhaps meant: the bundled ones and those in the same folder."""
    beside = [path.parent / other.parent.name for other in path.parent.glob("*/config.json")]
    known = [*bundled_names("models"), *(str(other) for other in beside if other != path)]
    return nearest(str(path), known) if known else "Give the folder of a saved model."


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.md", "tokenizer/*"]))
    except RepositoryNotFoundError:
        raise ModelError(
            "there is no such folder, and no such model on the hub.", where=name, remedy=_known(Path(name))
        ) from None
    except Exception as error:  # whatever the network, the proxy or the hub's client may raise
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ModelError(
            f"there is no such folder, and the hub cannot be reached: {reason}.",
            where=name,
            remedy=f"Fetch it where there is a network (`hf download {name} --local-dir FOLDER`) and give the folder.",
        ) from None
    if not (folder / "config.json").is_file():
        raise ModelError("is not a dlmctl model: config.json is missing.", where=f"{name} (hub)")
    return folder
