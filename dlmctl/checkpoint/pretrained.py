"""Models on disk: a folder with ``config.json``, the weights as safetensors shards, and the tokeniser.

Nothing is ever read with pickle. What else lies in a model's folder (``controls/``, ``scorer/``, ``README.md``)
is left alone when the model is saved again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.errors import DataError, ModelError, UserError, first_fault, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
    from dlmctl.diffusion.model import DiffusionLM, ModelConfig
    from dlmctl.text.tokenizer import Tokenizer

FORMAT = 1
FORMAT_KEY = "dlmctl_format"
# Leaves room for the header below the 16 MiB that git hosts and slow links cope with.
MAX_SHARD_BYTES = 15 * 2**20
AGAIN = "Save or download the model again."

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_STAGING = ".partial"
# Of a model with a source, the folder of its words.
SOURCE = "source"


@dataclass(frozen=True)
class Pretrained:
    """A model ready for use: float32 weights, evaluation mode.

    Attributes:
        folder: where it was loaded from; weights of controls lie in ``folder / "controls" / NAME``.
        source_tokenizer: the words of the sources, where the model takes a source.
    """

    model: DiffusionLM | MaskedLM
    tokenizer: Tokenizer
    folder: Path
    source_tokenizer: Tokenizer | None = None

    @property
    def latent(self) -> DiffusionLM:
        """The model, for what only latents have.

        Raises:
            ModelError: it is a masked one.
        """
        from dlmctl.diffusion.model import DiffusionLM

        if isinstance(self.model, DiffusionLM):
            return self.model
        raise ModelError("is a masked model, and this needs one with latents.", where=str(self.folder))


def bundled_models() -> list[str]:
    """Names of the models that come with the toolkit."""
    return bundled_names("models")


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
    known = [*bundled_models(), *(str(other) for other in beside if other != path)]
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


def from_pretrained(source: str | Path, device: str | torch.device = "cpu") -> Pretrained:
    """Load a model by folder, bundled name or hub name; see ``resolve``.

    A folder of the original Diffusion-LM is read too; see ``dlmctl.checkpoint.original``.

    Raises:
        ModelError: there is no such model, or a file of it is missing, damaged or too new.
    """
    from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
    from dlmctl.diffusion.model import DiffusionLM

    folder = resolve(source)
    if not (folder / "config.json").is_file():
        from dlmctl.checkpoint.original import load_original

        model, tokenizer = load_original(folder)
        return Pretrained(model.to(device), tokenizer, folder)
    config = _read_config(folder / "config.json")
    if isinstance(config, MaskedConfig):
        masked = MaskedLM(config)
        load_into(masked, folder)
        return Pretrained(masked.to(device).eval(), _read_words(folder, config.vocab_size), folder)
    words = _read_words(folder, config.vocab_size)
    source_words = _read_words(folder / SOURCE, config.source_vocab_size) if config.source is not None else None
    model = DiffusionLM(config)
    load_into(model, folder)
    return Pretrained(model.to(device).eval(), words, folder, source_words)


def _read_words(folder: Path, size: int) -> Tokenizer:
    from dlmctl.text.tokenizer import load_tokenizer

    try:
        words = load_tokenizer(folder)
    except DataError as error:
        raise ModelError(error.what, where=str(folder / "vocab.json"), remedy=AGAIN) from None
    if len(words) != size:
        raise ModelError(
            f"the tokeniser has {len(words)} entries, config.json says {size}.", where=str(folder), remedy=AGAIN
        )
    return words


def _read_config(path: Path) -> ModelConfig | MaskedConfig:
    from pydantic import ValidationError

    from dlmctl.diffusion.masked import MaskedConfig
    from dlmctl.diffusion.model import ModelConfig

    settings = read_object(path, AGAIN)
    version = settings.pop(FORMAT_KEY, None)
    if not isinstance(version, int):
        raise ModelError(f"is not the configuration of a dlmctl model: {FORMAT_KEY} is missing.", where=str(path))
    if version > FORMAT:
        raise ModelError(
            f"was saved by a newer dlmctl (format {version}; this one reads up to {FORMAT}).",
            where=str(path),
            remedy="Upgrade dlmctl.",
        )
    try:
        kind = MaskedConfig if settings.get("family") == "masked" else ModelConfig
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ModelError(first_fault(error), where=str(path), remedy=AGAIN) from None


def read_object(path: Path, remedy: str | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy=remedy) from None
    if not isinstance(value, dict):
        raise ModelError("must hold a JSON object.", where=str(path), remedy=remedy)
    return value


def save_pretrained(
    model: DiffusionLM | MaskedLM,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    source_tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model and its tokeniser, and that of its sources if it takes any.

    All files are written aside first and then moved into place, so a full disk or a kill while writing leaves
    the model that was there.

    Args:
        folder: made if it is not there; things in it that are no part of the model stay.
        dtype: of the stored weights, e.g. ``torch.float16`` for files of half the size; as they are by default.
        max_shard_bytes: most bytes of tensors in one file; a single larger tensor has a file of its own.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    with _staged(folder) as staging:
        config = {FORMAT_KEY: FORMAT, **model.config.model_dump(mode="json")}
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        tokenizer.save(staging)
        if source_tokenizer is not None:
            (staging / SOURCE).mkdir()
            source_tokenizer.save(staging / SOURCE)
        _write_shards(model.state_dict(), staging, "model", dtype, max_shard_bytes)
        words, pieces = (staging / "vocab.json").exists(), (staging / "tokenizer").exists()
    if not pieces:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    if not words:
        (folder / "vocab.json").unlink(missing_ok=True)


def save_weights(
    state: Mapping[str, Tensor],
    folder: str | Path,
    stem: str = "model",
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write weights as ``STEM.safetensors``, or in shards with ``STEM.safetensors.index.json`` if they do not fit.

    Arguments and errors as ``save_pretrained``.
    """
    with _staged(Path(folder)) as staging:
        _write_shards(state, staging, stem, dtype, max_shard_bytes)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files move into ``folder`` and weights they replace go."""
    staging = folder / _STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        yield staging
        files = [path for path in staging.rglob("*") if path.is_file()]
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        # An index decides which weights count, so it moves last, and an outdated one goes before its shards.
        for path in sorted(files, key=lambda path: (path.name.endswith(".index.json"), path.name)):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        _remove_outdated(folder, {path.name for path in files})
    except OSError as error:
        raise UserError(
            f"cannot be written: {error}.",
            where=str(folder),
            remedy="What was there before is untouched; make room or choose another folder.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_outdated(folder: Path, written: set[str]) -> None:
    weights = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
    stems = {match[1] for name in written if (match := weights.fullmatch(name))}
    found = [path for path in folder.glob("*.safetensors*") if path.name not in written]
    for path in sorted(found, key=lambda path: not path.name.endswith(".index.json")):
        match = weights.fullmatch(path.name)
        if match and match[1] in stems:
            path.unlink()


def _write_shards(state: Mapping[str, Tensor], folder: Path, stem: str, dtype: torch.dtype | None, limit: int) -> None:
    import hashlib

    import torch
    from safetensors.torch import save

    # A copy of its own for each: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in state.items()
    }
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        # Written through Python: safetensors' own files are readable by their owner alone.
        (folder / f"{stem}.safetensors").write_bytes(save(shards[0], {"format": "pt"}))
        return
    # Marks shards of one save, so that a mixture of two is found out when it is read.
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / name).write_bytes(save(shard, {"format": "pt", "save": digest.hexdigest()[:16]}))
        places.update(dict.fromkeys(shard, name))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def load_weights(folder: str | Path, stem: str = "model") -> dict[str, Tensor]:
    """Weights that ``save_weights`` wrote, on the CPU, floating point ones as float32.

    Raises:
        ModelError: a file is missing, damaged, or from another save than the rest.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    files, expected = [single], None
    if index.is_file():
        expected = read_object(index, AGAIN).get("weight_map")
        if not isinstance(expected, dict) or not all(_is_plain(name) for name in expected.values()):
            raise ModelError("weight_map must name the file of each tensor.", where=str(index), remedy=AGAIN)
        files = [folder / name for name in sorted(set(expected.values()))]
    elif not single.is_file():
        raise ModelError(f"the weights are missing: {single.name} or {index.name}.", where=str(folder), remedy=AGAIN)
    state: dict[str, Tensor] = {}
    saves = set()
    for path in files:
        if not path.is_file():
            raise ModelError(f"is missing, though {index.name} names it.", where=str(path), remedy=AGAIN)
        try:
            with safe_open(path, framework="pt") as file:
                saves.add((file.metadata() or {}).get("save"))
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_tensor(name)
                    state[name] = tensor.float() if tensor.is_floating_point() else tensor
        except (OSError, SafetensorError) as error:
            raise ModelError(f"is damaged or cut short: {error}.", where=str(path), remedy=AGAIN) from None
    if len(saves) > 1:
        raise ModelError("the shards come from different saves.", where=str(folder), remedy=AGAIN)
    lost = [name for name in expected or () if name not in state]
    if lost:
        raise ModelError(f"names {lost[0]!r}, which its file does not hold.", where=str(index), remedy=AGAIN)
    return state


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name


def load_into(module: nn.Module, folder: str | Path, stem: str = "model") -> None:
    """``load_weights`` into a module, which must have exactly these tensors in these shapes.

    Raises:
        ModelError: as ``load_weights``, or they do not fit; the message names the first tensor that does not.
    """
    state, wanted = load_weights(folder, stem), module.state_dict()
    where = str(Path(folder) / f"{stem}.safetensors")
    remedy = f"The weights belong to another configuration or version. {AGAIN}"
    for name, tensor in wanted.items():
        if name not in state:
            raise ModelError(f"the tensor {name!r} is missing.", where=where, remedy=remedy)
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, not {list(tensor.shape)}"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=where, remedy=remedy)
    unknown = [name for name in state if name not in wanted]
    if unknown:
        raise ModelError(f"the tensor {unknown[0]!r} has no place in this model.", where=where, remedy=remedy)
    module.load_state_dict(state)
