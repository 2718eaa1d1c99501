"""The bytes of the tokens of a Hugging Face tokeniser, and which tokens make up which word.

Every token has a string of bytes that does not depend on its neighbours, so a text is the concatenation of these
strings, as UTF-8: for byte-level BPE (GPT-2, LLaDA, Dream) the token's bytes; for WordPiece (BERT) its letters, after a
space if it begins a word; for SentencePiece (Llama, Gemma) its letters with ``▁`` as a space, or one byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from dlmctl.text.spelling import plain, split_words

# The replacements of the WordPiece decoder when cleaning up.
_CLEANED = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m"}
_CLEANED |= {" 's": "'s", " 've": "'ve", " 're": "'re"}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_strings(inner: Any, size: int) -> list[bytes | None]:
    """The bytes of every token; None for special tokens, which texts do not contain.

    Args:
        inner: a tokeniser of ``transformers`` with a backend of ``tokenizers``.
        size: the number of ids; some may have no token.
    """
    steps = _steps(_settings(inner.backend_tokenizer.decoder))
    special, added = set(inner.all_special_ids), inner.added_tokens_decoder
    special |= {index for index, token in added.items() if token.special}
    names = inner.convert_ids_to_tokens(list(range(size)))
    return [
        None if name is None or index in special else name.encode() if index in added else _decoded(name, steps)
        for index, name in enumerate(names)
    ]


def decoded_token(core: Any, name: str) -> bytes:
    """The bytes of a token of a ``tokenizers`` tokeniser that is not special, by its name."""
    return _decoded(name, _steps(_settings(core.decoder)))


def _settings(decoder: Any) -> dict[str, Any] | None:
    return None if decoder is None else json.loads(decoder.__getstate__())


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The flat list of a decoder's steps; without a decoder, tokens are words."""
    if decoder is None:
        return [{"type": "WordPiece", "prefix": "", "cleanup": False}]
    return [step for part in decoder["decoders"] for step in _steps(part)] if "decoders" in decoder else [decoder]


def _decoded(token: str, steps: Sequence[dict[str, Any]]) -> bytes:
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel":
            return _decode_byte_level(token)
        if kind == "ByteFallback" and (match := _BYTE.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if kind == "WordPiece":
            token = _decode_word_piece(token, step["prefix"], step["cleanup"])
        elif kind == "Metaspace":
            token = token.replace(step["replacement"], " ")
        elif kind == "BPEDecoder":
            token = token.replace(step["suffix"], " ")
        elif kind == "Replace" and "String" in step["pattern"]:
            token = token.replace(step["pattern"]["String"], step["content"])
    return token.encode()


def _decode_word_piece(token: str, prefix: str, cleanup: bool) -> str:
    if prefix and token.startswith(prefix):
        return token.removeprefix(prefix)
    token = f" {token}"
    for spaced, cleaned in _CLEANED.items() if cleanup else ():
        token = token.replace(spaced, cleaned)
    return token


def _decode_byte_level(token: str) -> bytes:
    byte_of = _byte_characters()
    return bytes(byte_of[char] for char in token) if all(char in byte_of for char in token) else token.encode()


@cache
def _byte_characters() -> dict[str, int]:
    """The byte of each character of byte-level BPE (Radford et al. 2019): printable bytes are themselves, the others
    are the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + at): byte for at, byte in enumerate(others)}}


def join_tokens(strings: Iterable[bytes | None]) -> str:
    """The text of tokens, without a space before the first word; invalid UTF-8 becomes ``�``."""
    return b"".join(string for string in strings if string is not None).decode("utf-8", "replace").removeprefix(" ")


def plain_words(text: str) -> list[str]:
    """The words of a text as written, without spacing marks: the text keeps its own spaces."""
    return [plain(word) for word in split_words(text)]


def word_spans(strings: Sequence[bytes | None]) -> list[tuple[int, int]]:
    """The first token of each word of a text, and the token after its last.

    A token that has parts of two words belongs to both. Words that do not occur in the text as written, for example
    because accents are separate from their letters, are skipped.
    """
    data = b"".join(string or b"" for string in strings)
    text = data.decode("utf-8", "surrogateescape")
    token_of_byte = [number for number, string in enumerate(strings) for _ in string or b""]
    spans, at, byte = list[tuple[int, int]](), 0, 0
    for word in plain_words(data.decode("utf-8", "replace")):
        start = _find(text, word, at)
        if start is None:
            continue
        byte += len(text[at:start].encode("utf-8", "surrogateescape"))
        at = start + len(word)
        end = byte + len(text[start:at].encode("utf-8", "surrogateescape"))
        spans.append((token_of_byte[byte], token_of_byte[end - 1] + 1))
        byte = end
    return spans


def _find(text: str, word: str, at: int) -> int | None:
    """The position of a word in a text from ``at`` on; words have straight apostrophes, texts typographic ones too."""
    match = re.compile(re.escape(word).replace("'", "['’]")).search(text, at)  # noqa: RUF001 (the character itself)
    return None if match is None else match.start()
