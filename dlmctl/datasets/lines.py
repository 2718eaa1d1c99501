"""Reading files line by line, where only a line feed ends a line.

``str.splitlines`` also splits at U+2028, U+0085 and form feeds, which occur inside texts. A byte-order mark and a
carriage return before the line feed are not part of a line; gzip, bzip2 and xz files are decompressed.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from dlmctl.errors import DataError, did_you_mean

# Far longer than any text, but short enough for memory; a compressed file may expand to any size.
MAX_LINE_BYTES = 2**25
_Opener = Callable[[Path], IO[bytes]]
COMPRESSED: dict[str, _Opener] = {
    ".gz": cast("_Opener", gzip.GzipFile),
    ".bz2": cast("_Opener", bz2.BZ2File),
    ".xz": cast("_Opener", lzma.LZMAFile),
}
# Byte-order marks; the longer ones first, as UTF-32 begins like UTF-16.
_OTHER_ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# Without a mark, Windows-1252 is likeliest: it is Latin-1 with quotation marks and dashes where that has control codes.
TO_UTF8 = "Save it as UTF-8 (Excel: `CSV UTF-8`), or convert it: `iconv -f {encoding} -t UTF-8 {name} > new{suffix}`."


class Line(NamedTuple):
    """A line and its number in the file, from 1."""

    number: int
    text: str


def plain_suffix(path: Path) -> str:
    """The suffix of a file name in lower case, ignoring that of its compression: ``.csv`` for ``a.CSV.gz``."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def raw_lines(path: Path) -> Iterator[Line]:
    """The lines of a file with their line ends.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is binary, or has a line of more than ``MAX_LINE_BYTES``.
    """
    with _open(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                _refuse_other_encodings(raw, path)
            if b"\0" in raw:
                raise DataError("is binary, not text.", where=f"{path}:{number}")
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(f"the line has more than {MAX_LINE_BYTES:,} bytes.", where=f"{path}:{number}")
            try:
                yield Line(number, raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(
                    f"is not UTF-8 (byte 0x{error.object[error.start]:02x}).",
                    where=f"{path}:{number}",
                    remedy=TO_UTF8.format(encoding="cp1252", name=path.name, suffix=path.suffix),
                ) from None


def _refuse_other_encodings(start: bytes, path: Path) -> None:
    for mark, name in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            remedy = TO_UTF8.format(encoding=name, name=path.name, suffix=path.suffix)
            raise DataError(f"is {name}, not UTF-8.", where=str(path), remedy=remedy)


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file without surrounding white space; see ``raw_lines``."""
    for number, text in raw_lines(path):
        yield Line(number, text.strip())


def filled_lines(path: Path) -> Iterator[Line]:
    """The non-blank lines of a file, without surrounding white space."""
    return (line for line in lines_of(path) if line.text)


def json_lines(path: Path, remedy: str | None = None) -> Iterator[tuple[int, Any]]:
    """The line number and the value of each non-blank line.

    Args:
        remedy: what a line looks like, for messages.

    Raises:
        DataError: the file cannot be read, or a line is not JSON; see ``parse_json``.
    """
    for number, text in filled_lines(path):
        try:
            yield number, parse_json(text)
        except ValueError as error:
            raise DataError(f"is {error}.", where=f"{path}:{number}", remedy=remedy) from None


def parse_json(text: str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is not JSON, is nested too deeply, has a key twice or half of a surrogate pair; the message
            begins with "not JSON".
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        json.dumps(value, ensure_ascii=False).encode()  # fails for an escaped half of a surrogate pair
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deeply)") from None
    except UnicodeEncodeError:
        raise ValueError("not JSON that can be written again (half of a surrogate pair)") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        duplicate = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {duplicate[:40]!r} occurs twice")
    return mapping


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """A file for reading, decompressed; errors while it is read become DataErrors."""
    opener = COMPRESSED.get(path.suffix.lower())
    try:
        with path.open("rb") if opener is None else opener(path) as file:
            yield file
    except FileNotFoundError:
        siblings = [other.name for other in path.parent.glob("[!.]*") if other.is_file()]
        remedy = did_you_mean(path.name, sorted(siblings)) if siblings else "Check the path."
        raise DataError("no such file.", where=str(path), remedy=remedy) from None
    except IsADirectoryError:
        raise DataError("is a folder.", where=str(path), remedy="Give one file of it.") from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise DataError(f"is not a complete {path.suffix} file: {error}.", where=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None
