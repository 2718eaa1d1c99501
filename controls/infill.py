"""A template with blanks: the words around the blanks are kept, the model fills the blanks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from pydantic import Field, field_validator

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.allowed import only
from dlmctl.control.automata import HeldTokens, asked_of
from dlmctl.control.automata.syntax import Chain, Literal, Node, Repeat, WordClass
from dlmctl.diffusion.noise import CONTROL, Draw
from dlmctl.text.spelling import plain, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer
from dlmctl.text.vocabulary import known_ids

from .phrases import Split, WordControl

BLANK = re.compile(r"_{3,}(?:\{(\d+)(?:,\s*(\d+))?\})?")
# Of a blank; a model's own limit is below it.
MOST_WORDS = 1000
FORMS = "A blank is written ___ (one word), ___{2} (two words) or ___{1,3} (one to three words)"


class Piece(NamedTuple):
    """A fixed ``word``, or a blank (None) of ``fewest`` to ``most`` words."""

    word: str | None
    fewest: int = 1
    most: int = 1


def parse_template(template: str, split: Split = split_words) -> list[Piece]:
    """Words and blanks of a template, in order; words are split as the tokeniser splits raw text.

    Raises:
        ValueError: a blank is malformed, or there is none.
    """
    pieces: list[Piece] = []
    end = 0
    for blank in [*BLANK.finditer(template), None]:
        between = template[end : blank.start() if blank else len(template)]
        if stray := re.search(r"[_{}]+", between):
            raise ValueError(f"{stray[0]!r} is no blank. {FORMS}")
        pieces.extend(Piece(word) for word in split(between))
        if blank:
            fewest, most = _size(blank[1] or "1"), _size(blank[2] or blank[1] or "1")
            if most < max(1, fewest):
                raise ValueError(f"the blank {blank[0]!r} holds no words. {FORMS}")
            pieces.append(Piece(None, fewest, most))
            end = blank.end()
    if all(piece.word is not None for piece in pieces):
        raise ValueError(f"the template has no blank. {FORMS}")
    return pieces


def _size(digits: str) -> int:
    """Words of a blank.

    Raises:
        ValueError: more than any text has.
    """
    if len(digits) > len(str(MOST_WORDS)) or int(digits) > MOST_WORDS:
        raise ValueError(f"a blank holds at most {MOST_WORDS} words, not {digits}")
    return int(digits)


class InfillParams(ControlParams):
    """What a recipe says of a template."""

    template: str = Field(
        max_length=5000,
        description="text with blanks: ___ for one word, ___{2} for two, ___{1,3} for one to three; "
        "punctuation marks are words of their own",
        examples=["The Eagle is a ___ shop near ___{1,3}."],
    )

    @field_validator("template")
    @classmethod
    def _parses(cls, template: str) -> str:
        parse_template(template)
        return template


class Infill(WordControl[InfillParams]):
    """Pins the words of a template at every step (Li et al. 2022, section 5), exactly.

    The number of words of each blank is settled before sampling: first the length of the whole text, drawn as often
    as in the training text from what the template (and any other control) allows, then how it falls to the blanks.
    """

    name = "infill"
    Params = InfillParams

    def __init__(self, template: str) -> None:
        super().__init__(template=template)

    def pieces(self, params: InfillParams) -> list[Piece]:
        """Words and blanks of the template, split as the model's text is."""
        return parse_template(params.template, self.split)

    def word_range(self, params: InfillParams) -> tuple[int, int]:
        return _range(self.pieces(params))

    def prepare(self, batch: BatchContext[InfillParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            trees = [_tree(self.pieces(params)) for params in batch.params]
            return HeldTokens(batch, [[asked_of(self.name, tree, batch.vocabulary)] for tree in trees])
        # The id of the template's word at each place; -1 where there is none.
        rows = [[-1] * batch.length for _ in batch.params]
        for ids, params, draw, layout in zip(rows, batch.params, batch.draws, batch.layouts, strict=True):
            pieces, place = self.pieces(params), 1
            known = iter(known_ids([piece.word for piece in pieces if piece.word], batch.vocabulary, self.name))
            for piece, size in zip(pieces, _sizes(pieces, layout.words, draw), strict=True):
                if piece.word and place < layout.positions:
                    ids[place] = next(known)
                place += size
        return only(torch.tensor(rows, device=batch.device), len(batch.vocabulary))

    def check(self, params: InfillParams, words: Sequence[str]) -> Check:
        """Whether the words match the template; the score of a text that does not is the share up to the mismatch."""
        return _match(self.pieces(params), words)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[InfillParams]:
        """Each sentence with the middle third blank."""
        templates = []
        for words in sentences:
            left, right = len(words) // 3, len(words) - len(words) // 3
            templates.append(" ".join([*words[:left], f"___{{{right - left}}}", *words[right:]]))
        return [InfillParams(template=template) for template in templates]


def _tree(pieces: Sequence[Piece]) -> Node:
    """A template as a pattern."""
    any_word = WordClass("any")
    return Chain(
        tuple(
            Literal(plain(piece.word)) if piece.word else Repeat(any_word, piece.fewest, piece.most) for piece in pieces
        )
    )


def _range(pieces: Sequence[Piece]) -> tuple[int, int]:
    return sum(piece.fewest for piece in pieces), sum(piece.most for piece in pieces)


def _sizes(pieces: Sequence[Piece], words: int | None, draw: Draw) -> list[int]:
    """Words of each piece. Those beyond the fewest go one by one to a random blank that still has room."""
    fewest, most = _range(pieces)
    sizes = [piece.fewest for piece in pieces]
    stream = draw.generator(CONTROL)
    if words is None:
        words = int(torch.randint(fewest, most + 1, (), generator=stream))
    for _ in range(min(words, most) - fewest):
        room = [at for at, piece in enumerate(pieces) if sizes[at] < piece.most]
        sizes[room[int(torch.randint(len(room), (), generator=stream))]] += 1
    return sizes


def _match(pieces: list[Piece], words: Sequence[str]) -> Check:
    ends = [{0}]  # where the pieces so far may end
    for done, piece in enumerate(pieces):
        if piece.word is None:
            found = {end + size for end in ends[-1] for size in range(piece.fewest, piece.most + 1)}
        else:
            found = {end + 1 for end in ends[-1] if end < len(words) and plain(words[end]) == plain(piece.word)}
        ends.append({end for end in found if end <= len(words)})
        if not ends[-1]:
            missed = "the text ends too early" if piece.word is None else f"{piece.word!r} is not where it should be"
            lacking = Mark(None, None, met=False, wanted=piece.word or "___")
            return Check(done / len(pieces), False, missed, marks=(lacking,))
    if len(words) not in ends[-1]:
        return Check(1 - 1 / len(pieces), False, "the text goes on after the template")
    return Check(1.0, True, "the template is met", marks=tuple(_fixed(pieces, ends, len(words))))


def _fixed(pieces: list[Piece], ends: list[set[int]], end: int) -> list[Mark]:
    """The template's own words in a text that matches, from its end back to the beginning."""
    marks = []
    for piece, before in zip(reversed(pieces), reversed(ends[:-1]), strict=True):
        if piece.word is not None:
            marks.append(Mark(end - 1, end - 1))
        sizes = range(piece.fewest, piece.most + 1) if piece.word is None else (1,)
        end = next(end - size for size in sizes if end - size in before)
    return marks[::-1]
