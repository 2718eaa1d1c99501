"""Generation of any number of texts: shard by shard, by one process or several, resumable after an interruption.

Each sample depends on the seed and its own number only, so the shards together are the texts of a single run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmctl import processes
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.user_files import one_version
from dlmctl.errors import UserError
from dlmctl.generation.destination import Destination, spare_targets
from dlmctl.generation.diagnose import find_device, load_model
from dlmctl.generation.identity import NEUTRAL, identity
from dlmctl.generation.part import Part
from dlmctl.generation.run import RecipeSampler, TextProgress, combined_progress, text_count_of, whole_row_size
from dlmctl.generation.run_counts import RunCounts
from dlmctl.generation.shards import SHARD_ROWS, Run, lock_run, merge, open_run, refuse_others, remove, remove_if_empty
from dlmctl.generation.targets import read_targets
from dlmctl.sampling.environment import environment

if TYPE_CHECKING:
    from dlmctl.datasets.target_table import TargetTable
    from dlmctl.recipe.recipe import Recipe
    from dlmctl.recipe.yaml_file import SettingsFile


# Seconds that a command waits while another one reads or writes the manifest of their run.
LOCK_PATIENCE = 120


class Bulk(NamedTuple):
    """A finished run: its shards, the number of rows drawn by this call, and the seconds they took."""

    run: Run
    drawn: int
    seconds: float


class Outcome(NamedTuple):
    """The result of ``generate_bulk``: the counts over all rows, and the figures of ``Bulk``.

    Attributes:
        left_out: how many texts have no line in a plain text file: those that could not be drawn, and with a quota
            those that do not pass.
    """

    tally: RunCounts
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


@one_version()
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
    ready: Callable[[], None] = lambda: None,
    finish: Callable[[Bulk], None] = lambda bulk: None,
) -> Bulk:
    """Generate all samples of a recipe as shards in ``folder``; existing shards are kept.

    With n processes, each draws every n-th missing shard, and all of them return when all shards are done.

    Args:
        shard_rows: samples in each new shard, ``SHARD_ROWS`` or fewer if not given. An interruption loses at most the
            shards being drawn.
        latents: keep the final latents, too.
        traced: how many samples to trace, from the first.
        strict: raise an error for the first row of the targets that cannot be met.
        part: draw only the shards of this part; other commands draw the rest.
        origin: the recipe's file; errors about the model name its line.
        ready: called before the run is opened, finish: called when it is drawn, both in the first process; for a whole
            run the folder is locked in between, and the other processes wait.

    Raises:
        UserError: as ``generate`` and ``open_run``, or another process is working on the run.
        KeyboardInterrupt: with a message that says what is kept; ``Terminated`` for SIGTERM.
    """
    team = processes.Team()
    team.run_on_main(lambda: refuse_others(folder))
    pretrained = team.run_on_all(lambda: load_model(recipe, origin))
    table = team.run_on_all(lambda: read_targets(recipe, origin))
    process_count = team.size if part is None else part.parts
    if process_count > 1:
        require_independent_texts(recipe, rows=table is not None)
    joining = part is not None and shard_rows is None
    sharding = _Sharding(text_count_of(recipe, table), shard_rows, latents, process_count, joining)

    def open_shards() -> tuple[Run, list[range]]:
        ready()
        return _open(recipe, pretrained, folder, table, sharding, origin)

    def draw(run: Run, shards: list[range]) -> None:
        sampler = RecipeSampler(recipe, pretrained, table, origin, strict=strict)
        whole = part is None
        drawer = _ShardDrawer(sampler, run, progress, whole, tracks_progress=whole and team.rank == 0, traced=traced)
        team.run_on_all(lambda: drawer.draw_all(shards))

    if part is None:
        return _draw_whole_run(team, folder, open_shards, draw, finish)
    bulk = _draw_part(folder, part, open_shards, draw)
    finish(bulk)
    return bulk


_OpenRun = Callable[[], tuple[Run, list[range]]]
_Draw = Callable[[Run, list[range]], None]


def _draw_whole_run(
    team: processes.Team, folder: Path, open_shards: _OpenRun, draw: _Draw, finish: Callable[[Bulk], None]
) -> Bulk:
    """Draw all missing shards of a run: the folder is locked until it is finished, and no process returns earlier."""
    with lock_run(folder) if team.rank == 0 else nullcontext():
        start = time.perf_counter()
        run, missing = team.run_on_main(open_shards)
        draw(run, missing[team.rank :: team.size])
        if team.rank == 0:
            run.note_progress()
        bulk = Bulk(run, sum(map(len, missing)), time.perf_counter() - start)
        team.run_on_main(lambda: finish(bulk))
        return bulk


def _draw_part(folder: Path, part: Part, open_shards: _OpenRun, draw: _Draw) -> Bulk:
    """Draw one part of a run: the folder is locked only while its manifest is read and written."""
    start = time.perf_counter()
    with part.lock(folder):
        with lock_run(folder, patience=LOCK_PATIENCE):
            run, _ = open_shards()
        shards = part.missing(run)
        draw(run, shards)
        with lock_run(folder, patience=LOCK_PATIENCE):
            run.note_progress()
    return Bulk(run, sum(map(len, shards)), time.perf_counter() - start)


def require_independent_texts(recipe: Recipe, *, rows: bool) -> None:
    """Check that several processes can share the drawing: no text has to differ from those of other processes.

    Args:
        rows: whether the texts are for rows of targets.

    Raises:
        UserError: texts have to differ across the run.
    """
    if recipe.unique or (recipe.quota is not None and not rows):
        setting, other = "quota", "a table: its quota needs distinct texts in each row only"
        if recipe.unique:
            written = '`unique: false` (`--set unique=false`, in Python `overrides=["unique=false"]`)'
            setting, other = "unique", f"write {written}; texts may then repeat"
        message = f"{setting}: several processes do not see each other's texts."
        raise UserError(message, remedy=f"Use one process, or {other}.")


class _Sharding(NamedTuple):
    """How a run is divided into shards.

    Attributes:
        total: texts of the run; shard_rows: texts of each new shard, if set.
        joining: whether other commands may have divided the run already.
    """

    total: int
    shard_rows: int | None
    latents: bool
    processes: int
    joining: bool


def _open(
    recipe: Recipe,
    pretrained: Pretrained,
    folder: Path,
    table: TargetTable | None,
    sharding: _Sharding,
    origin: SettingsFile | None,
) -> tuple[Run, list[range]]:
    """Start or continue the run in ``folder``; also returns its missing shards."""
    settings = {**recipe.model_dump(mode="json", exclude=NEUTRAL), **identity(recipe, pretrained)}
    if table is not None:  # its rows and the samples per row determine the sample numbers
        settings |= {"targets": table.digest, "samples_a_row": recipe.samples}
    shard_rows = sharding.shard_rows or max(1, min(SHARD_ROWS, -(-sharding.total // sharding.processes)))
    run = open_run(
        folder,
        settings,
        sharding.total,
        shard_rows=whole_row_size(recipe, table, shard_rows),
        latents=sharding.latents,
        joining=sharding.joining,
        about={"model": recipe.model, **({} if table is None else {"columns": table.columns})},
        environment=environment(recipe.sampler, find_device(recipe, origin), recipe.batch_size),
    )
    return run, run.missing()


@dataclass(frozen=True)
class _ShardDrawer:
    """Draws the shards of this process.

    Attributes:
        is_locked: whether the folder is locked, so that no other command works there.
        tracks_progress: whether this process writes the progress to the manifest.
        traced: how many samples of the run are traced, from the first.
    """

    sampler: RecipeSampler
    run: Run
    progress: TextProgress | None
    is_locked: bool
    tracks_progress: bool
    traced: int

    def draw_all(self, shards: list[range]) -> None:
        """Draw shards.

        Raises:
            KeyboardInterrupt: with a message that says what is kept.
        """
        if self.progress is not None:
            self.progress(self.run.done(), self.run.rows)
        try:
            with processes.terminable():
                self._draw_each(shards)
        except KeyboardInterrupt as interrupt:
            kept_note = f"{self.run.done()} of {self.run.rows} texts are kept in {self.run.folder}"
            raise type(interrupt)(f"interrupted. {kept_note}; the same command continues.") from None

    def _draw_each(self, shards: list[range]) -> None:
        distinct = self.sampler.distinct
        if distinct is not None:
            for record in self.run.records_so_far():
                distinct.take(record["index"], record["text"])
        for at, shard in enumerate(shards):
            progress = None
            if self.progress is not None:
                progress = combined_progress(None, self.progress, self.run.done(), len(shard), self.run.rows)
            result = self.sampler.draw(shard, progress=progress, trace=range(min(shard.stop, self.traced)))
            result = replace(result, about=self.sampler.about)
            # Once a shard is on disk, no command can start another run here.
            with nullcontext() if self.is_locked or at else _confirm_place(self.run, shard):
                self.run.write(shard, result.to_dicts(), [sample.latent for sample in result])
            if self.tracks_progress:
                self.run.note_progress()


@contextmanager
def _confirm_place(run: Run, shard: range) -> Iterator[None]:
    """Lock the folder, and check that the shard still belongs to its run."""
    with lock_run(run.folder, patience=LOCK_PATIENCE):
        run.confirm(shard)
        yield


def generate_bulk(
    recipe: Recipe,
    target: Destination,
    *,
    shard_rows: int | None = None,
    strict: bool = False,
    traced: int = 0,
    part: Part | None = None,
    origin: SettingsFile | None = None,
    progress: TextProgress | None = None,
) -> Outcome | None:
    """Run ``generate_shards``, and merge the shards if the target is a file; for a part, report all shards so far.

    Returns:
        None in all processes except the first.

    Raises:
        UserError: as ``generate_shards``, or the file cannot be written, or it is the table of targets itself.
    """
    spare_targets(recipe, target)
    latents = target.file is not None and target.file.suffix == ".npz"
    if target.file is not None and recipe.targets is None and recipe.samples <= SHARD_ROWS and processes.count() == 1:
        shard_rows = shard_rows or recipe.batch_size  # keep each batch as soon as it is done
    outcomes: list[Outcome] = []
    try:
        generate_shards(
            recipe,
            target.folder,
            shard_rows=shard_rows,
            latents=latents,
            strict=strict,
            traced=traced,
            part=part,
            origin=origin,
            progress=progress,
            ready=target.require_free,
            finish=lambda bulk: outcomes.append(_outcome_of(bulk, recipe, target, part)),
        )
    except (UserError, KeyboardInterrupt) as error:
        is_removed = target.file is not None and processes.is_main() and remove_if_empty(target.folder)
        if is_removed and isinstance(error, KeyboardInterrupt):
            raise type(error) from None  # nothing is kept, so drop the message that says what is
        raise
    if target.file is not None and outcomes:
        remove_if_empty(target.folder)  # Windows deletes no folder whose lock is held
    return outcomes[0] if outcomes else None


def _outcome_of(bulk: Bulk, recipe: Recipe, target: Destination, part: Part | None) -> Outcome:
    """The outcome of a run; its shards are merged if the target is a file."""
    run, drawn, seconds = bulk
    records = run.records() if part is None else run.records_so_far()
    tally, environments = RunCounts.of(records), run.environments()
    left_out = 0
    if target.file is not None:
        if target.file.suffix == ".txt":
            left_out = tally.missing if recipe.quota is None else tally.rows - tally.passed
        merge(run, target.file, passing=recipe.quota is not None)
        remove(target.folder)
    return Outcome(tally, drawn, seconds, target.file or target.folder, environments, left_out)
