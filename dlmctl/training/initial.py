"""Initial weights from another model: ours, possibly shallower and with another vocabulary, or a BERT encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

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

_BLOCKS = "denoiser.encoder.blocks."
_FIXED = ("architecture", "embed_dim", "length", "objective", "prediction", "self_conditioning", "schedule")
_FREE = ("layers", "feedforward", "dropout", "checkpointing")  # whether an MLP fits is checked by shape
_RESIDUAL_OUTPUTS = ("attention_out", "mlp_out")
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

    Words are matched by spelling. Tensors that condition on labels and sources start anew. A transformer with k times
    the blocks receives each block k times, the copies with residual outputs of zero, so that it starts as the same
    function as ``source`` (function-preserving depth growth: Chen, Goodfellow and Shlens 2016).

    Raises:
        ModelError: the two differ in something other than vocabulary and depth, or the depths do not fit.
    """
    _refuse_other_settings(model.config, source)
    times = _repetitions(model.config.denoiser, source.latent.config.denoiser, source)
    target_ids, source_ids = _matched_words(tokenizer, source.tokenizer)
    word_tensors = _word_tensors(model)
    target_state, source_state = model.state_dict(), source.model.state_dict()
    for name, tensor in target_state.items():
        if any(part in name for part in _CONDITIONING):
            continue
        origin, copy = _origin(name, times)
        if origin not in source_state:
            raise ModelError(f"has no tensor {origin!r}.", where=str(source.folder))
        value = source_state[origin]
        start = 1 if name in word_tensors else 0
        if value.shape[start:] != tensor.shape[start:]:
            shapes = f"{list(value.shape)} there and {list(tensor.shape)} here"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=str(source.folder))
        if copy and any(f".{output}." in name for output in _RESIDUAL_OUTPUTS):
            tensor.zero_()
        elif name in word_tensors:
            tensor[target_ids] = value[source_ids]
        else:
            tensor.copy_(value)


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


def _refuse_other_settings(config: ModelConfig, source: Pretrained) -> None:
    ours, theirs = _fixed_settings(config), _fixed_settings(source.latent.config)
    for name in ours:
        if ours[name] != theirs[name]:
            raise ModelError(
                f"{name} is {theirs[name]!r} there and {ours[name]!r} in this configuration.",
                where=str(source.folder),
                remedy="Set the new model's to the same value.",
            )


def _fixed_settings(config: ModelConfig) -> dict[str, Any]:
    """The settings that two models must share for the weights of one to fit the other."""
    model = config.model_dump(include=set(_FIXED))
    return {**model, **{f"denoiser.{name}": value for name, value in config.denoiser if name not in _FREE}}


def _repetitions(ours: object, theirs: object, source: Pretrained) -> int:
    """How often each block of ``source`` is copied; 1 for architectures that cannot grow."""
    if not (isinstance(ours, TransformerConfig) and isinstance(theirs, TransformerConfig)):
        return 1
    if ours.layers % theirs.layers:
        message = f"has {theirs.layers} blocks, and {ours.layers} is not a multiple of that."
        remedy = f"Set denoiser.layers = {2 * theirs.layers}, for example."
        raise ModelError(message, where=str(source.folder), remedy=remedy)
    if ours.layers > theirs.layers and not ours.norm_first:
        message = "only a model with norm_first can be made deeper: after a sublayer's norm, zero is not the identity."
        raise ModelError(message, where=str(source.folder))
    return ours.layers // theirs.layers


def _word_tensors(model: DiffusionLM) -> set[str]:
    """Names of the tensors with one row per word."""
    names = {"embedding.weight", "rounding_bias"}
    if model.predicts_words:
        head = f"denoiser.output.{len(cast('nn.Sequential', model.denoiser.output)) - 1}"
        names |= {f"{head}.weight", f"{head}.bias"}
    return names


def _matched_words(ours: Tokenizer, theirs: Tokenizer) -> tuple[Tensor, Tensor]:
    """Ids of the shared words, in our vocabulary and in theirs."""
    their_ids = {name: number for number, name in enumerate(_names(theirs))}
    pairs = [(number, their_ids[name]) for number, name in enumerate(_names(ours)) if name in their_ids]
    return torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])


def _names(tokenizer: Tokenizer) -> list[object]:
    """A key for each id: its spelling; special tokens have keys that differ from words spelled like them."""
    special = {getattr(tokenizer, f"{kind}_id"): kind for kind in ("start", "end", "unk", "pad")}
    return [(special[i],) if i in special else tokenizer.token(i) for i in range(len(tokenizer))]


def _origin(name: str, times: int) -> tuple[str, int]:
    """The tensor of the shallower model for one of the deeper, and the index of the copy of its block."""
    if not name.startswith(_BLOCKS):
        return name, 0
    number, rest = name.removeprefix(_BLOCKS).split(".", 1)
    return f"{_BLOCKS}{int(number) // times}.{rest}", int(number) % times
