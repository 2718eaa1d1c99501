"""A template with blanks: the words around the blanks are kept, the model fills the blanks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from pydantic import Field, field_validator

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.allowed import only_words
from dlmctl.control.automata import asked_of, held_to
from dlmctl.control.automata.syntax import Chain, Literal, Repeat, WordClass
from dlmctl.diffusion.noise import CONTROL, Draw
from dlmctl.text.spelling import plain, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import Split, WordControl

BLANK = re.compile(r"_{3,}(?:\{(\d+)(?:,\s*(\d+))?\})?")
# Of a blank; a model's own limit is below it.
MOST_WORDS = 1000
FORMS = "A blank is written ___ (one word), ___{2} (two words) or ___{1,3} (one to three words)"


# A word of a template, or a blank of so many words.
Piece = Literal | Repeat


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
        pieces.extend(map(Literal, split(between)))
        if blank:
            fewest, most = _size(blank[1] or "1"), _size(blank[2] or blank[1] or "1")
            if most < max(1, fewest):
                raise ValueError(f"the blank {blank[0]!r} holds no words. {FORMS}")
            pieces.append(Repeat(WordClass("any"), fewest, most))
            end = blank.end()
    if not any(isinstance(piece, Repeat) for piece in pieces):
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

    def pieces(self, params: InfillParams) -> list[Piece]:
        """Words and blanks of the template, split as the model's text is."""
        return parse_template(params.template, self.split)

    def word_range(self, params: InfillParams) -> tuple[int, int]:
        bounds = [_bounds(piece) for piece in self.pieces(params)]
        return sum(fewest for fewest, _ in bounds), sum(most for _, most in bounds)

    def prepare(self, batch: BatchContext[InfillParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            plainly = [[_plain(piece) for piece in self.pieces(params)] for params in batch.params]
            trees = [Chain(tuple(pieces)) for pieces in plainly]
            return held_to(batch, [asked_of(self.name, tree) for tree in trees])
        texts = []
        for params, draw, layout in zip(batch.params, batch.draws, batch.layouts, strict=True):
            pieces = self.pieces(params)
            sizes = _sizes(pieces, layout.words, draw)
            words = [piece.word if isinstance(piece, Literal) else None for piece in pieces]
            texts.append([word for word, size in zip(words, sizes, strict=True) for _ in range(size)])
        return only_words(batch, texts, self.name)

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


def _bounds(piece: Piece) -> tuple[int, int]:
    """Fewest and most words of a piece."""
    return (piece.least, piece.most or piece.least) if isinstance(piece, Repeat) else (1, 1)


def _plain(piece: Piece) -> Piece:
    """A piece as texts of tokens have it, without marks of spacing."""
    return Literal(plain(piece.word)) if isinstance(piece, Literal) else piece


def _sizes(pieces: Sequence[Piece], words: int | None, draw: Draw) -> list[int]:
    """Words of each piece. Those beyond the fewest go one by one to a random blank that still has room."""
    sizes, most = (list(column) for column in zip(*map(_bounds, pieces), strict=True))
    stream = draw.generator(CONTROL)
    if words is None:
        words = int(torch.randint(sum(sizes), sum(most) + 1, (), generator=stream))
    for _ in range(min(words, sum(most)) - sum(sizes)):
        room = [at for at, size in enumerate(sizes) if size < most[at]]
        sizes[room[int(torch.randint(len(room), (), generator=stream))]] += 1
    return sizes


def _match(pieces: Sequence[Piece], words: Sequence[str]) -> Check:
    # Where the pieces so far may end, in order, and the marks of the template's own words up to there.
    ends: dict[int, tuple[Mark, ...]] = {0: ()}
    for done, piece in enumerate(pieces):
        if isinstance(piece, Literal):
            there = [end for end in ends if end < len(words) and plain(words[end]) == plain(piece.word)]
            found = {end + 1: (*ends[end], Mark(end, end)) for end in there}
        else:
            fewest, most = _bounds(piece)
            sizes = range(fewest, most + 1)
            found = {end + size: marks for end, marks in ends.items() for size in sizes if end + size <= len(words)}
        if not found:
            word = piece.word if isinstance(piece, Literal) else None
            missed = "the text ends too early" if word is None else f"{word!r} is not where it should be"
            lacking = Mark(None, None, met=False, wanted=word or "___")
            return Check(done / len(pieces), False, missed, marks=(lacking,))
        ends = found
    if len(words) not in ends:
        return Check(1 - 1 / len(pieces), False, "the text goes on after the template")
    return Check(1.0, True, "the template is met", marks=ends[len(words)])
