"""Generation of any number of texts: shard by shard, by one process or several, continued where it was cut off.

Each sample follows from the seed and its own number, so the shards together are what one run would have given.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmctl import processes
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import UserError
from dlmctl.generation.diagnose import find_device, load_model
from dlmctl.generation.identity import NEUTRAL, identity
from dlmctl.generation.output import check_target, require_new
from dlmctl.generation.part import Part
from dlmctl.generation.run import TextProgress, Work, shard_size, texts_of
from dlmctl.generation.shards import SHARD_ROWS, Run, held, merge, open_run, remove_if_empty
from dlmctl.generation.tally import Tally
from dlmctl.generation.targets import read_targets
from dlmctl.sampling.environment import environment

if TYPE_CHECKING:
    from dlmctl.datasets.target_table import TargetTable
    from dlmctl.recipe.recipe import Recipe
    from dlmctl.recipe.yaml_file import SettingsFile
    from dlmctl.sampling.draw import Progress


# Seconds that a command waits for another one to have read or written the account of their run.
PATIENCE = 120


class Target(NamedTuple):
    """Where a long run goes: the folder of its shards, and the file they become, if any."""

    folder: Path
    file: Path | None


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
    require_new(path, force=force)
    return Target(path.with_name(f"{path.name}.partial"), path)


class Bulk(NamedTuple):
    """A finished run: its shards, how many of its rows were drawn by this call, and the seconds that took."""

    run: Run
    drawn: int
    seconds: float


class Outcome(NamedTuple):
    """What ``generate_bulk`` came to: the counts over all rows, and as in ``Bulk``.

    Attributes:
        left_out: how many texts have no line in a file of texts alone: what could not be drawn, and of a quota what
            does not pass.
    """

    tally: Tally
    drawn: int
    seconds: float
    place: Path
    environments: list[dict[str, Any]]
    left_out: int = 0

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
    strict: bool = False,
    traced: int = 0,
    part: Part | None = None,
    origin: SettingsFile | None = None,
    progress: TextProgress | None = None,
) -> Bulk:
    """All samples of a recipe as shards in ``folder``; those that are there already are kept.

    With several processes each draws every so-manieth of the missing shards, and all of them return when all are done.

    Args:
        shard_rows: samples in each new shard, ``SHARD_ROWS`` or fewer if not given. An interruption costs no more than
            the shards that were being drawn.
        latents: keep the final latents too.
        traced: keep of so many samples, the first, how they came about.
        strict: the first row of the targets that cannot be met ends the run.
        part: draw these shards alone; commands beside this one draw the others.
        origin: errors about the model name its line.

    Raises:
        UserError: as ``generate``; the folder holds another run, or another process is at work on it.
        KeyboardInterrupt: with a message that says what is kept; ``Terminated`` of SIGTERM.
    """
    team = processes.Team()
    pretrained = team.together(lambda: load_model(recipe, origin))
    table = team.together(lambda: read_targets(recipe, origin))
    several = team.size if part is None else part.parts
    if several > 1:
        refuse_strangers(recipe, rows=table is not None)
    cut = _Cut(texts_of(recipe, table), shard_rows, latents, several)

    def opened() -> tuple[Run, list[range]]:
        return _opened(recipe, pretrained, folder, table, cut, origin)

    def draw(run: Run, mine: list[range], *, notes: bool) -> None:
        work = _Shards(Work(recipe, pretrained, table, origin, strict=strict), run, progress, notes, traced)
        team.together(lambda: work.through(mine))

    def whole() -> Bulk:
        started = time.perf_counter()
        run, missing = team.from_main(opened)
        draw(run, missing[team.rank :: team.size], notes=team.rank == 0)
        if team.rank == 0:
            run.note_progress()
        return Bulk(run, sum(map(len, missing)), time.perf_counter() - started)

    if part is not None:
        return _part_drawn(folder, part, opened, partial(draw, notes=False))
    if team.rank:
        return whole()
    with held(folder):
        return whole()


def _part_drawn(
    folder: Path, part: Part, opened: Callable[[], tuple[Run, list[range]]], draw: Callable[[Run, list[range]], None]
) -> Bulk:
    """One part of a run: the folder is held only while its account is read and written."""
    started = time.perf_counter()
    with part.held(folder):
        with held(folder, patience=PATIENCE):
            run, _ = opened()
        mine = part.missing(run)
        draw(run, mine)
        with held(folder, patience=PATIENCE):
            run.note_progress()
    return Bulk(run, sum(map(len, mine)), time.perf_counter() - started)


def refuse_strangers(recipe: Recipe, *, rows: bool) -> None:
    """Refuse to draw in several processes where each text must differ from all before it.

    Args:
        rows: whether the texts are for rows of targets.

    Raises:
        UserError: it must.
    """
    if recipe.unique or (recipe.quota is not None and not rows):
        what = f"{'unique' if recipe.unique else 'quota'}: several processes do not see each other's texts."
        raise UserError(what, remedy="Use one process; of a table with a quota the texts of each row differ.")


class _Cut(NamedTuple):
    """How a run is cut up: texts in all, in each new shard if that is said, whether latents are kept, and by how many
    processes it is drawn."""

    total: int
    shard_rows: int | None
    latents: bool
    processes: int


def _opened(
    recipe: Recipe,
    pretrained: Pretrained,
    folder: Path,
    table: TargetTable | None,
    cut: _Cut,
    origin: SettingsFile | None,
) -> tuple[Run, list[range]]:
    """The run in ``folder``, new or continued, and the shards that it misses."""
    settings = {**recipe.model_dump(mode="json", exclude=NEUTRAL), **identity(recipe, pretrained)}
    if table is not None:  # whose rows and samples say what number a sample has
        settings |= {"targets": table.digest, "samples_a_row": recipe.samples}
    rows = cut.shard_rows or max(1, min(SHARD_ROWS, -(-cut.total // cut.processes)))
    run = open_run(
        folder,
        settings,
        cut.total,
        shard_rows=shard_size(recipe, table, rows),
        latents=cut.latents,
        about={"model": recipe.model, **({} if table is None else {"columns": table.columns})},
        environment=environment(recipe.sampler, find_device(recipe, origin), recipe.batch_size),
    )
    return run, run.missing()


@dataclass(frozen=True)
class _Shards:
    """The shards that this process draws; with ``notes`` it also keeps the run's own account of how far it is."""

    drawing: Work
    run: Run
    progress: TextProgress | None
    notes: bool
    traced: int = 0

    def through(self, shards: list[range]) -> None:
        """Draw these.

        Raises:
            KeyboardInterrupt: with a message that says what is kept.
        """
        if self.progress is not None:
            self.progress(self.run.done(), self.run.rows)
        try:
            with processes.terminable():
                self._through(shards)
        except KeyboardInterrupt as interrupt:
            kept = f"{self.run.done()} of {self.run.rows} texts are kept in {self.run.folder}"
            raise type(interrupt)(f"interrupted. {kept}; the same command continues.") from None

    def _through(self, shards: list[range]) -> None:
        distinct = self.drawing.distinct
        if distinct is not None:
            for record in self.run.records_so_far():
                distinct.take(record["index"], record["text"])
        for shard in shards:
            watch = self._watch(len(shard)) if self.progress is not None else None
            result = self.drawing.draw(shard, progress=watch, trace=range(min(shard.stop, self.traced)))
            result = replace(result, about=self.drawing.about)
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


