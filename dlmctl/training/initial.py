"""Where a training run starts when not at random weights: a model of ours, perhaps a shallower one of another
vocabulary, or the encoder of a BERT."""

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
_FREE = ("layers", "feedforward", "dropout", "checkpointing")  # shapes tell whether an MLP fits
_RESIDUAL_OUTPUTS = ("attention_out", "mlp_out")
# Of labels and sources; a model that begins with them is at first the function that it is without them.
_CONDITIONING = ("conditioner.", ".cross.")


def initialise(model: DiffusionLM, tokenizer: Tokenizer, init: str) -> None:
    """Give ``model`` the weights that the setting ``init`` names: ``start_from``, or ``start_from_bert``.

    Args:
        init: a model as ``dlmctl.checkpoint.resolve.resolve`` takes it, or the folder or hub name of a Hugging
            Face BERT.

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
    """Give ``model`` the weights of ``source``; words that ``source`` lacks keep their random start.

    Words are matched by spelling. What conditions on labels and sources starts anew. A transformer with k times the
    blocks takes each block k times, the copies with residual outputs of zero, so that it begins as the function that
    ``source`` is and learns from there (depth growth that preserves the function: Chen, Goodfellow and Shlens 2016).

    Raises:
        ModelError: the two differ in something other than vocabulary and depth, or the depths do not fit.
    """
    _refuse_other_settings(model.config, source)
    times = _repetitions(model.config.denoiser, source.latent.config.denoiser, source)
    mine, given_ids = _matched_words(tokenizer, source.tokenizer)
    by_word = _word_tensors(model)
    state, given = model.state_dict(), source.model.state_dict()
    for name, tensor in state.items():
        if any(part in name for part in _CONDITIONING):
            continue
        origin, copy = _origin(name, times)
        if origin not in given:
            raise ModelError(f"has no tensor {origin!r}.", where=str(source.folder))
        value = given[origin]
        start = 1 if name in by_word else 0
        if value.shape[start:] != tensor.shape[start:]:
            shapes = f"{list(value.shape)} there and {list(tensor.shape)} here"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=str(source.folder))
        if copy and any(f".{output}." in name for output in _RESIDUAL_OUTPUTS):
            tensor.zero_()
        elif name in by_word:
            tensor[mine] = value[given_ids]
        else:
            tensor.copy_(value)


def start_from_bert(model: DiffusionLM, folder: Path) -> None:
    """Give the blocks of ``model`` the weights of a BERT encoder; everything around them keeps its random start.

    The ``init_pretrained`` of Diffusion-LM: position and word embeddings of BERT are not taken.

    Args:
        folder: of a ``BertModel`` or a model with one inside: ``config.json``, and ``model.safetensors`` or
            ``pytorch_model.bin``.

    Raises:
        ModelError: the model is no transformer in BERT's order or of other sizes, or a file is missing or damaged.
    """
    config, path = model.config.denoiser, folder / "config.json"
    if not isinstance(config, TransformerConfig) or config.norm_first:
        raise ModelError(
            "a BERT can start only a transformer in BERT's own order.",
            where=str(folder),
            remedy="Set model.architecture to transformer and model.denoiser.norm_first to false.",
        )
    given = read_object(path)
    for key, wanted in {**bert.FIXED, **bert.sizes(config)}.items():
        if given.get(key, bert.FIXED.get(key)) != wanted:
            raise ModelError(
                f"{key} is {given.get(key)!r} there and {wanted!r} in this configuration.", where=str(path)
            )
    binary = folder / "pytorch_model.bin"
    use_binary = binary.is_file() and not any(folder.glob("model*.safetensors*"))
    weights = read_torch_weights(binary) if use_binary else load_weights(folder)
    inside = "bert." if any(name.startswith("bert.encoder.") for name in weights) else ""
    state = model.state_dict()
    for ours, theirs in bert.encoder_tensors(config.layers, f"{inside}encoder.").items():
        lost = [name for name in theirs if name not in weights]
        if lost:
            raise ModelError(f"the tensor {lost[0]!r} is missing.", where=str(folder))
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
                remedy="Give the new model the same.",
            )


def _fixed_settings(config: ModelConfig) -> dict[str, Any]:
    """What two models must have in common for the weights of one to mean the same in the other."""
    model = config.model_dump(include=set(_FIXED))
    return {**model, **{f"denoiser.{name}": value for name, value in config.denoiser if name not in _FREE}}


def _repetitions(ours: object, theirs: object, source: Pretrained) -> int:
    """How often each block of ``source`` is taken; 1 for architectures that do not grow."""
    if not (isinstance(ours, TransformerConfig) and isinstance(theirs, TransformerConfig)):
        return 1
    if ours.layers % theirs.layers:
        what = f"has {theirs.layers} blocks, of which {ours.layers} are no multiple."
        raise ModelError(what, where=str(source.folder), remedy=f"Take denoiser.layers = {2 * theirs.layers}, say.")
    if ours.layers > theirs.layers and not ours.norm_first:
        what = "only a model with norm_first can be made deeper: after a sublayer's norm, zero is no identity."
        raise ModelError(what, where=str(source.folder))
    return ours.layers // theirs.layers


def _word_tensors(model: DiffusionLM) -> set[str]:
    """Names of the tensors with a row for each word."""
    names = {"embedding.weight", "rounding_bias"}
    if model.predicts_words:
        head = f"denoiser.output.{len(cast('nn.Sequential', model.denoiser.output)) - 1}"
        names |= {f"{head}.weight", f"{head}.bias"}
    return names


def _matched_words(ours: Tokenizer, theirs: Tokenizer) -> tuple[Tensor, Tensor]:
    """Ids of the words that both vocabularies have, in ours and in theirs."""
    spelled = {name: number for number, name in enumerate(_names(theirs))}
    pairs = [(number, spelled[name]) for number, name in enumerate(_names(ours)) if name in spelled]
    return torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])


def _names(tokenizer: Tokenizer) -> list[object]:
    """What each id stands for; a special token is itself, not the word that is spelled like it."""
    structure = {getattr(tokenizer, f"{kind}_id"): kind for kind in ("start", "end", "unk", "pad")}
    return [(structure[i],) if i in structure else tokenizer.token(i) for i in range(len(tokenizer))]


def _origin(name: str, times: int) -> tuple[str, int]:
    """The tensor of the shallower model for one of the deeper, and the how-manieth copy of its block it is."""
    if not name.startswith(_BLOCKS):
        return name, 0
    number, rest = name.removeprefix(_BLOCKS).split(".", 1)
    return f"{_BLOCKS}{int(number) // times}.{rest}", int(number) % times
