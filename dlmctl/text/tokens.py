"""The characters behind the tokens of a Hugging Face tokenizer, and which tokens make which word.

Every token stands for a string of bytes that its neighbours do not change, so that a text is these strings in a row,
as UTF-8: of byte-level BPE (GPT-2, LLaDA, Dream) its bytes, of WordPiece (BERT) its letters, with a space before them
where it begins a word, of SentencePiece (Llama, Gemma) its letters with ``▁`` as a space, or one byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from dlmctl.text.spelling import plain, split_words

# What the decoder of WordPiece makes of a token when it is told to clean up.
_CLEANED = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m"}
_CLEANED |= {" 's": "'s", " 've": "'ve", " 're": "'re"}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_strings(inner: Any, size: int) -> list[bytes | None]:
    """The bytes of every token; None for special tokens, which no text has.

    Args:
        size: how many ids there are; some may have no token.
        inner: a tokenizer of ``transformers`` with a backend of ``tokenizers``.
    """
    steps = _steps(_settings(inner.backend_tokenizer.decoder))
    special, added = set(inner.all_special_ids), inner.added_tokens_decoder
    special |= {index for index, token in added.items() if token.special}
    names = inner.convert_ids_to_tokens(list(range(size)))
    return [
        None if name is None or index in special else name.encode() if index in added else _decoded(name, steps)
        for index, name in enumerate(names)
    ]


def _settings(decoder: Any) -> dict[str, Any] | None:
    return None if decoder is None else json.loads(decoder.__getstate__())


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a decoder one by one; without one, tokens are words."""
    if decoder is None:
        return [{"type": "WordPiece", "prefix": "", "cleanup": False}]
    return [step for one in decoder["decoders"] for step in _steps(one)] if "decoders" in decoder else [decoder]


def _decoded(token: str, steps: Sequence[dict[str, Any]]) -> bytes:
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel":
            return _of_byte_signs(token)
        if kind == "ByteFallback" and (found := _BYTE.fullmatch(token)):
            return bytes([int(found[1], 16)])
        if kind == "WordPiece":
            token = _of_word_piece(token, step["prefix"], step["cleanup"])
        elif kind == "Metaspace":
            token = token.replace(step["replacement"], " ")
        elif kind == "BPEDecoder":
            token = token.replace(step["suffix"], " ")
        elif kind == "Replace" and "String" in step["pattern"]:
            token = token.replace(step["pattern"]["String"], step["content"])
    return token.encode()


def _of_word_piece(token: str, prefix: str, cleanup: bool) -> str:
    if prefix and token.startswith(prefix):
        return token.removeprefix(prefix)
    token = f" {token}"
    for spaced, together in _CLEANED.items() if cleanup else ():
        token = token.replace(spaced, together)
    return token


def _of_byte_signs(token: str) -> bytes:
    signs = _byte_signs()
    return bytes(signs[sign] for sign in token) if all(sign in signs for sign in token) else token.encode()


@cache
def _byte_signs() -> dict[str, int]:
    """The byte behind each sign of byte-level BPE (Radford et al. 2019): printable ones are themselves, the others are
    the signs from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + at): byte for at, byte in enumerate(others)}}


def joined(strings: Iterable[bytes | None]) -> str:
    """The text of tokens, without a space before the first word; bytes that are no UTF-8 are ``�``."""
    return b"".join(string for string in strings if string is not None).decode("utf-8", "replace").removeprefix(" ")


def plain_words(text: str) -> list[str]:
    """The words of a text as written, without marks of spacing: the text keeps its own spaces."""
    return [plain(word) for word in split_words(text)]


def word_spans(strings: Sequence[bytes | None]) -> list[tuple[int, int]]:
    """For each word of a text its first token and the one behind its last.

    A token that has parts of two words belongs to both. A text whose words cannot be found in it as they are written,
    such as one with accents apart from their letters, is searched as far as they can.
    """
    whole = b"".join(string or b"" for string in strings)
    text = whole.decode("utf-8", "surrogateescape")
    owner = [number for number, string in enumerate(strings) for _ in string or b""]
    spans, at, byte = list[tuple[int, int]](), 0, 0
    for word in plain_words(whole.decode("utf-8", "replace")):
        start = _find(text, word, at)
        if start is None:
            continue
        byte += len(text[at:start].encode("utf-8", "surrogateescape"))
        at = start + len(word)
        end = byte + len(text[start:at].encode("utf-8", "surrogateescape"))
        spans.append((owner[byte], owner[end - 1] + 1))
        byte = end
    return spans


def _find(text: str, word: str, at: int) -> int | None:
    """Where a word is in a text from a place on; typographic apostrophes are straight in words."""
    found = re.compile(re.escape(word).replace("'", "['’]")).search(text, at)  # noqa: RUF001 (the sign itself)
    return None if found is None else found.start()
