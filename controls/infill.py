"""A template with blanks: the words around the blanks are kept, the model fills the blanks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from pydantic import Field, field_validator

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.allowed import only_words
from dlmctl.control.automata.syntax import Chain, Literal, Repeat, WordClass, aligned, word_range
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import CONTROL, Draw
from dlmctl.text.spelling import split_inside, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import Split, TreeControl, standing

PIECES = re.compile(r"(?P<blank>_{3,}(?:\{(\d+)(?:,\s*(\d+))?\})?)|(?P<stray>[_{}]+)|[^_{}]+")
# Of a blank; a model's own limit is below it.
MOST_WORDS = 1000
FORMS = "A blank is written ___ (one word), ___{2} (two words) or ___{1,3} (one to three words)"


def parse_template(template: str, split: Split = split_words) -> list[Literal | Repeat]:
    """Words and blanks of a template, in order; words are split as the tokeniser splits raw text.

    Raises:
        ValueError: a blank is malformed, or there is none.
    """
    pieces: list[Literal | Repeat] = []
    for found in PIECES.finditer(template):
        if found["stray"]:
            raise ValueError(f"{found[0]!r} is no blank. {FORMS}")
        if not found["blank"]:
            text, at_end = found[0], found.end() == len(template.rstrip())
            pieces.extend(map(Literal, split(text) if at_end else split_inside(text, split)))
            continue
        fewest, most = _size(found[2] or "1"), _size(found[3] or found[2] or "1")
        if most < fewest:
            raise ValueError(f"the blank {found[0]!r} goes from {fewest} down to {most} words. {FORMS}")
        if most < 1:
            raise ValueError(f"the blank {found[0]!r} holds no words. {FORMS}")
        pieces.append(Repeat(WordClass("any"), fewest, most))
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


class Infill(TreeControl[InfillParams]):
    """Pins the words of a template at every step (Li et al. 2022, section 5), exactly.

    The number of words of each blank is settled before sampling: first the length of the whole text, drawn as often
    as in the training text from what the template (and any other control) allows, then how it falls to the blanks.
    Where other controls leave no text with such blanks, the template becomes a pattern, and the model chooses sizes.
    """

    name = "infill"
    Params = InfillParams

    def tree(self, params: InfillParams, split: Split) -> Chain:
        return Chain(tuple(parse_template(params.template, split)))

    def prepare(self, batch: BatchContext[InfillParams]) -> Prepared:
        # Texts share a batch with others of their kind (``sampling.draw``).
        sizes_open = batch.unwanted or any(layout.sizes_open for layout in batch.layouts)
        if sizes_open or isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return super().prepare(batch)
        rows = zip(batch.params, batch.layouts, batch.draws, strict=True)
        return only_words(batch, [self._places(*row) for row in rows], self.name)

    def _places(self, params: InfillParams, layout: Layout, draw: Draw) -> list[str | None]:
        """The word at each place of a text, None in a blank. Words beyond the fewest go one by one to a random blank
        that still has room."""
        pieces = parse_template(params.template, self.split)
        sizes, ends = ([bound or 0 for bound in column] for column in zip(*map(word_range, pieces), strict=True))
        stream, words, most = draw.generator(CONTROL), layout.words, sum(ends)
        if words is None:
            words = int(torch.randint(sum(sizes), most + 1, (), generator=stream))
        for _ in range(min(words, most) - sum(sizes)):
            room = [at for at, end in enumerate(ends) if sizes[at] < end]
            sizes[room[int(torch.randint(len(room), (), generator=stream))]] += 1
        kept = [piece.word if isinstance(piece, Literal) else None for piece in pieces]
        return [word for word, size in zip(kept, sizes, strict=True) for _ in range(size)]

    def check(self, params: InfillParams, words: Sequence[str]) -> Check:
        """Whether the words match the template; the score of a text that does not is the share up to the mismatch."""
        ways = (parse_template(params.template, split) for split in self.splits)
        return max((_verdict(pieces, words) for pieces in ways), key=standing)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[InfillParams]:
        """Each sentence with the middle third blank."""
        templates = []
        for words in sentences:
            left, right = len(words) // 3, len(words) - len(words) // 3
            templates.append(" ".join([*words[:left], f"___{{{right - left}}}", *words[right:]]))
        return [InfillParams(template=template) for template in templates]


def _verdict(pieces: Sequence[Literal | Repeat], words: Sequence[str]) -> Check:
    met, starts = aligned(pieces, tuple(words))
    if starts is not None:
        marks = (Mark(at, at) for piece, at in zip(pieces, starts, strict=True) if isinstance(piece, Literal))
        return Check(1.0, True, "the template is met", marks=tuple(marks))
    if met == len(pieces):
        return Check(1 - 1 / met, False, "the text goes on after the template")
    missed = pieces[met]
    word = missed.word if isinstance(missed, Literal) else None
    why = "the text ends too early" if word is None else f"{word!r} is not where it should be"
    return Check(met / len(pieces), False, why, marks=(Mark(None, None, met=False, wanted=word or "___"),))
