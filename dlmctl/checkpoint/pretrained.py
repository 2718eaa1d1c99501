"""Models on disk: a folder with ``config.json``, the weights as safetensors shards, and the tokeniser.

Nothing is ever read with pickle. Other contents of a model's folder (``controls/``, ``scorer/``, ``README.md``) are
left alone when the model is saved again.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError

from dlmctl.checkpoint import original, vendors
from dlmctl.checkpoint.digests import DIGESTS, check_digests, folder_digests
from dlmctl.checkpoint.kinds import vendor_kind
from dlmctl.checkpoint.resolve import SCORER, resolve
from dlmctl.checkpoint.scorer import scorer_folder
from dlmctl.checkpoint.weights import MAX_SHARD_BYTES, SAVE_AGAIN, load_into, staged, without_memory, write_shards
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.diffusion.uniform import UniformConfig, UniformLM
from dlmctl.errors import DataError, ModelError, first_validation_error
from dlmctl.text.files import read_object
from dlmctl.text.saved_tokenizer import load_tokenizer
from dlmctl.text.tokenizer import Tokenizer

# Format 2 added digests of the files.
FORMAT = 2
FORMAT_KEY = "dlmctl_format"
# Configuration class by family; a configuration without a family is that of a latent model.
CONFIGS: dict[str, type[MaskedConfig]] = {"masked": MaskedConfig, "uniform": UniformConfig}
# The folder of the source tokeniser, for models with a source.
SOURCE = "source"


@dataclass(frozen=True)
class Pretrained:
    """A model ready for use, in evaluation mode. Weights are float32; those of vendor checkpoints are as stored.

    Attributes:
        folder: where it was loaded from; weights of controls are in ``folder / "controls" / NAME``.
        source_tokenizer: the tokeniser of the source, for models conditioned on a source.
        scorer: the folder of what scores its texts, if it is not its own scorer.
    """

    model: DiffusionLM | MaskedModel
    tokenizer: Tokenizer
    folder: Path
    source_tokenizer: Tokenizer | None = None
    scorer: Path | None = None

    @property
    def scorer_folder(self) -> Path:
        """The folder of what scores its texts, whether there is one or not."""
        return self.folder / SCORER if self.scorer is None else self.scorer

    def scored_by(self, source: str | Path) -> Self:
        """The same model, with texts that are scored by a scorer, a model that has one, or a causal language model of
        Hugging Face, in any form that ``resolve`` accepts.

        Raises:
            ModelError: there is no such model.
        """
        return replace(self, scorer=scorer_folder(source))

    @property
    def latent(self) -> DiffusionLM:
        """The model, as a latent model.

        Raises:
            ModelError: it has no latents.
        """
        if isinstance(self.model, DiffusionLM):
            return self.model
        raise ModelError("has no latents, and this needs a model with latents.", where=str(self.folder))

    @property
    def masked(self) -> MaskedModel:
        """The model, as a masked model.

        Raises:
            ModelError: it is a latent model.
        """
        if isinstance(self.model, MaskedModel):
            return self.model
        raise ModelError("is a model with latents, and this needs a masked one.", where=str(self.folder))


@own_modes()
def from_pretrained(source: str | Path, device: str | torch.device = "cpu") -> Pretrained:
    """Load a model by folder, bundled name or hub name; see ``resolve``.

    Folders of the original Diffusion-LM can be read too (``dlmctl.checkpoint.original``), and so can checkpoints of
    LLaDA, Dream and others as published by their authors (``dlmctl.checkpoint.vendors``).

    Raises:
        ModelError: there is no such model, or one of its files is missing, damaged, too new or not the one saved.
    """
    folder = resolve(source)
    if not os.path.lexists(folder / "config.json"):
        original_model, vocabulary = original.load_original(folder)
        return Pretrained(original_model.to(device), vocabulary, folder)
    settings = read_object(folder / "config.json", remedy=SAVE_AGAIN)
    if FORMAT_KEY not in settings and vendor_kind(settings) is not None:
        vendor_model, vendor_tokenizer = vendors.load_vendor(folder, settings)
        return Pretrained(vendor_model.to(device), vendor_tokenizer, folder)
    config, digests = _read_config(folder / "config.json", settings)
    if isinstance(config, MaskedConfig):
        with without_memory():
            masked = UniformLM(config) if isinstance(config, UniformConfig) else MaskedLM(config)
        load_into(masked, folder)
        check_digests(folder, digests, "config.json")
        return Pretrained(masked.to(device).eval(), _read_tokenizer(folder, config.vocab_size), folder)
    tokenizer = _read_tokenizer(folder, config.vocab_size)
    has_source = config.source is not None
    source_tokenizer = _read_tokenizer(folder / SOURCE, config.source_vocab_size) if has_source else None
    with without_memory():  # the sizes in config.json are not trusted yet
        model = DiffusionLM(config)
    load_into(model, folder)
    check_digests(folder, digests, "config.json")
    return Pretrained(model.to(device).eval(), tokenizer, folder, source_tokenizer)


def _read_tokenizer(folder: Path, size: int) -> Tokenizer:
    try:
        tokenizer = load_tokenizer(folder)
    except DataError as error:
        raise ModelError(error.what, where=str(folder / "vocab.json"), remedy=SAVE_AGAIN) from None
    if len(tokenizer) != size:
        raise ModelError(
            f"the tokeniser has {len(tokenizer)} entries, config.json says {size}.",
            where=str(folder),
            remedy=SAVE_AGAIN,
        )
    return tokenizer


def _read_config(path: Path, settings: dict[str, Any]) -> tuple[ModelConfig | MaskedConfig, Any]:
    """The configuration in a file, and its digests of the other files if it has any."""
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
        raise ModelError(first_validation_error(error), where=str(path), remedy=SAVE_AGAIN) from None


def save_pretrained(
    model: DiffusionLM | MaskedLM,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    source_tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model and its tokeniser, and the tokeniser of its source if it has one.

    All files are written to a staging folder first and then moved into place, so a full disk or a kill while writing
    leaves an existing model intact.

    Args:
        folder: created if missing; files in it that are not part of the model stay.
        dtype: dtype of the stored weights, e.g. ``torch.float16`` for files of half the size; unchanged by default.
        max_shard_bytes: maximum bytes of tensors in one file; a larger tensor gets its own file.

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
        has_vocab, has_tokenizer = (staging / "vocab.json").exists(), (staging / "tokenizer").exists()
    if not has_tokenizer:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    if not has_vocab:
        (folder / "vocab.json").unlink(missing_ok=True)
