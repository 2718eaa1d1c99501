"""Resolution of a model name to a folder: a local folder, a bundled model, or a model on the hub."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.checkpoint.kinds import vendor_kind
from dlmctl.errors import ModelError, did_you_mean, short_message
from dlmctl.text.files import read_object

# The weights of small models of transformers before safetensors.
PICKLED = "pytorch_model.bin"
# The folder of a model's scorer, in the folder of the model.
SCORER = "scorer"
# Seconds to wait for the hub's answer; without a network some name servers never answer.
HUB_TIMEOUT = 8.0
# Names of weights in a training run of the original Diffusion-LM.
ORIGINAL_WEIGHTS = (re.compile(r"ema_([\d.]+)_(\d+)\.pt"), re.compile(r"model()(\d+)\.pt"))
# Weights and tokenizers, in any form that transformers reads.
_TRANSFORMERS_FILES = (("*.safetensors", "*.bin"), ("tokenizer*.json", "vocab.*", "*.model"))

# The families of external checkpoints by model_type; ``tokens`` if it is not listed.
_FAMILIES: dict[str, Literal["canvas", "uniform"]] = {
    "diffusion_gemma": "canvas",
    "udlm": "uniform",
    "duo": "uniform",
    "DUO": "uniform",
}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Files to download; no code is among them.
_FILES = ("*.safetensors", "*.json", "*.md", "tokenizer/*", "merges.txt", "vocab.txt", "*.jinja")


def resolve(source: str | Path) -> Path:
    """The folder of a model given as a folder, a bundled name (``e2e``) or a hub name (``user/repo``).

    A folder takes precedence over a bundled model of the same name. Only a hub name uses the network, and only for
    files that are not in the hub's cache yet; with ``HF_HUB_OFFLINE=1`` not even then.

    Raises:
        ModelError: there is no such model, its folder may not be entered, or it cannot be downloaded.
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser would raise for an unknown user
    if _exists(path / "config.json") or _is_original(path):
        return path
    bundled = bundled_path("models", str(source))
    if bundled is not None:
        return bundled
    _check_access(path)
    if _is_dir(path):
        raise ModelError("is not a model: config.json is missing.", where=str(source), remedy=_known(path))
    if _exists(path) and path.is_file():
        raise ModelError("is a file; a model is a folder.", where=str(source), remedy=f"Perhaps {str(path.parent)!r}.")
    if isinstance(source, str) and _HUB_NAME.fullmatch(source):
        return _from_hub(source)
    raise ModelError("there is no such model.", where=str(source), remedy=_known(path))


def family_of(source: str | Path) -> Literal["gaussian", "masked", "tokens", "canvas", "uniform"]:
    """The diffusion family of a model according to its configuration, ``gaussian`` by default.

    For a hub name that is not in the cache, the configuration is downloaded.
    """
    try:
        folder = configured_folder(source)
        settings = {} if folder is None else read_object(folder / "config.json")
    except ModelError:  # loading the model reports the error
        return "gaussian"
    kind = vendor_kind(settings)
    if kind is not None and "dlmctl_format" not in settings:
        return _FAMILIES.get(kind, "tokens")
    family = settings.get("family")
    return family if family in ("masked", "uniform") else "gaussian"


def configured_folder(source: str | Path) -> Path | None:
    """The folder with the configuration of a model, given in any form that ``resolve`` accepts; None if there is none.

    Of a hub model that is not in the cache, the configuration alone is downloaded.

    Raises:
        ModelError: the hub cannot be reached, or has no such model.
    """
    path = Path(os.path.expanduser(source))
    folder = path if _exists(path / "config.json") else bundled_path("models", str(source))
    if folder is None and not _is_dir(path) and _HUB_NAME.fullmatch(str(source)):
        return hub_files(str(source), ["config.json"])
    return folder


def hub_commit(folder: Path) -> str | None:
    """The commit of a model in the hub's cache; None for any other folder. It also identifies the files that are only
    downloaded later."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def _exists(path: Path) -> bool:
    """Whether anything with this name exists, of any kind."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a name with a NUL
        return False


def _check_access(path: Path) -> None:
    """Refuse a folder that may not be entered; it would seem empty, and one inside it missing.

    Raises:
        ModelError: it may not.
    """
    try:
        os.lstat(path / "config.json")
    except PermissionError as error:
        raise ModelError(f"cannot be read: {error.strerror}.", where=str(path)) from None
    except (OSError, ValueError):  # missing, or not a valid name
        pass


