"""Files of texts to compare: one text per line, JSON lines, or groups as in the references of the E2E challenge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlmctl.datasets.lines import json_lines, lines_of, plain_suffix
from dlmctl.errors import DataError, UserError

Words = list[str]


def mteval_words(text: str) -> Words:
    """Split a text by the rules of mteval-13a: punctuation is separated, except within numbers."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return str(Tokenizer13a()(text)).split()


Split = Callable[[str], Words]
# How texts are split into words before they are compared, as sacrebleu names it.
SPLITTINGS = ("13a", "zh", "char")


def split_by(name: str) -> Split:
    """The function that splits texts into the words to compare.

    Args:
        name: ``13a``, the rules of mteval-13a; ``zh``, the same with each Chinese character as a word; ``char``, each
            character.

    Raises:
        UserError: there is no splitting of this name.
    """
    if name not in SPLITTINGS:
        raise UserError(
            f"there is no splitting {name!r}.", where="--tokenize", remedy=f"Known: {', '.join(SPLITTINGS)}."
        )
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = BLEU(tokenize=name).tokenizer
    return lambda text: str(tokenizer(text)).split()


def read_hypotheses(path: Path, split: Split = mteval_words) -> list[Words]:
    """Read one text per line, as words.

    Args:
        split: splits a text into words.
        path: ``.jsonl`` holds strings or objects with a ``text`` (as ``dlmctl generate`` writes them); in any other
            file a line is a text. An empty line is an empty text.

    Raises:
        DataError: the file cannot be read, or a line holds no text.
    """
    if plain_suffix(path) != ".jsonl":
        return [split(line) for _, line in lines_of(path)]
    return [split(_text(value, place)) for place, value in _values(path)]


def read_references(path: Path, split: Split = mteval_words) -> list[list[Words]]:
    """Read one or more texts for each source, as words.

    Args:
        split: splits a text into words.
        path: each line of ``.jsonl`` is a source: a list of strings, an object with such a list as ``references``, or
            one text as in ``read_hypotheses``. In any other file empty lines separate the sources; without empty lines
            every line is a source with one reference.

    Raises:
        DataError: the file cannot be read, or a line holds no texts.
    """
    if plain_suffix(path) == ".jsonl":
        return [[split(text) for text in _texts(value, place)] for place, value in _values(path)]
    lines = [line for _, line in lines_of(path)]
    while lines and not lines[-1]:
        lines.pop()
    if all(lines):
        return [[split(line)] for line in lines]
    groups: list[list[Words]] = [[]]
    for line in lines:
        if line:
            groups[-1].append(split(line))
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group]


def _values(path: Path) -> list[tuple[str, Any]]:
    return [(f"{path}:{number}", value) for number, value in json_lines(path)]


def _text(value: Any, place: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise DataError("holds no text.", where=place, remedy='Write a string, or an object such as {"text": "..."}.')
    return text


def _texts(value: Any, place: str) -> list[str]:
    texts = value.get("references") if isinstance(value, dict) and "references" in value else value
    return [_text(text, place) for text in texts] if isinstance(texts, list) else [_text(value, place)]
