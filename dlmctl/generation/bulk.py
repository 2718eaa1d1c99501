"""Generation of any number of texts: shard by shard, by one process or several, continued where it was cut off.

Each sample follows from the seed and its own number, so the shards together are what one run would have given.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmctl import processes
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import UserError
from dlmctl.generation.diagnose import find_device, load_model
from dlmctl.generation.generate import run_recipe
from dlmctl.generation.identity import identity
from dlmctl.generation.output import check_target
from dlmctl.generation.shards import SHARD_ROWS, Run, held, merge, open_run, remove_if_empty
from dlmctl.generation.tally import Tally
from dlmctl.sampling.environment import environment

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe
    from dlmctl.recipe.yaml_file import SettingsFile
    from dlmctl.sampling.draw import Progress

BulkProgress = Callable[[float, int], None]
"""Receives texts done, with a share of those being drawn, and texts in all."""

# What changes no text but by rounding, or is said by other settings: a preset by sampler and guidance, a model by its
# weights.
NEUTRAL = {"description", "samples", "batch_size", "device", "model", "preset"}


class Target(NamedTuple):
    """Where a long run goes: the folder of its shards, and the file they become, if any."""

    folder: Path
    file: Path | None


def target_of(out: str | None, *, force: bool = False) -> Target | None:
    """Where shards go, or None where the texts are kept in memory and printed.

    A path that ends in / or is a folder gets the shards. A file gets them merged, so that an interruption keeps what
    is done.

    Args:
        force: replace a file that is there.

    Raises:
        UserError: ``out`` cannot be written or is there already, or there are several processes and no ``out``.
    """
    several = processes.count() > 1
    if out is None:
        if several:
            raise UserError("several processes need a place for their texts.", remedy="Give --out FOLDER/ or FILE.")
        return None
    path = Path(out)
    if out.endswith(("/", "\\")) or path.is_dir():
        return Target(path, None)
    check_target(path)
    if path.exists() and not force:
        raise UserError("is there already.", where=str(path), remedy="Name another file, or give --force.")
    return Target(path.with_name(f"{path.name}.partial"), path)


class Bulk(NamedTuple):
    """A finished run: its shards, how many of its rows were drawn by this call, and the seconds that took."""

    run: Run
    drawn: int
    seconds: float


class Outcome(NamedTuple):
    """What ``generate_bulk`` came to: the counts over all rows, and as in ``Bulk``."""

    tally: Tally
    drawn: int
    seconds: float
    place: Path
    environments: list[dict[str, Any]]

    def figures(self) -> dict[str, Any]:
        """The same as plain values."""
        speed = self.drawn / max(self.seconds, 1e-9)
        drawn = {"drawn": self.drawn, "seconds": round(self.seconds, 3), "samples_per_second": round(speed, 3)}
        return {**self.tally.figures(), **drawn, "out": str(self.place), "environments": self.environments}


def generate_shards(
    recipe: Recipe,
    folder: Path,
    *,
    shard_rows: int | None = None,
    latents: bool = False,
    traced: int = 0,
    origin: SettingsFile | None = None,
    progress: BulkProgress | None = None,
) -> Bulk:
    """All samples of a recipe as shards in ``folder``; those that are there already are kept.

    With several processes each draws every so-manieth of the missing shards, and all of them return when all are done.

    Args:
        shard_rows: samples in each new shard, ``SHARD_ROWS`` or fewer if not given. An interruption costs no more than
            the shards that were being drawn.
        latents: keep the final latents too.
        traced: keep of so many samples, the first, how they came about.
        origin: errors about the model name its line.

    Raises:
        UserError: as ``generate``; the folder holds another run, or another process is at work on it.
        KeyboardInterrupt: with a message that says what is kept.
    """
    team = processes.Team()
    pretrained = team.together(lambda: load_model(recipe, origin))
    device = team.together(lambda: find_device(recipe, origin))
    rows = shard_rows or max(1, min(SHARD_ROWS, -(-recipe.samples // team.size)))

    def opened() -> tuple[Run, list[range]]:
        run = _opened(recipe, pretrained, folder, rows, latents, environment(recipe.sampler, device, recipe.batch_size))
        return run, run.missing()

    def whole() -> Bulk:
        started = time.perf_counter()
        run, missing = team.from_main(opened)
        if progress is not None:
            progress(run.done(), run.rows)
        work = _Work(recipe, pretrained, run, origin, progress, team.rank == 0, traced)
        try:
            team.together(lambda: work.through(missing[team.rank :: team.size]))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted. {run.done()} of {run.rows} texts are kept in {folder}; the same command continues."
            ) from None
        if team.rank == 0:
            run.note_progress()
        return Bulk(run, sum(map(len, missing)), time.perf_counter() - started)

    if team.rank:
        return whole()
    with held(folder):
        return whole()


def _opened(
    recipe: Recipe, pretrained: Pretrained, folder: Path, rows: int, latents: bool, environment: dict[str, Any]
) -> Run:
    """The run in ``folder``, new or continued, with ``rows`` samples in each new shard."""
    settings = {**recipe.model_dump(mode="json", exclude=NEUTRAL), **identity(recipe, pretrained)}
    return open_run(
        folder,
        settings,
        recipe.samples,
        shard_rows=rows,
        latents=latents,
        about={"model": recipe.model},
        environment=environment,
    )


@dataclass(frozen=True)
class _Work:
    """The shards that this process draws; with ``notes`` it also keeps the run's own account of how far it is."""

    recipe: Recipe
    pretrained: Pretrained
    run: Run
    origin: SettingsFile | None
    progress: BulkProgress | None
    notes: bool
    traced: int = 0

    def through(self, shards: list[range]) -> None:
        for shard in shards:
            watch = self._watch(len(shard)) if self.progress is not None else None
            result = run_recipe(
                self.recipe,
                model=self.pretrained,
                samples=shard,
                origin=self.origin,
                progress=watch,
                trace=range(min(shard.stop, self.traced)),
            )
            self.run.write(shard, result.to_dicts(), [one.latent for one in result])
            if self.notes:
                self.run.note_progress()

    def _watch(self, size: int) -> Progress:
        """Progress over a shard of ``size`` texts as progress over the run."""
        before = self.run.done()

        def watch(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(before + size * done / total, self.run.rows)

        return watch


def generate_bulk(
    recipe: Recipe,
    target: Target,
    *,
    shard_rows: int | None = None,
    traced: int = 0,
    origin: SettingsFile | None = None,
    progress: BulkProgress | None = None,
) -> Outcome | None:
    """``generate_shards``, and the shards merged where the target is a file.

    Returns:
        None in all processes but the first, which have nothing to say.

    Raises:
        UserError: as ``generate_shards``, or the file cannot be written.
    """
    latents = target.file is not None and target.file.suffix == ".npz"
    if target.file is not None and recipe.samples <= SHARD_ROWS and processes.count() == 1:
        shard_rows = shard_rows or recipe.batch_size  # each batch is kept as it is done
    try:
        run, drawn, seconds = generate_shards(
            recipe,
            target.folder,
            shard_rows=shard_rows,
            latents=latents,
            traced=traced,
            origin=origin,
            progress=progress,
        )
    except (UserError, KeyboardInterrupt) as error:
        gone = target.file is not None and processes.is_main() and remove_if_empty(target.folder)
        if gone and isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # nothing is kept, so there is nothing to say of it
        raise
    if not processes.is_main():
        return None
    tally, environments = Tally.of(run.records()), run.environments()
    if target.file is not None:
        merge(run, target.file)
        shutil.rmtree(target.folder)
    return Outcome(tally, drawn, seconds, target.file or target.folder, environments)
