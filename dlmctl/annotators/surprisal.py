"""Surprisal: how unexpected each word of a text is after the words before it, -log p in nats (Hale 2001, Levy 2008)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dlmctl.annotators.causal import CausalLM, is_causal_model, load_causal
from dlmctl.annotators.scorer import Judge, load_scorer, token_nats
from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.errors import ModelError
from dlmctl.text.spelling import plain

Texts = Sequence[Sequence[str]]


def load_reader(source: str) -> Judge | CausalLM:
    """A scorer by its folder or that of a model that has one, or any causal language model of Hugging Face by folder or
    hub name.

    Raises:
        ModelError: there is no such model, it cannot be read, or its tokeniser does not tell where tokens are.
    """
    folder = Path(source) if os.path.isdir(source) else bundled_path("models", source)
    if folder is not None and (folder / SCORER).is_dir():
        return load_scorer(folder / SCORER)
    if not is_causal_model(source):
        return load_scorer(Path(source))
    reader = load_causal(source)
    if not reader.tokenizer.is_fast:
        what = "its tokeniser does not tell where in a text a token is."
        raise ModelError(what, where=source, remedy="Take a model with a `tokenizer.json`.")
    return reader


def surprisals(reader: Judge | CausalLM, texts: Texts, written: Sequence[str]) -> list[list[float | None]]:
    """The surprisal of each word of each text; None where the reader does not know the word, or cannot read so far.

    With tokens that are pieces of words, a word has the sum of its tokens.

    Args:
        texts: as words; written: as a reader sees them.
    """
    if isinstance(reader, CausalLM):
        return [_summed(reader, words, text) for words, text in zip(texts, written, strict=True)]
    scorer, tokenizer = reader
    rows = []
    for words, nats in zip(texts, token_nats(scorer, tokenizer, texts, cut=True), strict=True):
        known = [token != tokenizer.unk_id for token in tokenizer.encode(words)[1:-1]]
        read: list[float | None] = [*nats, *[None] * len(words)][: len(words)]
        rows.append([value if is_known else None for value, is_known in zip(read, known, strict=True)])
    return rows


def _summed(reader: CausalLM, words: Sequence[str], text: str) -> list[float | None]:
    offsets = reader.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    (nats,) = reader.token_nats([text], 1, cut=True)
    # Without a start token there is no probability of the first one.
    first: list[float | None] = [] if reader.start is not None else [None]
    of_tokens = [*first, *nats, *[None] * len(offsets)][: len(offsets)]
    sums: list[float | None] = []
    at = 0
    for word in words:
        start = text.find(plain(word), at)
        if start < 0:
            sums.append(None)
            continue
        at = start + len(plain(word))
        # A token with the space before it belongs to the word that it ends in.
        own = [value for (_, end), value in zip(offsets, of_tokens, strict=True) if start < end <= at]
        sums.append(None if not own or None in own else sum(value for value in own if value is not None))
    return sums
