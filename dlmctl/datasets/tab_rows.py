"""Rows of tab-separated values, a format without quoting that many programs nevertheless quote like CSV.

A sentence in quotation marks keeps them, and so does one that only begins with one. A cell is taken as quoted by a
program only if its row would otherwise not have as many cells as the header: it then holds a tab or a line break. With
one column every line is a row.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

from dlmctl.datasets.lines import MAX_LINE_BYTES, Line

# Maximum lines of one cell; a quote that stays open longer is an ordinary quotation mark.
MAX_LINES = 200
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"(?=\t|\Z)')
_OPEN = re.compile(r'"[^"]*(?:""[^"]*)*\Z')


def tab_rows(lines: Iterator[Line]) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line and the cells of each row; no cells for a blank line."""
    buffer: deque[Line] = deque()

    def line_at(index: int) -> Line | None:
        while len(buffer) <= index:
            line = next(lines, None)
            if line is None:
                return None
            buffer.append(line)
        return buffer[index]

    width = 0
    while (first := line_at(0)) is not None:
        cells, line_count = _unquoted_row(first.text), 1
        if '"' in first.text and width > 1:
            cells, line_count = _quoted_row(line_at, width) or (cells, 1)
        width = width or len(cells)
        number = buffer[line_count - 1].number
        for _ in range(line_count):
            buffer.popleft()
        yield number, [_without_quotes(cell) for cell in cells]


def _unquoted_row(text: str) -> list[str]:
    text = text.rstrip("\r\n")
    return text.split("\t") if text.strip() else []


def _quoted_row(line_at: Callable[[int], Line | None], width: int) -> tuple[list[str], int] | None:
    """The row that begins at line 0 and its number of lines, if it has ``width`` cells only when quotes are obeyed."""
    text, needs_quotes = "", False
    for line_count in range(1, MAX_LINES + 1):
        line = line_at(line_count - 1)
        if line is None or len(text) > MAX_LINE_BYTES:
            return None
        line_start = len(text)
        text += line.text
        fits = line.text.count("\t") + 1 == width
        needs_quotes |= not fits
        cells, open_quote = _split(text.rstrip("\r\n"))
        if open_quote is None:
            return (cells, line_count) if needs_quotes and len(cells) == width else None
        if line_count > 1 and fits and open_quote < line_start:  # a complete row that does not close the quote
            return None
    return None


def _split(text: str) -> tuple[list[str], int | None]:
    """The cells, with quotes obeyed, and the start of a cell whose quote is not closed, if any."""
    cells: list[str] = []
    start = 0
    while True:
        quoted = _QUOTED.match(text, start)
        if quoted is None and _OPEN.match(text, start):
            return cells, start
        end = quoted.end() if quoted else text.find("\t", start)
        end = len(text) if end < 0 else end
        cells.append(text[start:end])
        if end == len(text):
            return cells, None
        start = end + 1


def _without_quotes(cell: str) -> str:
    """A cell without the quoting of a CSV writer, which encloses it in quotes and doubles those inside."""
    content = cell[1:-1]
    if len(cell) < 3 or not cell[0] == cell[-1] == '"' or '"' in content.replace('""', ""):
        return cell
    return content.replace('""', '"') if any(mark in content for mark in ('""', "\t", "\n", "\r")) else cell
