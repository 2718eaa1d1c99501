"""A text as HTML with the marks of each control: tags below words, spans as brackets, and underlined words.

A mark with a label is drawn in a row below the words, with one or more rows for each control; a mark without a label is
drawn on the words. Marks of what a text lacks follow it in dashed boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from dlmctl.control.check import Mark
from dlmctl.text.spelling import spans_in_text

# Most rows below the words, and most characters of a label: nobody reads more.
MAX_ROWS, MAX_LABEL = 12, 60

Marks = Mapping[str, Sequence[Mark]]
"""The marks of each control, by its label."""


class Row(NamedTuple):
    """A row of a control below the words, with the mark at each place that has one."""

    control: str
    marks: Mapping[int, Mark]


def text_html(text: str, words: Sequence[str], marks: Marks) -> str:
    """A text as HTML.

    Args:
        text: in natural spelling, which determines the spaces; words: the same as the model wrote them.
    """
    placed_marks = {
        name: [mark for mark in text_marks if _is_within(mark, len(words))] for name, text_marks in marks.items()
    }
    missing_marks = [(name, mark) for name, text_marks in marks.items() for mark in text_marks if mark.start is None]
    pieces = _split_text(text, words)
    if pieces is None or not any(placed_marks.values()):
        body = escape(text)
    else:
        rows = [row for name, text_marks in placed_marks.items() for row in rows_of(name, text_marks)][:MAX_ROWS]
        unlabelled = [
            (name, mark) for name, text_marks in placed_marks.items() for mark in text_marks if not _is_labelled(mark)
        ]
        marked_words = [_underlined(escape(piece), at, unlabelled) for at, piece in enumerate(pieces)]
        body = _cells(pieces, marked_words, rows, shows_names=len(marks) > 1) if rows else "".join(marked_words)
    boxes = (
        f' <span class="g" title="{escape(name)}: missing">{_shortened(mark.wanted)}</span>'
        for name, mark in missing_marks
    )
    return body + "".join(boxes)


def rows_of(control: str, marks: Sequence[Mark]) -> list[Row]:
    """The labelled marks of a control in as few rows as possible, each above the marks that contain it."""
    layers: list[list[Mark]] = []
    for mark in sorted(filter(_is_labelled, marks), key=lambda mark: (_size(mark), mark.start)):
        level = 1 + max(
            (at for at, row in enumerate(layers) if any(_overlap(mark, other) for other in row)), default=-1
        )
        if level == len(layers):
            layers.append([])
        layers[level].append(mark)
    return [Row(control, {place: mark for mark in row for place in _places(mark)}) for row in layers]


def _is_within(mark: Mark, count: int) -> bool:
    return mark.start is not None and mark.end is not None and 0 <= mark.start <= mark.end < count


def _is_labelled(mark: Mark) -> bool:
    return bool(mark.label or mark.wanted)


def _places(mark: Mark) -> range:
    assert mark.start is not None
    assert mark.end is not None
    return range(mark.start, mark.end + 1)


def _size(mark: Mark) -> int:
    return len(_places(mark))


def _overlap(mark: Mark, other: Mark) -> bool:
    places, other_places = _places(mark), _places(other)
    return places.start < other_places.stop and other_places.start < places.stop


def _shortened(label: str) -> str:
    return escape(label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}...")


def _split_text(text: str, words: Sequence[str]) -> list[str] | None:
    """Each word with the space that follows it in the text; None if the text does not consist of these words."""
    starts, end = [], 0
    for span in spans_in_text(words, text):
        if span is None or text[end : span[0]].strip():
            return None
        starts.append(span[0])
        end = span[1]
    return [text[start:after] for start, after in pairwise([*starts, end])]


def _underlined(piece: str, at: int, marks: Sequence[tuple[str, Mark]]) -> str:
    """A word, underlined if a mark without a label covers it."""
    marks_here = [(name, mark) for name, mark in marks if at in _places(mark)]
    if not marks_here:
        return piece
    is_faulty = any(not mark.met for _, mark in marks_here)
    word = piece.rstrip(" ")
    names = escape(", ".join(dict.fromkeys(name for name, mark in marks_here if mark.met != is_faulty)))
    is_end = any(at == mark.end for _, mark in marks_here)
    space = piece[len(word) :]
    # The underline continues between the words of a phrase.
    inside, after = ("", space) if is_end else (space, "")
    return f'<b class="{"x" if is_faulty else "o"}" title="{names}">{word}{inside}</b>{after}'


def _cells(pieces: Sequence[str], marked_words: Sequence[str], rows: Sequence[Row], *, shows_names: bool) -> str:
    """The words as cells with the rows below them; words without a space between them stay on one line."""
    parts = [_name_cells(rows)] if shows_names else []
    joined = False
    for at, (piece, word) in enumerate(zip(pieces, marked_words, strict=True)):
        continues = at + 1 < len(pieces) and not piece.endswith(" ")
        parts.append("<span class=j>" if continues and not joined else "")
        parts.append(f"<span class=w>{word}{''.join(_cell(row, at) for row in rows)}</span>")
        parts.append("</span>" if joined and not continues else "")
        joined = continues
    return "".join(parts)


def _name_cells(rows: Sequence[Row]) -> str:
    """The cells with the names of the rows' controls."""
    previous = ""
    names = []
    for row in rows:
        names.append(f"<i>{_shortened(row.control) if row.control != previous else ''}</i>")
        previous = row.control
    return f'<span class="w h" dir="ltr"> {"".join(names)}</span>'


def _cell(row: Row, at: int) -> str:
    mark = row.marks.get(at)
    if mark is None:
        return "<i></i>"
    classes = list(_cell_classes(mark, at))
    label = "".join(_label_parts(mark)) if at == mark.start else ""
    return f'<i class="{" ".join(classes)}">{label}</i>' if classes else f"<i>{label}</i>"


def _cell_classes(mark: Mark, at: int) -> Iterator[str]:
    """The CSS classes of a cell: x for a fault; k for a bracket, with s at its start and e at its end."""
    if not mark.met:
        yield "x"
    if mark.start != mark.end:
        yield "k"
        if at == mark.start:
            yield "s"
        if at == mark.end:
            yield "e"


def _label_parts(mark: Mark) -> Iterator[str]:
    if mark.label:
        yield _shortened(mark.label)
    if mark.wanted:
        yield f" ≠ {_shortened(mark.wanted)}" if mark.label else f"no {_shortened(mark.wanted)}"
