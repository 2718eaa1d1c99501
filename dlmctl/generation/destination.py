"""Where the texts of a long run go: a folder of shards, or a file that they become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlmctl import processes
from dlmctl.errors import UserError
from dlmctl.generation.output import check_target, require_new

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe


class Target(NamedTuple):
    """Where a long run goes: the folder of its shards, and the file they become, if any; ``force`` replaces one that is
    there."""

    folder: Path
    file: Path | None
    force: bool = False

    def require_free(self) -> None:
        """Raise UserError where there is a file already that is not to be replaced."""
        if self.file is not None:
            require_new(self.file, force=self.force)


def target_of(out: str | None, *, force: bool = False, part: str | None = None) -> Target | None:
    """Where shards go, or None where the texts are kept in memory and printed.

    A path that ends in / or is a folder gets the shards. A file gets them merged, so that an interruption keeps what
    is done.

    Args:
        force: replace a file that is there.
        part: of a run that is drawn in parts the one that is asked for; they go to a folder.

    Raises:
        UserError: ``out`` cannot be written or is there already, or there are several processes and no ``out``.
    """
    if out == "":
        raise UserError("is empty.", where="--out", remedy="Name a folder, as in --out FOLDER/, or a file.")
    several = processes.count() > 1
    is_folder = out is not None and (out.endswith(("/", "\\")) or Path(out).is_dir())
    if part is not None and (several or not is_folder):
        what = "the parts of a run are drawn into a folder, each by one process."
        raise UserError(
            what, where="--part", remedy="Give --out FOLDER/, and put its rows-*.jsonl together at the end."
        )
    if out is None:
        if several:
            raise UserError("several processes need a place for their texts.", remedy="Give --out FOLDER/ or FILE.")
        return None
    path = Path(out)
    if is_folder:
        return Target(path, None)
    check_target(path)
    target = Target(path.with_name(f"{path.name}.partial"), path, force)
    target.require_free()
    return target


def spare_targets(recipe: Recipe, target: Target) -> None:
    """Raise UserError where the texts would take the place of the table that they are drawn for."""
    if target.file is None or not isinstance(recipe.targets, str) or not target.file.exists():
        return
    if Path(recipe.targets).exists() and target.file.samefile(recipe.targets):
        raise UserError("holds the targets of this run.", where=str(target.file), remedy="Name another file.")
