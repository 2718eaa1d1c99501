"""A template with blanks: the words around the blanks are fixed, and the model fills the blanks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field, field_validator

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared, Pretrained
from dlmctl.control.allowed import only_words
from dlmctl.control.automata.syntax import Chain, Literal, Repeat, WordClass, aligned, word_range
from dlmctl.control.warn_once import warn_once
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import CONTROL, Draw
from dlmctl.errors import readable
from dlmctl.text.spelling import split_piece, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import Split, TreeControl, check_rank

PIECES = re.compile(r"(?P<blank>_{3,}(?:\{(\d+)(?:,\s*(\d+))?\})?)|(?P<stray>[_{}]+)|[^_{}]+")
# The most words of a blank; a model's own limit is lower.
MAX_WORDS = 1000
FORMS = "A blank is written ___ (one word), ___{2} (two words) or ___{1,3} (one to three words)"


def parse_template(template: str, split: Split = split_words) -> list[Literal | Repeat]:
    """The words and blanks of a template, in order; words are split as the tokeniser splits raw text.

    Raises:
        ValueError: a blank is malformed, or there is none.
    """
    pieces: list[Literal | Repeat] = []
    for match in PIECES.finditer(template):
        if match["stray"]:
            raise ValueError(f"{match[0]!r} is not a blank. {FORMS}")
        if not match["blank"]:
            pieces.extend(map(Literal, split_piece(match[0], template, match.end(), split)))
            continue
        fewest, most = _size(match[2] or "1"), _size(match[3] or match[2] or "1")
        if most < fewest:
            raise ValueError(f"the blank {match[0]!r} goes from {fewest} down to {most} words. {FORMS}")
        if most < 1:
            raise ValueError(f"the blank {match[0]!r} holds no words. {FORMS}")
        pieces.append(Repeat(WordClass("any"), fewest, most))
    if not any(isinstance(piece, Repeat) for piece in pieces):
        raise ValueError(f"the template has no blank. {FORMS}")
    return pieces


def _size(digits: str) -> int:
    """Parse the number of words of a blank.

    Raises:
        ValueError: it is more than any text has.
    """
    if len(digits) > len(str(MAX_WORDS)) or int(digits) > MAX_WORDS:
        raise ValueError(f"a blank holds at most {MAX_WORDS} words, not {digits}")
    return int(digits)


class InfillParams(ControlParams):
    """The template."""

    template: str = Field(
        max_length=5000,
        description="text with blanks: ___ for one word, ___{2} for two, ___{1,3} for one to three; "
        "punctuation marks are separate words",
        examples=["The Eagle is a ___ shop near ___{1,3}."],
    )

    @field_validator("template")
    @classmethod
    def _parses(cls, template: str) -> str:
        parse_template(template)
        return template


class Infill(TreeControl[InfillParams]):
    """Pins the words of a template at every step (Li et al. 2022, section 5), exactly.

    The number of words of each blank is fixed before sampling: first the length of the whole text is drawn, with the
    frequencies of the training text, from the lengths that the template (and any other control) allows; then it is
    divided among the blanks. If other controls rule out all texts with such blanks, the template becomes a pattern, and
    the model chooses the sizes.
    """

    name = "infill"
    Params = InfillParams

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        if not isinstance(model.tokenizer, HuggingFaceTokenizer):
            _warn_of_last_blank([params.template for params in self.sets])

    def tree(self, params: InfillParams, split: Split) -> Chain:
        return Chain(tuple(parse_template(params.template, split)))

    def prepare(self, batch: BatchContext[InfillParams]) -> Prepared:
        # A batch has either only open sizes or none (``sampling.draw``).
        sizes_open = batch.unwanted or any(layout.sizes_open for layout in batch.layouts)
        if sizes_open or isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return super().prepare(batch)
        rows = zip(batch.params, batch.layouts, batch.draws, strict=True)
        return only_words(batch, [self._fixed_words(*row) for row in rows], self.name)

    def _fixed_words(self, params: InfillParams, layout: Layout, draw: Draw) -> list[str | None]:
        """The word at each position of a text, None in a blank. Words beyond the fewest are added one by one to a
        random blank that still has room."""
        pieces = parse_template(params.template, self.split)
        sizes, limits = ([bound or 0 for bound in column] for column in zip(*map(word_range, pieces), strict=True))
        stream, word_count, most = draw.generator(CONTROL), layout.words, sum(limits)
        if word_count is None:
            word_count = int(torch.randint(sum(sizes), most + 1, (), generator=stream))
        for _ in range(min(word_count, most) - sum(sizes)):
            open_blanks = [at for at, limit in enumerate(limits) if sizes[at] < limit]
            sizes[open_blanks[int(torch.randint(len(open_blanks), (), generator=stream))]] += 1
        words = [piece.word if isinstance(piece, Literal) else None for piece in pieces]
        return [word for word, size in zip(words, sizes, strict=True) for _ in range(size)]

    def check(self, params: InfillParams, words: Sequence[str]) -> Check:
        """Whether the words match the template; if not, the score is the share of the template before the mismatch."""
        templates = (parse_template(params.template, split) for split in self.splits)
        return max((_verdict(pieces, words) for pieces in templates), key=check_rank)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[InfillParams]:
        """Each sentence with its middle third blank."""
        templates = []
        for words in sentences:
            left, right = len(words) // 3, len(words) - len(words) // 3
            templates.append(" ".join([*words[:left], f"___{{{right - left}}}", *words[right:]]))
        return [InfillParams(template=template) for template in templates]


def _warn_of_last_blank(templates: Iterable[str]) -> None:
    """Warn of a template that ends in a blank of one word, as ``She bought a ___``: models of words have learned that
    texts end in a full stop, so that is what fills it."""
    for template in templates:
        last = parse_template(template)[-1]
        if isinstance(last, Repeat) and last.most == 1:
            shown = readable(template, 60)
            warn_once(f"infill: the full stop fills the last blank of {shown!r}; write `{shown}.` for a word.")
            return


def _verdict(pieces: Sequence[Literal | Repeat], words: Sequence[str]) -> Check:
    matched, starts = aligned(pieces, tuple(words))
    if starts is not None:
        marks = (Mark(at, at) for piece, at in zip(pieces, starts, strict=True) if isinstance(piece, Literal))
        return Check(1.0, True, "the template is met", marks=tuple(marks))
    if matched == len(pieces):
        return Check(1 - 1 / matched, False, "the text goes on after the template")
    missed = pieces[matched]
    word = missed.word if isinstance(missed, Literal) else None
    why = "the text ends too early" if word is None else f"{word!r} is not where it should be"
    return Check(matched / len(pieces), False, why, marks=(Mark(None, None, met=False, wanted=word or "___"),))
