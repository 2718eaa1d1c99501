"""Initial weights from another model: ours, possibly shallower and with another vocabulary, or a BERT encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from dlmctl.checkpoint import bert
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.torch_files import read_torch_weights
from dlmctl.checkpoint.weights import load_weights
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.errors import ModelError
from dlmctl.models.transformer import TransformerConfig
from dlmctl.text.files import read_object
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_matching import matched_words
from dlmctl.training.weight_copying import Blocks, copy_weights, refuse_other_settings, repetitions

BLOCKS = Blocks("denoiser.encoder.blocks.", ("attention_out", "mlp_out"))
_FIXED = ("architecture", "embed_dim", "length", "objective", "prediction", "self_conditioning", "schedule")
_FREE = ("layers", "feedforward", "dropout", "checkpointing")  # whether an MLP fits is checked by shape
# Tensors of labels and sources. They start anew, and a model that gains them computes the same function at first.
_CONDITIONING = ("conditioner.", ".cross.")


def initialise(model: DiffusionLM, tokenizer: Tokenizer, init: str) -> None:
    """Initialise ``model`` from the model that the setting ``init`` names: ``start_from`` or ``start_from_bert``.

    Args:
        init: a model in any form that ``dlmctl.checkpoint.resolve.resolve`` accepts, or the folder or hub name of a
            Hugging Face BERT.

    Raises:
        ModelError: there is no such model, or it does not fit.
    """
    folder = resolve(init)
    config = folder / "config.json"
    if config.is_file() and read_object(config).get("model_type") == "bert":
        start_from_bert(model, folder)
    else:
        start_from(model, tokenizer, from_pretrained(folder))


def start_from(model: DiffusionLM, tokenizer: Tokenizer, source: Pretrained) -> None:
    """Copy the weights of ``source`` into ``model``; words that ``source`` lacks keep their random initialisation.

    Words are matched by spelling. Tensors that condition on labels and sources start anew. For a deeper transformer
    see ``copy_weights``.

    Raises:
        ModelError: the two differ in something other than vocabulary and depth, or the depths do not fit.
    """
    ours, theirs = _fixed_settings(model.config), _fixed_settings(source.latent.config)
    refuse_other_settings(ours, theirs, source.folder)
    words = matched_words(tokenizer, source.tokenizer)
    copied = {
        name: tensor for name, tensor in model.state_dict().items() if not any(part in name for part in _CONDITIONING)
    }
    copy_weights(
        copied,
        source.model.state_dict(),
        BLOCKS,
        times=_repetitions(model.config.denoiser, source.latent.config.denoiser, source),
        rows=dict.fromkeys(_word_tensors(model), words),
        where=source.folder,
    )


def start_from_bert(model: DiffusionLM, folder: Path) -> None:
    """Copy the weights of a BERT encoder into the blocks of ``model``; all else keeps its random initialisation.

    This is ``init_pretrained`` of Diffusion-LM: BERT's position and word embeddings are not copied.

    Args:
        folder: of a ``BertModel``, or of a model that contains one: ``config.json``, and ``model.safetensors`` or
            ``pytorch_model.bin``.

    Raises:
        ModelError: the model is not a transformer in BERT's order or has other sizes, or a file is missing or damaged.
    """
    config, path = model.config.denoiser, folder / "config.json"
    if not isinstance(config, TransformerConfig) or config.norm_first:
        raise ModelError(
            "a BERT can initialise only a transformer in BERT's own order.",
            where=str(folder),
            remedy="Set model.architecture to transformer and model.denoiser.norm_first to false.",
        )
    bert_config = read_object(path)
    for key, expected in {**bert.FIXED, **bert.sizes(config)}.items():
        if bert_config.get(key, bert.FIXED.get(key)) != expected:
            raise ModelError(
                f"{key} is {bert_config.get(key)!r} there and {expected!r} in this configuration.", where=str(path)
            )
    binary = folder / "pytorch_model.bin"
    use_binary = binary.is_file() and not any(folder.glob("model*.safetensors*"))
    weights = read_torch_weights(binary) if use_binary else load_weights(folder)
    prefix = "bert." if any(name.startswith("bert.encoder.") for name in weights) else ""
    state = model.state_dict()
    for ours, theirs in bert.encoder_tensors(config.layers, f"{prefix}encoder.").items():
        missing = [name for name in theirs if name not in weights]
        if missing:
            raise ModelError(f"the tensor {missing[0]!r} is missing.", where=str(folder))
        value = torch.cat([weights[name] for name in theirs])
        if value.shape != state[ours].shape:
            shapes = f"{list(value.shape)}, not {list(state[ours].shape)}"
            raise ModelError(f"the tensor for {ours} has the shape {shapes}.", where=str(folder))
        state[ours].copy_(value)


def _fixed_settings(config: ModelConfig) -> dict[str, Any]:
    """The settings that two models must share for the weights of one to fit the other."""
    model = config.model_dump(include=set(_FIXED))
    return {**model, **{f"denoiser.{name}": value for name, value in config.denoiser if name not in _FREE}}


def _repetitions(ours: object, theirs: object, source: Pretrained) -> int:
    """How often each block of ``source`` is copied; 1 for architectures that cannot grow."""
    if not (isinstance(ours, TransformerConfig) and isinstance(theirs, TransformerConfig)):
        return 1
    times = repetitions(ours.layers, theirs.layers, source.folder)
    if times > 1 and not ours.norm_first:
        message = "only a model with norm_first can be made deeper: after a sublayer's norm, zero is not the identity."
        raise ModelError(message, where=str(source.folder))
    return times


def _word_tensors(model: DiffusionLM) -> set[str]:
    """Names of the tensors with one row per word."""
    names = {"embedding.weight", "rounding_bias"}
    if model.predicts_words:
        head = f"denoiser.output.{len(cast('nn.Sequential', model.denoiser.output)) - 1}"
        names |= {f"{head}.weight", f"{head}.bias"}
    return names
