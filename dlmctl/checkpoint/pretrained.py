"""Models on disk: a folder with ``config.json``, the weights as safetensors shards, and the tokeniser.

Nothing is ever read with pickle. What else lies in a model's folder (``controls/``, ``scorer/``, ``README.md``)
is left alone when the model is saved again.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dlmctl.checkpoint import original, vendors
from dlmctl.checkpoint.digests import DIGESTS, check_digests, folder_digests
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.weights import AGAIN, MAX_SHARD_BYTES, load_into, staged, without_memory, write_shards
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.diffusion.uniform import UniformConfig, UniformLM
from dlmctl.errors import DataError, ModelError, first_fault
from dlmctl.text.files import read_object
from dlmctl.text.tokenizer import Tokenizer, load_tokenizer

# 2: with digests of the files.
FORMAT = 2
FORMAT_KEY = "dlmctl_format"
# What the configuration of a family is; without a name it has latents.
CONFIGS: dict[str, type[MaskedConfig]] = {"masked": MaskedConfig, "uniform": UniformConfig}
# Of a model with a source, the folder of its words.
SOURCE = "source"


@dataclass(frozen=True)
class Pretrained:
    """A model ready for use, in evaluation mode: float32 weights, of checkpoints of others as they are stored.

    Attributes:
        folder: where it was loaded from; weights of controls lie in ``folder / "controls" / NAME``.
        source_tokenizer: the words of the sources, where the model takes a source.
    """

    model: DiffusionLM | MaskedModel
    tokenizer: Tokenizer
    folder: Path
    source_tokenizer: Tokenizer | None = None

    @property
    def latent(self) -> DiffusionLM:
        """The model, for what only latents have.

        Raises:
            ModelError: it is a masked one.
        """
        if isinstance(self.model, DiffusionLM):
            return self.model
        raise ModelError("is a masked model, and this needs one with latents.", where=str(self.folder))

    @property
    def masked(self) -> MaskedModel:
        """The model, for what only masked ones have.

        Raises:
            ModelError: it is one with latents.
        """
        if isinstance(self.model, MaskedModel):
            return self.model
        raise ModelError("is a model with latents, and this needs a masked one.", where=str(self.folder))


@torch.inference_mode(mode=False)  # weights made in that mode could never guide
def from_pretrained(source: str | Path, device: str | torch.device = "cpu") -> Pretrained:
    """Load a model by folder, bundled name or hub name; see ``resolve``.

    A folder of the original Diffusion-LM is read too (``dlmctl.checkpoint.original``), and so are checkpoints of LLaDA,
    Dream and others as their authors publish them (``dlmctl.checkpoint.vendors``).

    Raises:
        ModelError: there is no such model, or a file of it is missing, damaged, too new or not the one that was saved.
    """
    folder = resolve(source)
    if not os.path.lexists(folder / "config.json"):
        model, tokenizer = original.load_original(folder)
        return Pretrained(model.to(device), tokenizer, folder)
    settings = read_object(folder / "config.json", remedy=AGAIN)
    if FORMAT_KEY not in settings and vendors.is_vendor(settings):
        theirs, pieces = vendors.load_vendor(folder, settings)
        return Pretrained(theirs.to(device), pieces, folder)
    config, digests = _read_config(folder / "config.json", settings)
    if isinstance(config, MaskedConfig):
        with without_memory():
            masked = UniformLM(config) if isinstance(config, UniformConfig) else MaskedLM(config)
        load_into(masked, folder)
        check_digests(folder, digests, "config.json")
        return Pretrained(masked.to(device).eval(), _read_words(folder, config.vocab_size), folder)
    words = _read_words(folder, config.vocab_size)
    source_words = _read_words(folder / SOURCE, config.source_vocab_size) if config.source is not None else None
    with without_memory():  # whatever sizes config.json claims
        model = DiffusionLM(config)
    load_into(model, folder)
    check_digests(folder, digests, "config.json")
    return Pretrained(model.to(device).eval(), words, folder, source_words)


def _read_words(folder: Path, size: int) -> Tokenizer:
    try:
        words = load_tokenizer(folder)
    except DataError as error:
        raise ModelError(error.what, where=str(folder / "vocab.json"), remedy=AGAIN) from None
    if len(words) != size:
        raise ModelError(
            f"the tokeniser has {len(words)} entries, config.json says {size}.", where=str(folder), remedy=AGAIN
        )
    return words


def _read_config(path: Path, settings: dict[str, Any]) -> tuple[ModelConfig | MaskedConfig, Any]:
    """The configuration that a file holds, and the digests of the files beside it if it has any."""
    digests = settings.pop(DIGESTS, None)
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
        kind = CONFIGS.get(str(settings.get("family")), ModelConfig)
        return kind.model_validate(settings), digests
    except ValidationError as error:
        raise ModelError(first_fault(error), where=str(path), remedy=AGAIN) from None


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
    with staged(folder) as staging:
        tokenizer.save(staging)
        if source_tokenizer is not None:
            (staging / SOURCE).mkdir()
            source_tokenizer.save(staging / SOURCE)
        write_shards(model.state_dict(), staging, "model", dtype, max_shard_bytes)
        digests = folder_digests(staging, (path for path in staging.rglob("*") if path.is_file()))
        config = {FORMAT_KEY: FORMAT, **model.config.model_dump(mode="json"), DIGESTS: digests}
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        words, pieces = (staging / "vocab.json").exists(), (staging / "tokenizer").exists()
    if not pieces:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    if not words:
        (folder / "vocab.json").unlink(missing_ok=True)
