"""Which folder a model's name means: a folder, a bundled model, or one of the hub."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.errors import ModelError, brief, nearest
from dlmctl.text.files import read_object

# Seconds in which the hub must have said whether it has a model; without a network some name servers never answer.
HUB_PATIENCE = 8.0
# Names of weights in a training run of the original Diffusion-LM.
ORIGINAL_WEIGHTS = (re.compile(r"ema_([\d.]+)_(\d+)\.pt"), re.compile(r"model()(\d+)\.pt"))
# Weights and tokenizers, in any form that transformers reads.
_OUTSIDE = (("*.safetensors", "*.bin"), ("tokenizer*.json", "vocab.*", "*.model"))

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# No code among them.
_FILES = ("*.safetensors", "*.json", "*.md", "tokenizer/*", "merges.txt", "*.jinja")


def resolve(source: str | Path) -> Path:
    """The folder of a model given as a folder, a bundled name (``e2e``) or a hub name (``user/repo``).

    A folder wins over a bundled model of the same name. Only a hub name uses the network, and only for what is
    not in the hub's cache yet; with ``HF_HUB_OFFLINE=1`` not even then.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded.
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser would raise where there is no such user
    if _exists(path / "config.json") or _is_original(path):
        return path
    bundled = bundled_path("models", str(source))
    if bundled is not None:
        return bundled
    if _is_dir(path):
        raise ModelError("is not a model: config.json is missing.", where=str(source), remedy=_known(path))
    if _exists(path) and path.is_file():
        raise ModelError("is a file; a model is a folder.", where=str(source), remedy=f"Perhaps {str(path.parent)!r}.")
    if isinstance(source, str) and _HUB_NAME.fullmatch(source):
        return _from_hub(source)
    raise ModelError("there is no such model.", where=str(source), remedy=_known(path))


def family_of(source: str | Path) -> Literal["gaussian", "masked", "tokens", "canvas", "uniform"]:
    """The diffusion family of a model, by its configuration; ``gaussian`` where that does not say.

    Of a hub name that is not in the cache the configuration is fetched.
    """
    path = Path(os.path.expanduser(source))
    folder = path if _exists(path / "config.json") else bundled_path("models", str(source))
    try:
        if folder is None and not _is_dir(path) and _HUB_NAME.fullmatch(str(source)):
            folder = hub_files(str(source), ["config.json"])
        settings = {} if folder is None else read_object(folder / "config.json")
    except ModelError:  # loading it says what is wrong
        return "gaussian"
    if "model_type" in settings and "dlmctl_format" not in settings:
        return "canvas" if settings["model_type"] == "diffusion_gemma" else "tokens"
    family = settings.get("family")
    return family if family in ("masked", "uniform") else "gaussian"


def _exists(path: Path) -> bool:
    """Whether there is anything of this name; what it is, its reader says."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a name with a NUL
        return False


def _is_dir(path: Path) -> bool:
    """Whether a name is that of a folder; one that no file can have, being too long, is not."""
    return _exists(path) and path.is_dir()


def _is_original(path: Path) -> bool:
    """Whether a folder is a training run of the original Diffusion-LM; one that lacks a file is still one."""
    if _exists(path / "training_args.json"):
        return True
    return _is_dir(path) and any(kind.fullmatch(file.name) for file in path.glob("*.pt") for kind in ORIGINAL_WEIGHTS)


def _known(path: Path) -> str:
    """A hint at the models that were perhaps meant: the bundled ones and those in the same folder."""
    beside = [path.parent / other.parent.name for other in path.parent.glob("*/config.json")]
    known = [*bundled_names("models"), *(str(other) for other in beside if other != path)]
    return nearest(str(path), known) if known else "Give the folder of a saved model."


def _from_hub(name: str) -> Path:
    """The hub's cache if all of the model is there, else a download."""
    folder = _cached(name)
    folder = folder if folder is not None and _is_complete(folder) else _download(name, _FILES)
    if not _exists(folder / "config.json"):
        raise ModelError("is not a dlmctl model: config.json is missing.", where=f"{name} (hub)")
    return folder


def hub_files(name: str, files: Sequence[str]) -> Path:
    """The folder with some files of a hub name: from the hub's cache, else downloaded.

    Raises:
        ModelError: the hub cannot be reached, or has no such name.
    """
    folder = _cached(name)
    return folder if folder is not None and _exists(folder / files[0]) else _download(name, files)


def resolve_outside(source: str) -> str:
    """What transformers is to load a network of others from, given as a folder or hub name: a folder where it is on
    disk, else the name, once the hub has said that it has it.

    Left to itself its client would ask for a minute and a half where there is no network, for misspelled folders too.

    Raises:
        ModelError: there is no such folder or name, or the hub cannot be reached.
    """
    path = Path(os.path.expanduser(source))
    if _exists(path):
        return str(path)
    folder = _cached(source)
    if folder is not None and _holds(folder, ("config.json",)) and all(_holds(folder, some) for some in _OUTSIDE):
        return str(folder)
    if not _HUB_NAME.fullmatch(source):
        beside = [str(path.parent / other.parent.name) for other in path.parent.glob("*/config.json")]
        remedy = nearest(source, beside) if beside else "Give a folder, or a hub name as OWNER/NAME."
        raise ModelError("there is no such model.", where=source, remedy=remedy)
    with _asking(source):
        _ask_for(source)
    return source


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any(True for name in names for _ in folder.glob(name))


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or no name of the hub
        return None


def _is_complete(folder: Path) -> bool:
    """Whether configuration and weights of a cached model are there; a download may have been interrupted."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        return False
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    places = read_object(index).get("weight_map")
    return isinstance(places, dict) and all((folder / str(file)).is_file() for file in places.values())


def _download(name: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    with _asking(name):
        _ask_for(name)
        return Path(snapshot_download(name, allow_patterns=list(files), etag_timeout=HUB_PATIENCE))


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Give what the hub's client raises as a ModelError."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError:
        raise ModelError(
            "there is no such folder, and no such model on the hub.", where=name, remedy=_known(Path(name))
        ) from None
    except Exception as error:  # whatever the network, the proxy or the hub's client may raise
        raise ModelError(
            f"there is no such folder, and the hub cannot be reached: {brief(error)}.",
            where=name,
            remedy=f"Fetch it where there is a network (`hf download {name} --local-dir FOLDER`) and give the folder.",
        ) from None


def _ask_for(name: str) -> None:
    """Ask the hub whether it has a model, in a thread of its own: nothing bounds how long a name server is waited for.

    Raises:
        TimeoutError: there was no answer in ``HUB_PATIENCE`` seconds.
        Exception: whatever the hub's client raises.
    """
    from huggingface_hub import HfApi

    failed: list[Exception] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=HUB_PATIENCE / 2)
        except Exception as error:  # raised again by the thread that waits
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE)
    if asking.is_alive():
        raise TimeoutError(f"no answer within {HUB_PATIENCE:.0f} seconds")
    if failed:
        raise failed[0]
