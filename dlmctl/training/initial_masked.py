"""Initial weights of a masked or uniform model from another one, possibly shallower and with another vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_matching import RowMatch, matched_words, start_like_similar
from dlmctl.training.weight_copying import Blocks, copy_weights, refuse_other_settings, repetitions

BLOCKS = Blocks("model.layers.", ("o_proj", "down_proj"))
WORDS, TAGS = "model.embed_tokens.weight", "tag_embed.weight"
_FIXED_SIZES = ("hidden", "heads", "inner", "rope_base", "norm_eps")


def start_masked_from(model: MaskedLM, tokenizer: Tokenizer, source: Pretrained) -> None:
    """Copy the weights of ``source`` into ``model``.

    Words are matched by spelling; a new word starts as the mean of the known words that end like it, or at random if
    there are none. Tags are matched by name; if ``source`` takes none, they have no effect at first. For a deeper
    network see ``copy_weights``.

    Raises:
        ModelError: ``source`` is not a masked or uniform model of dlmctl, or the two differ in something other than
            vocabulary, tags and depth.
    """
    original = source.model
    if not isinstance(original, MaskedLM):
        what = "is not a masked or uniform model that dlmctl trained, and only such a one can be continued here."
        raise ModelError(what, where=str(source.folder))
    refuse_other_settings(_fixed_settings(model.config), _fixed_settings(original.config), source.folder)
    times = repetitions(model.config.denoiser.layers, original.config.denoiser.layers, source.folder)
    words = matched_words(tokenizer, source.tokenizer)
    state, weights = model.state_dict(), original.state_dict()
    rows = {WORDS: _with_mask(words, model, original)}
    if TAGS in state and TAGS not in weights:
        state.pop(TAGS).zero_()
    elif TAGS in state:
        ours, theirs = ([None, *network.config.tags] for network in (model, original))
        rows[TAGS] = RowMatch.of_names(ours, theirs)
    copy_weights(state, weights, BLOCKS, times=times, rows=rows, where=source.folder)
    start_like_similar(state[WORDS], tokenizer, words.ours)


def _fixed_settings(config: MaskedConfig) -> dict[str, Any]:
    sizes = config.denoiser.model_dump(include=set(_FIXED_SIZES))
    return {"family": config.family, **{f"denoiser.{name}": value for name, value in sizes.items()}}


def _with_mask(words: RowMatch, ours: MaskedLM, theirs: MaskedLM) -> RowMatch:
    """The rows of matching words and of MASK."""
    return RowMatch(_appended(words.ours, ours.mask_id), _appended(words.theirs, theirs.mask_id))


def _appended(ids: Tensor, index: int) -> Tensor:
    return torch.cat([ids, torch.tensor([index])])
