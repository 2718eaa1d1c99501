"""Results as files and as JSON."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlmctl.errors import UserError
from dlmctl.generation.flat import Record
from dlmctl.generation.tabular import require_parquet, write_parquet, write_table

if TYPE_CHECKING:
    from dlmctl.generation.results import Generation
    from dlmctl.recipe.recipe import Recipe

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".npz", ".parquet")


def check_target(path: Path) -> None:
    """Find out before sampling whether texts can be written to ``path``. Raises as ``check_file``."""
    check_file(path, FORMATS, " For a folder put a / at the end.")
    if path.suffix == ".parquet":
        require_parquet(path)


def check_file(path: Path, formats: Sequence[str], more: str = "") -> None:
    """Find out before sampling whether a file can be written.

    Args:
        formats: the endings that it may have; more: what else to say of them.

    Raises:
        UserError: its ending is not known, its folder does not exist, or nothing can be written there.
    """
    if path.suffix not in formats:
        remedy = f"Use {', '.join(formats)}.{more}"
        raise UserError(f"the ending {path.suffix!r} is not known.", where=str(path), remedy=remedy)
    if path.is_dir():
        raise UserError("is a folder; name a file in it.", where=str(path))
    if not path.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(path.parent), remedy="Make it first.")
    partial = _partial(path)
    try:
        partial.touch()
        partial.unlink(missing_ok=True)  # of several processes another may have been first
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None


def require_new(path: Path, *, force: bool) -> None:
    """Find out before sampling whether a file would be lost.

    Raises:
        UserError: it is there already, and ``force`` does not say to replace it.
    """
    if path.exists() and not force:
        raise UserError("is there already.", where=str(path), remedy="Name another file, or give --force.")


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
    """Write the samples: texts (``.txt``), one JSON object a line (``.jsonl``), a table (``.csv``, ``.tsv``,
    ``.parquet``), texts and latents (``.npz``).

    The file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as partial:
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
    """Write rows, one at a time, in the form of a file that ends in ``suffix``.

    Args:
        records: gives them from the first on, whenever it is called.
        passing: leave out of a file of texts alone those that do not pass.
        targets: the columns of the user's table, which a table of results has even where all their cells are empty.

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
            wanted = (row for row in records() if row["passed"]) if passing and suffix == ".txt" else records()
            file.writelines(as_lines(wanted, suffix))


def as_lines(records: Iterable[Record], suffix: str) -> Iterator[str]:
    """Rows as lines of a ``.txt`` or ``.jsonl`` file; those without a text have no line of text."""
    for row in records:
        if suffix != ".txt":
            yield json.dumps(row, ensure_ascii=False) + "\n"
        elif row["words"] or not row["problem"]:
            yield row["text"] + "\n"


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` at the end and is taken away if anything fails.

    Raises:
        UserError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


class Chunk(NamedTuple):
    """Some samples in order: their ``latents [sum of lengths, D]`` stand end to end; ``rows`` of targets, if any."""

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
    """An npz: ``texts [N]``, ``passed [N]``, ``latents`` end to end, and the ``offsets [N + 1]`` of each sample; with
    targets the number of each one's row, ``rows [N]``.

    Memory holds one chunk at a time, so ``chunks`` is called once for each array.
    """
    passed: list[bool] = []
    rows: list[int] = []
    lengths, width, shape, kind = [np.zeros(1, np.int64)], 1, (0,), np.dtype(np.float32)
    for chunk in chunks():
        passed += chunk.passed
        rows += chunk.rows
        lengths.append(chunk.lengths)
        width = max(width, *map(len, chunk.texts))
        shape, kind = chunk.latents.shape[1:], chunk.latents.dtype
    offsets = np.cumsum(np.concatenate(lengths))
    text = np.dtype(f"U{width}")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_array(archive, "texts", (len(passed),), text, (np.array(chunk.texts, text) for chunk in chunks()))
        _write_array(archive, "passed", (len(passed),), np.dtype(bool), [np.array(passed, bool)])
        if rows:
            _write_array(archive, "rows", (len(rows),), np.dtype(np.int64), [np.array(rows, np.int64)])
        _write_array(archive, "latents", (int(offsets[-1]), *shape), kind, (chunk.latents for chunk in chunks()))
        _write_array(archive, "offsets", offsets.shape, offsets.dtype, [offsets])


def _write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: np.dtype[Any], parts: Iterable[np.ndarray]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
