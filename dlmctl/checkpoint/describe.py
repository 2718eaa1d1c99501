"""A description of a model folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from dlmctl.checkpoint.control_weights import ACCEPTABILITY, acceptability_folder
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.checkpoint.reader import name_of_reader, named_reader
from dlmctl.checkpoint.resolve import SCORER, resolve
from dlmctl.checkpoint.scorer import scorer_sizes
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.masked import MaskedConfig
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError
from dlmctl.text.files import read_text
from dlmctl.text.tokenizer import unit_of


def describe(source: str) -> tuple[dict[str, str], str]:
    """Facts about a model by name, and the text of its card (empty if it has none).

    Raises:
        ModelError: there is no such model or it is damaged.
    """
    folder = resolve(source)
    pretrained = from_pretrained(source)
    model, config = pretrained.model, pretrained.model.config
    trained = {path.name for path in (folder / "controls").glob("*") if path.is_dir()}
    disk_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts = {
        "folder": str(folder),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "on disk": f"{disk_bytes / 2**20:.1f} MiB with controls and scorer",
        "vocabulary": f"{config.vocab_size:,} {unit_of(pretrained.tokenizer)}s",
        "length": f"{config.length} positions",
        **_family(model),
        "controls": ", ".join(sorted(trained - {ACCEPTABILITY})) or "none",
        "scorer": _scorer(folder / SCORER / "config.json"),
        "acceptability": _acceptability(pretrained),
    }
    card = folder / "README.md"
    return facts, read_text(card) if os.path.lexists(card) else ""


def _acceptability(pretrained: Pretrained) -> str:
    if acceptability_folder(pretrained.folder, pretrained.model) is None:
        return "not learned"
    try:
        reader = named_reader(pretrained)
    except ModelError as error:
        return str(error)
    return "learned from readers' verdicts" if reader is None else f"texts are read by {name_of_reader(reader)}"


def _family(model: DiffusionLM | MaskedModel) -> dict[str, str]:
    if isinstance(model, DiffusionLM):
        return _latent(model.config)
    if isinstance(model, CanvasLM):
        sampler = f"{model.canvas.steps} steps at most, the most certain tokens accepted at each"
        return {"family": f"uniform: a checkpoint of {model.config.kind}", "sampler": sampler}
    return _tokens(model) if isinstance(model, TokenLM) else _masked(cast("MaskedConfig", model.config))


def _tokens(model: TokenLM) -> dict[str, str]:
    config = model.config
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()}
    attention = "full attention" if config.block is None else f"attention by blocks of {config.block}"
    noise = "uniform" if model.family == "uniform" else "masked"
    return {
        "family": f"{noise}: a checkpoint of {config.kind}, run with {attention}",
        "lengths": "chosen by the model" if config.ends else "chosen before a text is drawn",
        "predicts": f"the token of {'its own' if config.predicts == 'same' else 'the next'} position",
        "MASK": f"token {config.mask_id}",
        "sampler": config.sampler + (", as used by its authors" if config.ends else ""),
        "weights": f"{', '.join(sorted(dtypes))}, {sum(p.nbytes for p in model.parameters()) / 2**30:.2f} GiB",
    }


def _latent(config: ModelConfig) -> dict[str, str]:
    return {
        "family": "gaussian: latents over word embeddings",
        "denoiser": f"{config.architecture}, {config.denoiser.summary()}",
        "latent": f"{config.embed_dim} dimensions, {config.schedule} schedule",
        "objective": config.objective + (" with self-conditioning" if config.self_conditioning else ""),
        "label": f"{config.label.field}: {', '.join(config.labels)}" if config.label else "none",
        "source": ", ".join(config.source.fields) if config.source else "none",
    }


def _masked(config: MaskedConfig) -> dict[str, str]:
    return {
        "family": "uniform: words among random words" if config.family == "uniform" else "masked: words behind masks",
        "denoiser": config.denoiser.summary(),
        "lengths": "drawn like those of the training text" if config.lengths == "data" else "chosen by the model",
        "labels of words": ", ".join(config.tags) or "none",
    }


def _scorer(config: Path) -> str:
    if not config.exists():
        return "none"
    try:
        sizes = scorer_sizes(config.parent)
    except ModelError as error:
        return f"damaged: {error}"
    return f"GPT-2 architecture, {sizes['n_layer']} layers of width {sizes['n_embd']}"
