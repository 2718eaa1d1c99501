"""Latents of words, for controls that judge word by word, of models whose tokens are parts of words."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.state import ControlState
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.tokens import word_spans


def looks(vocabulary: Tokenizer) -> bool:
    """Whether ``word_latents`` looks at the words of the text; as of ``Prepared``."""
    return isinstance(vocabulary, HuggingFaceTokenizer)


def word_latents(state: ControlState) -> Tensor:
    """The latents ``[B, L, D]`` of a state, those of each word in one place: as they are where tokens are words, else
    pooled over the tokens of the words that are likeliest now, whose bounds are read anew whenever this is asked."""
    if not isinstance(state.vocabulary, HuggingFaceTokenizer):
        return state.x
    return pooled(state.x, state.word_log_probs.detach().argmax(-1), state.vocabulary, state.embeddings)


def pooled(x: Tensor, ids: Tensor, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """Latents ``[B, L, D]`` of tokens to those of START, the words, END, and PAD in as many places; words are left.

    Each word has the mean over its tokens; a token with parts of two words counts in both.

    Args:
        ids: of the tokens ``[B, L]``, which say where words begin.
        embeddings: ``[V, D]``.
    """
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return x
    length, weights = x.shape[1], torch.zeros(*x.shape[:2], x.shape[1])
    is_end, is_pad = torch.zeros(x.shape[:2], dtype=torch.bool), torch.ones(x.shape[:2], dtype=torch.bool)
    for row, tokens in enumerate(ids.tolist()):
        end = next((at for at, token in enumerate(tokens) if at and token == tokenizer.end_id), length)
        strings = [None, *(tokenizer.strings[token] for token in tokens[1:end])]
        spans = word_spans(strings)[: length - 1]
        weights[row, 0, 0] = 1.0
        for word, (first, behind) in enumerate(spans, start=1):
            weights[row, word, first:behind] = 1 / (behind - first)
        is_pad[row, : len(spans) + 2] = False
        is_end[row, len(spans) + 1 : len(spans) + 2] = True
    found = weights.to(x) @ x
    for place, token in ((is_end, tokenizer.end_id), (is_pad, tokenizer.pad_id)):
        found = torch.where(place[..., None].to(x.device), embeddings[token].to(x), found)
    return found
