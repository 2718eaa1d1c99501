"""Surprisal: how unexpected each word of a text is after the words before it, -log p in nats (Hale 2001, Levy 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.annotators.causal import CausalLM
from dlmctl.annotators.reader import Reader
from dlmctl.annotators.scorer import token_nats
from dlmctl.text.spelling import spans_in_text
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer

Texts = Sequence[Sequence[str]]


def surprisals(reader: Reader, texts: Texts, written: Sequence[str]) -> list[list[float | None]]:
    """The surprisal of each word of each text; None where the reader does not know the word, or cannot read so far.

    With tokens that are pieces of words, a word has the sum of its tokens.

    Args:
        texts: as words; written: as a reader sees them.
    """
    if isinstance(reader, CausalLM):
        return _by_causal_model(reader, texts, written)
    scorer, tokenizer = reader
    rows = token_nats(scorer, tokenizer, texts, cut=True)
    return [_by_scorer(tokenizer, words, nats) for words, nats in zip(texts, rows, strict=True)]


def _by_scorer(tokenizer: Tokenizer, words: Sequence[str], nats: Sequence[float]) -> list[float | None]:
    """From the nats of a text's tokens and of END, or of fewer tokens if the scorer cannot read so far."""
    tokens = tokenizer.encode(words)[1:-1]
    read = [*nats, *[None] * len(tokens)]
    known = [None if token == tokenizer.unk_id else value for token, value in zip(tokens, read, strict=False)]
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return known
    text = tokenizer.text(words)
    return _summed(words, text, _offsets(tokenizer.inner, text), known)


def _by_causal_model(reader: CausalLM, texts: Texts, written: Sequence[str]) -> list[list[float | None]]:
    # Without a start token there is no probability of the first one.
    first: list[float | None] = [] if reader.start is not None else [None]
    read: list[list[float | None]] = []
    for words, text, nats in zip(texts, written, reader.token_nats(written, cut=True), strict=True):
        offsets = _offsets(reader.tokenizer, text)
        read.append(_summed(words, text, offsets, [*first, *nats, *[None] * len(offsets)][: len(offsets)]))
    return read


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """The characters of a text at which each of its tokens begins, and ends before."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoding["offset_mapping"])


def _summed(
    words: Sequence[str], text: str, offsets: Sequence[tuple[int, int]], nats: Sequence[float | None]
) -> list[float | None]:
    """The sum of the nats of each word's tokens; None if one of them is unknown, or the word is not in the text."""
    sums: list[float | None] = []
    for start, after in (span or (0, 0) for span in spans_in_text(words, text)):
        # A token with the space before it belongs to the word that it ends in.
        own = [value for (_, end), value in zip(offsets, nats, strict=True) if start < end <= after]
        sums.append(None if not own or None in own else sum(value for value in own if value is not None))
    return sums
