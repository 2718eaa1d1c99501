"""One text as HTML, its words marked by what each control saw: tags under words, spans as brackets, words themselves.

A mark with a label stands in a row below the words, one row or several for each control; a mark without one is drawn on
the words. What a text lacks follows it in a dashed box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from dlmctl.control.check import Mark
from dlmctl.text.spelling import plain

# Rows below the words, and characters of a label: beyond these nobody reads them.
MOST_ROWS, MOST_LABEL = 12, 60

Marks = Mapping[str, Sequence[Mark]]
"""What each control saw, by its label."""


class Row(NamedTuple):
    """A row below the words: whose it is, and the mark over each place that has one."""

    control: str
    marks: Mapping[int, Mark]


def text_html(text: str, words: Sequence[str], marks: Marks) -> str:
    """A text as HTML.

    Args:
        text: in natural spelling, which says where spaces stand; words: the same as the model made them.
    """
    inside = {name: [mark for mark in some if _within(mark, len(words))] for name, some in marks.items()}
    lacking = [(name, mark) for name, some in marks.items() for mark in some if mark.start is None]
    pieces = _spaced(text, words)
    if pieces is None or not any(inside.values()):
        body = escape(text)
    else:
        rows = [row for name, some in inside.items() for row in rows_of(name, some)][:MOST_ROWS]
        plainly = [(name, mark) for name, some in inside.items() for mark in some if not _labelled(mark)]
        drawn = [_on_word(escape(piece), at, plainly) for at, piece in enumerate(pieces)]
        body = _cells(pieces, drawn, rows, named=len(marks) > 1) if rows else "".join(drawn)
    boxes = (f' <span class="g" title="{escape(name)}: missing">{_cut(mark.wanted)}</span>' for name, mark in lacking)
    return body + "".join(boxes)


def rows_of(control: str, marks: Sequence[Mark]) -> list[Row]:
    """The labelled marks of a control in as few rows as keep each above those that hold it."""
    layers: list[list[Mark]] = []
    for mark in sorted(filter(_labelled, marks), key=lambda mark: (_size(mark), mark.start)):
        level = 1 + max((at for at, row in enumerate(layers) if any(_touch(mark, one) for one in row)), default=-1)
        if level == len(layers):
            layers.append([])
        layers[level].append(mark)
    return [Row(control, {place: mark for mark in row for place in _places(mark)}) for row in layers]


def _within(mark: Mark, count: int) -> bool:
    return mark.start is not None and mark.end is not None and 0 <= mark.start <= mark.end < count


def _labelled(mark: Mark) -> bool:
    return bool(mark.label or mark.wanted)


def _places(mark: Mark) -> range:
    assert mark.start is not None
    assert mark.end is not None
    return range(mark.start, mark.end + 1)


def _size(mark: Mark) -> int:
    return len(_places(mark))


def _touch(one: Mark, other: Mark) -> bool:
    mine, theirs = _places(one), _places(other)
    return mine.start < theirs.stop and theirs.start < mine.stop


def _cut(label: str) -> str:
    return escape(label if len(label) <= MOST_LABEL else f"{label[: MOST_LABEL - 3]}...")


def _spaced(text: str, words: Sequence[str]) -> list[str] | None:
    """Each word with the space that the text has behind it; None where the text is not made of these words."""
    found: list[str] = []
    at = 0
    for word in map(plain, words):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            return None
        if found:
            found[-1] += text[at:start]
        found.append(word)
        at = start + len(word)
    return found


def _on_word(piece: str, at: int, marks: Sequence[tuple[str, Mark]]) -> str:
    """A word, underlined where a mark without a label is on it."""
    here = [(name, mark) for name, mark in marks if at in _places(mark)]
    if not here:
        return piece
    faulty = any(not mark.met for _, mark in here)
    word = piece.rstrip(" ")
    names = escape(", ".join(dict.fromkeys(name for name, mark in here if mark.met != faulty)))
    ends = any(at == mark.end for _, mark in here)
    space = piece[len(word) :]
    # Between the words of a phrase the line goes on.
    return (
        f'<b class="{"x" if faulty else "o"}" title="{names}">{word}{"" if ends else space}</b>{space if ends else ""}'
    )


def _cells(pieces: Sequence[str], drawn: Sequence[str], rows: Sequence[Row], *, named: bool) -> str:
    """The words as cells with the rows below them; words without a space between stay on one line."""
    parts = [_head(rows)] if named else []
    joined = False
    for at, (piece, word) in enumerate(zip(pieces, drawn, strict=True)):
        goes_on = at + 1 < len(pieces) and not piece.endswith(" ")
        parts.append("<span class=j>" if goes_on and not joined else "")
        parts.append(f"<span class=w>{word}{''.join(_cell(row, at) for row in rows)}</span>")
        parts.append("</span>" if joined and not goes_on else "")
        joined = goes_on
    return "".join(parts)


def _head(rows: Sequence[Row]) -> str:
    """The names of the controls whose rows these are."""
    before = ""
    names = []
    for row in rows:
        names.append(f"<i>{_cut(row.control) if row.control != before else ''}</i>")
        before = row.control
    return f'<span class="w h"> {"".join(names)}</span>'


def _cell(row: Row, at: int) -> str:
    mark = row.marks.get(at)
    if mark is None:
        return "<i></i>"
    kinds = list(_kinds(mark, at))
    label = "".join(_label(mark)) if at == mark.start else ""
    return f'<i class="{" ".join(kinds)}">{label}</i>' if kinds else f"<i>{label}</i>"


def _kinds(mark: Mark, at: int) -> Iterator[str]:
    """The classes of a cell: x at fault; k of a bracket, with s where it starts and e where it ends."""
    if not mark.met:
        yield "x"
    if mark.start != mark.end:
        yield "k"
        if at == mark.start:
            yield "s"
        if at == mark.end:
            yield "e"


def _label(mark: Mark) -> Iterator[str]:
    if mark.label:
        yield _cut(mark.label)
    if mark.wanted:
        yield f" ≠ {_cut(mark.wanted)}" if mark.label else f"no {_cut(mark.wanted)}"
