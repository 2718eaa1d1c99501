"""Writing results to files and as JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlmctl.errors import UserError
from dlmctl.generation.flat import Record
from dlmctl.generation.tabular import require_parquet, write_parquet, write_table
from dlmctl.text.files import flush_to_disk

if TYPE_CHECKING:
    from dlmctl.generation.results import Generation
    from dlmctl.recipe.recipe import Recipe

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".npz", ".parquet")


def check_target(path: Path) -> None:
    """Check before sampling that texts can be written to ``path``. Raises as ``check_file``."""
    check_file(path, FORMATS, " For a folder put a / at the end.")
    if path.suffix == ".parquet":
        require_parquet(path)


def check_file(path: Path, formats: Sequence[str], hint: str = "") -> None:
    """Check before sampling that a file can be written.

    Args:
        formats: the suffixes that it may have; hint: appended to the remedy that lists them.

    Raises:
        UserError: its suffix is not known, its folder does not exist, or nothing can be written there.
    """
    if path.suffix not in formats:
        remedy = f"Use {', '.join(formats)}.{hint}"
        raise UserError(f"the ending {path.suffix!r} is not known.", where=str(path), remedy=remedy)
    if path.is_dir():
        raise UserError("is a folder; name a file in it.", where=str(path))
    if not path.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(path.parent), remedy="Make it first.")
    partial = _partial(path)
    try:
        partial.touch()
        partial.unlink(missing_ok=True)  # another process may have deleted it already
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None


def require_new(path: Path, *, force: bool) -> None:
    """Check before sampling that no file would be lost.

    Raises:
        UserError: the file exists, and ``force`` is not set.
    """
    if path.exists() and not force:
        raise UserError("already exists.", where=str(path), remedy="Name another file, or give --force.")


def as_json(result: Generation, recipe: Recipe) -> str:
    """A whole run as one JSON object."""
    seconds = round(result.seconds, 3)
    return json.dumps(
        {
            "recipe": recipe.model_dump(),
            "samples": result.to_dicts(),
            "environment": result.environment,
            "success": result.success,
            "seconds": seconds,
            "samples_per_second": round(len(result) / max(result.seconds, 1e-9), 3),
        },
        ensure_ascii=False,
        indent=2,
    )


def write(result: Generation, path: Path) -> None:
    """Write the samples: texts (``.txt``), one JSON object per line (``.jsonl``), a table (``.csv``, ``.tsv``,
    ``.parquet``), or texts and latents (``.npz``).

    The write is atomic.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                write_arrays(file, lambda: [_chunk(result)])
        else:
            write_records(partial, path.suffix, result.to_dicts, targets=result.columns)


def write_records(
    path: Path,
    suffix: str,
    records: Callable[[], Iterable[Record]],
    *,
    passing: bool = False,
    targets: Sequence[str] = (),
) -> None:
    """Write rows, one at a time, in the format of files with this suffix.

    Args:
        records: returns an iterator from the first record on, each time it is called.
        passing: leave texts that do not pass out of a plain text file.
        targets: the columns of the user's table; a table of results has them even if all their cells are empty.

    Raises:
        UserError: pyarrow is missing, which Parquet needs.
    """
    if suffix == ".parquet":
        write_parquet(path, records, targets)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix in (".csv", ".tsv"):
            write_table(file, records, "," if suffix == ".csv" else "\t", targets)
        else:
            rows = (row for row in records() if row["passed"]) if passing and suffix == ".txt" else records()
            file.writelines(as_lines(rows, suffix))


def as_lines(records: Iterable[Record], suffix: str) -> Iterator[str]:
    """Rows as lines of a ``.txt`` or ``.jsonl`` file; a row without a text has no line in ``.txt``."""
    for row in records:
        if suffix != ".txt":
            yield json.dumps(row, ensure_ascii=False) + "\n"
        elif row["words"] or not row["problem"]:
            yield row["text"] + "\n"


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``path`` at the end, and is deleted if anything fails.

    Raises:
        UserError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        flush_to_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


class Chunk(NamedTuple):
    """Consecutive samples: their concatenated ``latents [sum of lengths, D]``, and ``rows`` of targets, if any."""

    texts: list[str]
    passed: list[bool]
    latents: np.ndarray
    lengths: np.ndarray
    rows: Sequence[int] = ()


def _chunk(result: Generation) -> Chunk:
    return Chunk(
        [sample.text for sample in result],
        [sample.passed for sample in result],
        np.concatenate([sample.latent for sample in result]),
        np.array([len(sample.latent) for sample in result]),
        [sample.target.number for sample in result if sample.target is not None],
    )


def write_arrays(file: IO[bytes], chunks: Callable[[], Iterable[Chunk]]) -> None:
    """Write an npz file: ``texts [N]``, ``passed [N]``, concatenated ``latents``, and the samples' ``offsets [N + 1]``;
    with targets also the row number of each sample, ``rows [N]``.

    Only one chunk is in memory at a time, so ``chunks`` is called anew for each array.
    """
    passed: list[bool] = []
    rows: list[int] = []
    lengths, width, shape, dtype = [np.zeros(1, np.int64)], 1, (0,), np.dtype(np.float32)
    for chunk in chunks():
        passed += chunk.passed
        rows += chunk.rows
        lengths.append(chunk.lengths)
        width = max(width, *map(len, chunk.texts))
        shape, dtype = chunk.latents.shape[1:], chunk.latents.dtype
    offsets = np.cumsum(np.concatenate(lengths))
    text_dtype = np.dtype(f"U{width}")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_array(
            archive, "texts", (len(passed),), text_dtype, (np.array(chunk.texts, text_dtype) for chunk in chunks())
        )
        _write_array(archive, "passed", (len(passed),), np.dtype(bool), [np.array(passed, bool)])
        if rows:
            _write_array(archive, "rows", (len(rows),), np.dtype(np.int64), [np.array(rows, np.int64)])
        _write_array(archive, "latents", (int(offsets[-1]), *shape), dtype, (chunk.latents for chunk in chunks()))
        _write_array(archive, "offsets", offsets.shape, offsets.dtype, [offsets])


def _write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], arrays: Iterable[np.ndarray]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())
