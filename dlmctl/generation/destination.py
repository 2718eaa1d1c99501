"""The destination of a long run: a folder of shards, or a file that they are merged into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlmctl import processes
from dlmctl.errors import UserError
from dlmctl.generation.output import check_target, require_new

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe


class Destination(NamedTuple):
    """The destination of a long run: the folder of its shards, and the file they are merged into, if any; ``force``
    replaces an existing file."""

    folder: Path
    file: Path | None
    force: bool = False

    def require_free(self) -> None:
        """Raise UserError if the file exists and must not be replaced."""
        if self.file is not None:
            require_new(self.file, force=self.force)


def read_destination(out: str | None, *, force: bool = False, part: str | None = None) -> Destination | None:
    """Read the destination of a run; None if the texts are kept in memory and printed.

    A path that ends in / or is a folder receives the shards. For a file, the shards are merged at the end, so that an
    interruption keeps what is done.

    Args:
        force: replace an existing file.
        part: the requested part of a run that is drawn in parts; parts need a folder.

    Raises:
        UserError: ``out`` cannot be written or exists already, or there are several processes and no ``out``.
    """
    if out == "":
        raise UserError("is empty.", where="--out", remedy="Name a folder, as in --out FOLDER/, or a file.")
    has_several_processes = processes.count() > 1
    is_folder = out is not None and (out.endswith(("/", "\\")) or Path(out).is_dir())
    if part is not None and (has_several_processes or not is_folder):
        message = "the parts of a run are drawn into a folder, each by one process."
        raise UserError(
            message, where="--part", remedy="Give --out FOLDER/, and put its rows-*.jsonl together at the end."
        )
    if out is None:
        if has_several_processes:
            raise UserError("several processes need a place for their texts.", remedy="Give --out FOLDER/ or FILE.")
        return None
    path = Path(out)
    if is_folder:
        return Destination(path, None)
    check_target(path)
    target = Destination(path.with_name(f"{path.name}.partial"), path, force)
    target.require_free()
    return target


def spare_targets(recipe: Recipe, target: Destination) -> None:
    """Raise UserError if the texts would overwrite the table that they are drawn for."""
    if target.file is None or not isinstance(recipe.targets, str) or not target.file.exists():
        return
    if Path(recipe.targets).exists() and target.file.samefile(recipe.targets):
        raise UserError("holds the targets of this run.", where=str(target.file), remedy="Name another file.")
