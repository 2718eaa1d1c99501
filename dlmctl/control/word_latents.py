"""Latents of whole words, for controls that judge word by word on models whose tokens are parts of words."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.state import ControlState
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.tokens import word_spans


def reads_words(vocabulary: Tokenizer) -> bool:
    """Whether ``word_latents`` reads the words of the text, for ``Prepared.looks``."""
    return isinstance(vocabulary, HuggingFaceTokenizer)


def word_latents(state: ControlState) -> Tensor:
    """The latents ``[B, L, D]`` of a state with one position per word: unchanged if tokens are words, else pooled over
    the tokens of the currently likeliest words, whose boundaries are read anew at every call."""
    if not isinstance(state.vocabulary, HuggingFaceTokenizer):
        return state.x
    return pool_words(state.x, state.word_log_probs.detach().argmax(-1), state.vocabulary, state.embeddings)


def pool_words(x: Tensor, ids: Tensor, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """Pool latents ``[B, L, D]`` of tokens to those of START, the words, END, and PAD for the remaining positions.

    Each word has the mean over its tokens; a token with parts of two words counts in both. Latents are unchanged if
    tokens are words.

    Args:
        ids: token ids ``[B, L]``, which determine where words begin.
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
        for word, (start, stop) in enumerate(spans, start=1):
            weights[row, word, start:stop] = 1 / (stop - start)
        is_pad[row, : len(spans) + 2] = False
        is_end[row, len(spans) + 1 : len(spans) + 2] = True
    latents = weights.to(x) @ x
    for mask, token in ((is_end, tokenizer.end_id), (is_pad, tokenizer.pad_id)):
        latents = torch.where(mask[..., None].to(x.device), embeddings[token].to(x), latents)
    return latents