def _spare_targets(recipe: Recipe, target: Target) -> None:
    """Raise UserError where the texts would take the place of the table that they are drawn for."""
    if target.file is None or not isinstance(recipe.targets, str) or not target.file.exists():
        return
    if Path(recipe.targets).exists() and target.file.samefile(recipe.targets):
        raise UserError("holds the targets of this run.", where=str(target.file), remedy="Name another file.")


def generate_bulk(
    recipe: Recipe,
    target: Target,
    *,
    shard_rows: int | None = None,
    strict: bool = False,
    traced: int = 0,
    part: Part | None = None,
    origin: SettingsFile | None = None,
    progress: TextProgress | None = None,
) -> Outcome | None:
    """``generate_shards``, and the shards merged where the target is a file; of a part what there is so far.

    Returns:
        None in all processes but the first, which have nothing to say.

    Raises:
        UserError: as ``generate_shards``, or the file cannot be written, or it is the table of targets itself.
    """
    _spare_targets(recipe, target)
    latents = target.file is not None and target.file.suffix == ".npz"
    if target.file is not None and recipe.targets is None and recipe.samples <= SHARD_ROWS and processes.count() == 1:
        shard_rows = shard_rows or recipe.batch_size  # each batch is kept as it is done
    try:
        run, drawn, seconds = generate_shards(
            recipe,
            target.folder,
            shard_rows=shard_rows,
            latents=latents,
            strict=strict,
            traced=traced,
            part=part,
            origin=origin,
            progress=progress,
        )
    except (UserError, KeyboardInterrupt) as error:
        gone = target.file is not None and processes.is_main() and remove_if_empty(target.folder)
        if gone and isinstance(error, KeyboardInterrupt):
            raise type(error) from None  # nothing is kept, so there is nothing to say of it
        raise
    if not processes.is_main():
        return None
    records = run.records() if part is None else run.records_so_far()
    tally, environments = Tally.of(records), run.environments()
    left_out = 0
    if target.file is not None:
        if target.file.suffix == ".txt":
            left_out = tally.missing if recipe.quota is None else tally.rows - tally.passed
        merge(run, target.file, passing=recipe.quota is not None)
        shutil.rmtree(target.folder)
    return Outcome(tally, drawn, seconds, target.file or target.folder, environments, left_out)
