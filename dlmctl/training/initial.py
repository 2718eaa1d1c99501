"""Where a training run starts when not at random weights: another model, perhaps shallower or of another vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.checkpoint import Pretrained
from dlmctl.diffusion import DiffusionLM
from dlmctl.errors import ModelError
from dlmctl.tokenizer import Tokenizer

_BLOCKS = "denoiser.encoder.blocks."
_RESIDUAL_OUTPUTS = ("attention_out", "mlp_out")
# Of labels and sources; a model that begins with them is at first the function that it is without them.
_CONDITIONING = ("conditioner.", ".cross.")


def start_from(model: DiffusionLM, tokenizer: Tokenizer, source: Pretrained) -> None:
    """Give ``model`` the weights of ``source``; what ``source`` lacks keeps its random start.

    Words are matched by spelling. What conditions on labels and sources starts anew. A model with k times the blocks
    takes each block k times, the copies with residual outputs of zero, so that it begins as the function that
    ``source`` is and learns from there (depth growth that preserves the function: Chen, Goodfellow and Shlens 2016).

    Raises:
        ModelError: the two differ in something other than vocabulary and depth, or the depths do not fit.
    """
    ours, theirs = model.config, source.model.config
    for name in ("embed_dim", "length", "architecture", "objective", "prediction", "self_conditioning", "schedule"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ModelError(
                f"{name} is {getattr(theirs, name)!r} there and {getattr(ours, name)!r} in this configuration.",
                where=str(source.folder),
                remedy="Give the new model the same.",
            )
    times = _repetitions(ours.denoiser.layers, theirs.denoiser.layers, ours.denoiser.norm_first, source)
    rows = _matched_words(tokenizer, source.tokenizer)
    state, given = model.state_dict(), source.model.state_dict()
    for name, tensor in state.items():
        if any(part in name for part in _CONDITIONING):
            continue
        origin, copy = _origin(name, times)
        if origin not in given:
            raise ModelError(f"has no tensor {origin!r}.", where=str(source.folder))
        value = given[origin]
        if copy and any(f".{output}." in name for output in _RESIDUAL_OUTPUTS):
            tensor.zero_()
        elif value.shape == tensor.shape and not _is_by_word(value, theirs.vocab_size):
            tensor.copy_(value)
        elif _is_by_word(value, theirs.vocab_size) and value.shape[1:] == tensor.shape[1:]:
            tensor[rows[0]] = value[rows[1]]
        else:
            shapes = f"{list(value.shape)} there and {list(tensor.shape)} here"
            raise ModelError(f"the tensor {name!r} has the shape {shapes}.", where=str(source.folder))


def _repetitions(layers: int, given: int, norm_first: bool, source: Pretrained) -> int:
    if layers % given:
        what = f"has {given} blocks, of which {layers} are no multiple."
        raise ModelError(what, where=str(source.folder), remedy=f"Take denoiser.layers = {2 * given}, say.")
    if layers > given and not norm_first:
        what = "only a model with norm_first can be made deeper: after a sublayer's norm, zero is no identity."
        raise ModelError(what, where=str(source.folder))
    return layers // given


def _matched_words(ours: Tokenizer, theirs: Tokenizer) -> tuple[Tensor, Tensor]:
    """Ids of the words that both vocabularies have, in ours and in theirs."""
    spelled = {name: number for number, name in enumerate(_names(theirs))}
    pairs = [(number, spelled[name]) for number, name in enumerate(_names(ours)) if name in spelled]
    return torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])


def _names(tokenizer: Tokenizer) -> list[object]:
    """What each id stands for; a structure token is itself, not the word that is spelled like it."""
    structure = {getattr(tokenizer, f"{kind}_id"): kind for kind in ("start", "end", "unk", "pad")}
    return [(structure[i],) if i in structure else tokenizer.words([i])[0] for i in range(len(tokenizer))]


def _is_by_word(tensor: Tensor, vocab_size: int) -> bool:
    return tensor.shape[0] == vocab_size


def _origin(name: str, times: int) -> tuple[str, int]:
    """The tensor of the shallower model for one of the deeper, and the how-manieth copy of its block it is."""
    if not name.startswith(_BLOCKS):
        return name, 0
    number, rest = name.removeprefix(_BLOCKS).split(".", 1)
    return f"{_BLOCKS}{int(number) // times}.{rest}", int(number) % times
