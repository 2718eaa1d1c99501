"""Rows of tab-separated values, which have no quoting of their own, but get that of CSV from many programs.

A sentence in quotation marks keeps them, and so does one that only begins with one. A cell was quoted by a program
where only so its row has as many cells as the header: it holds a tab or a line break then.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

from dlmctl.datasets.lines import MAX_LINE_BYTES, Line

# Lines of one cell; a quote that is left open longer is a quotation mark.
MOST_LINES = 200
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"(?=\t|\Z)')
_OPEN = re.compile(r'"[^"]*(?:""[^"]*)*\Z')


def tab_rows(lines: Iterator[Line]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row with the number of its last line; of blank lines none."""
    ahead: deque[Line] = deque()

    def line_at(place: int) -> Line | None:
        while len(ahead) <= place:
            found = next(lines, None)
            if found is None:
                return None
            ahead.append(found)
        return ahead[place]

    width = 0
    while (first := line_at(0)) is not None:
        cells, taken = _plain(first.text), 1
        if '"' in first.text and width > 1:
            cells, taken = _quoted_row(line_at, width) or (cells, 1)
        width = width or len(cells)
        number = ahead[taken - 1].number
        for _ in range(taken):
            ahead.popleft()
        yield number, [_unquoted(cell) for cell in cells]


def _plain(text: str) -> list[str]:
    text = text.rstrip("\r\n")
    return text.split("\t") if text.strip() else []


def _quoted_row(line_at: Callable[[int], Line | None], width: int) -> tuple[list[str], int] | None:
    """The row that begins at line 0 and the lines that it takes, where quotes must be seen to get ``width`` cells."""
    whole, misfit = "", False
    for taken in range(1, MOST_LINES + 1):
        line = line_at(taken - 1)
        if line is None or len(whole) > MAX_LINE_BYTES:
            return None
        before = len(whole)
        whole += line.text
        fits = line.text.count("\t") + 1 == width
        misfit |= not fits
        cells, opened = _split(whole.rstrip("\r\n"))
        if opened is None:
            return (cells, taken) if misfit and len(cells) == width else None
        if taken > 1 and fits and opened < before:  # a whole row, in which the quote is not closed
            return None
    return None


def _split(text: str) -> tuple[list[str], int | None]:
    """The cells, those in quotes taken together, and where one begins whose quote is not closed."""
    cells: list[str] = []
    at = 0
    while True:
        found = _QUOTED.match(text, at)
        if found is None and _OPEN.match(text, at):
            return cells, at
        end = found.end() if found else text.find("\t", at)
        end = len(text) if end < 0 else end
        cells.append(text[at:end])
        if end == len(text):
            return cells, None
        at = end + 1


def _unquoted(cell: str) -> str:
    """A cell as it was before a writer of CSV quoted it: between quotes, with those inside doubled."""
    inside = cell[1:-1]
    if len(cell) < 3 or not cell[0] == cell[-1] == '"' or '"' in inside.replace('""', ""):
        return cell
    return inside.replace('""', '"') if any(mark in inside for mark in ('""', "\t", "\n", "\r")) else cell