def _is_dir(path: Path) -> bool:
    """Whether a folder with this name exists; False for names that are too long for a file."""
    return _exists(path) and path.is_dir()


def _is_original(path: Path) -> bool:
    """Whether a folder is a training run of the original Diffusion-LM, even if files are missing."""
    if _exists(path / "training_args.json"):
        return True
    return _is_dir(path) and any(kind.fullmatch(file.name) for file in path.glob("*.pt") for kind in ORIGINAL_WEIGHTS)


def _known(path: Path) -> str:
    """A hint at the models that may be meant: the bundled ones and those in the same folder."""
    siblings = [path.parent / config.parent.name for config in path.parent.glob("*/config.json")]
    known = [*bundled_names("models"), *(str(sibling) for sibling in siblings if sibling != path)]
    return did_you_mean(str(path), known) if known else "Give the folder of a saved model."


def _from_hub(name: str) -> Path:
    """The folder of a hub model: from the hub's cache if complete, else downloaded."""
    folder = _cached(name)
    if folder is None or not _is_complete(folder):
        folder = _download(name, _FILES)
        if not _holds(folder, ["*.safetensors"]):
            folder = _download(name, [*_FILES, PICKLED])
    if not _exists(folder / "config.json"):
        raise ModelError("is not a dlmctl model: config.json is missing.", where=f"{name} (hub)")
    return folder


def hub_files(name: str, files: Sequence[str]) -> Path:
    """The folder with the given files of a hub model: from the hub's cache, else downloaded.

    Raises:
        ModelError: the hub cannot be reached, or has no such model.
    """
    folder = _cached(name)
    return folder if folder is not None and _exists(folder / files[0]) else _download(name, files)


def resolve_for_transformers(source: str) -> str:
    """The name from which transformers can load another network, given as a folder or hub name: a folder if it is on
    disk, else the hub name, once the hub has confirmed it.

    Without this check, its client would try for a minute and a half without a network, even for misspelt folders.

    Raises:
        ModelError: there is no such folder or hub name, or the hub cannot be reached.
    """
    path = Path(os.path.expanduser(source))
    if _exists(path):
        return str(path)
    folder = _cached(source)
    required = (("config.json",), *_TRANSFORMERS_FILES)
    if folder is not None and all(_holds(folder, names) for names in required):
        return str(folder)
    if not _HUB_NAME.fullmatch(source):
        siblings = [str(path.parent / config.parent.name) for config in path.parent.glob("*/config.json")]
        remedy = did_you_mean(source, siblings) if siblings else "Give a folder, or a hub name as OWNER/NAME."
        raise ModelError("there is no such model.", where=source, remedy=remedy)
    with _hub_errors(source):
        _require_on_hub(source)
    return source


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any(True for name in names for _ in folder.glob(name))


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or not a valid hub name
        return None


def _is_complete(folder: Path) -> bool:
    """Whether a cached model has its configuration and weights; a download may have been interrupted."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        return False
    if not index.is_file():
        return (folder / "model.safetensors").is_file() or (folder / PICKLED).is_file()
    weight_map = read_object(index).get("weight_map")
    return isinstance(weight_map, dict) and all((folder / str(file)).is_file() for file in weight_map.values())


def _download(name: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(name):
        _require_on_hub(name)
        return Path(snapshot_download(name, allow_patterns=list(files), etag_timeout=HUB_TIMEOUT))


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Convert exceptions of the hub's client to ModelError."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError:
        raise ModelError(
            "there is no such folder, and no such model on the hub.", where=name, remedy=_known(Path(name))
        ) from None
    except Exception as error:  # the network, the proxy and the hub's client raise many kinds
        raise ModelError(
            f"there is no such folder, and the hub cannot be reached: {short_message(error)}.",
            where=name,
            remedy=f"Download it with a network (`hf download {name} --local-dir FOLDER`) and give the folder.",
        ) from None


def _require_on_hub(name: str) -> None:
    """Check that the hub has a model, in a separate thread, as name resolution has no timeout of its own.

    Raises:
        TimeoutError: there was no answer within ``HUB_TIMEOUT`` seconds.
        Exception: any error of the hub's client.
    """
    from huggingface_hub import HfApi

    errors: list[Exception] = []

    def request() -> None:
        try:
            HfApi().model_info(name, timeout=HUB_TIMEOUT / 2)
        except Exception as error:  # raised again by the waiting thread
            errors.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {HUB_TIMEOUT:.0f} seconds")
    if errors:
        raise errors[0]
