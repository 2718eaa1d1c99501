"""Generation of any number of texts: shard by shard, by one process or several, continued where it was cut off.

Each sample follows from the seed and its own number, so the shards together are what one run would have given.
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
from dlmctl.errors import UserError
from dlmctl.generation.destination import Target, spare_targets
from dlmctl.generation.diagnose import find_device, load_model
from dlmctl.generation.identity import NEUTRAL, identity
from dlmctl.generation.part import Part
from dlmctl.generation.run import TextProgress, Work, shard_size, texts_of
from dlmctl.generation.run_counts import RunCounts
from dlmctl.generation.shards import SHARD_ROWS, Run, held, merge, open_run, refuse_others, remove, remove_if_empty
from dlmctl.generation.targets import read_targets
from dlmctl.sampling.environment import environment

if TYPE_CHECKING:
    from dlmctl.datasets.target_table import TargetTable
    from dlmctl.recipe.recipe import Recipe
    from dlmctl.recipe.yaml_file import SettingsFile
    from dlmctl.sampling.draw import Progress


# Seconds that a command waits for another one to have read or written the account of their run.
PATIENCE = 120


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
        ready: called before the run is opened, finish: when it is drawn, both by the first process; of a whole run the
            folder is held from the one to the other, and the others wait.

    Raises:
        UserError: as ``generate`` and ``open_run``, or another process is at work on it.
        KeyboardInterrupt: with a message that says what is kept; ``Terminated`` of SIGTERM.
    """
    team = processes.Team()
    pretrained = team.together(lambda: load_model(recipe, origin))
    table = team.together(lambda: read_targets(recipe, origin))
    several = team.size if part is None else part.parts
    if several > 1:
        refuse_strangers(recipe, rows=table is not None)
    cut = _Cut(texts_of(recipe, table), shard_rows, latents, several, joining=part is not None and shard_rows is None)
    team.from_main(lambda: refuse_others(folder))

    def opened() -> tuple[Run, list[range]]:
        ready()
        return _opened(recipe, pretrained, folder, table, cut, origin)

    def draw(run: Run, mine: list[range]) -> None:
        work = Work(recipe, pretrained, table, origin, strict=strict)
        shards = _Shards(work, run, progress, alone=part is None, notes=part is None and team.rank == 0, traced=traced)
        team.together(lambda: shards.through(mine))

    if part is None:
        return _whole_drawn(team, folder, opened, draw, finish)
    bulk = _part_drawn(folder, part, opened, draw)
    finish(bulk)
    return bulk


_Opened = Callable[[], tuple[Run, list[range]]]
_Draw = Callable[[Run, list[range]], None]


def _whole_drawn(
    team: processes.Team, folder: Path, opened: _Opened, draw: _Draw, finish: Callable[[Bulk], None]
) -> Bulk:
    """All of a run that is missing: the folder is held until it is finished, and no process ends before that."""
    with held(folder) if team.rank == 0 else nullcontext():
        started = time.perf_counter()
        run, missing = team.from_main(opened)
        draw(run, missing[team.rank :: team.size])
        if team.rank == 0:
            run.note_progress()
        bulk = Bulk(run, sum(map(len, missing)), time.perf_counter() - started)
        team.from_main(lambda: finish(bulk))
        return bulk


def _part_drawn(folder: Path, part: Part, opened: _Opened, draw: _Draw) -> Bulk:
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
    """How a run is cut up: texts in all, in each new shard if that is said, whether latents are kept, by how many
    processes it is drawn, and whether others may have cut it up already."""

    total: int
    shard_rows: int | None
    latents: bool
    processes: int
    joining: bool


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
        joining=cut.joining,
        about={"model": recipe.model, **({} if table is None else {"columns": table.columns})},
        environment=environment(recipe.sampler, find_device(recipe, origin), recipe.batch_size),
    )
    return run, run.missing()


@dataclass(frozen=True)
class _Shards:
    """The shards that this process draws.

    Attributes:
        alone: the folder is held, so that no other command is at work there.
        notes: it keeps the run's own account of how far it is.
        traced: of so many samples of the run, the first, is kept how they came about.
    """

    drawing: Work
    run: Run
    progress: TextProgress | None
    alone: bool
    notes: bool
    traced: int

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
        for at, shard in enumerate(shards):
            watch = self._watch(len(shard)) if self.progress is not None else None
            result = self.drawing.draw(shard, progress=watch, trace=range(min(shard.stop, self.traced)))
            result = replace(result, about=self.drawing.about)
            # With a shard of it on disk no command can start another run here.
            with nullcontext() if self.alone or at else _confirmed(self.run, shard):
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


@contextmanager
def _confirmed(run: Run, shard: range) -> Iterator[None]:
    """The folder is held, and the shard has its place there."""
    with held(run.folder, patience=PATIENCE):
        run.confirm(shard)
        yield


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
    spare_targets(recipe, target)
    latents = target.file is not None and target.file.suffix == ".npz"
    if target.file is not None and recipe.targets is None and recipe.samples <= SHARD_ROWS and processes.count() == 1:
        shard_rows = shard_rows or recipe.batch_size  # each batch is kept as it is done
    told: list[Outcome] = []
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
            finish=lambda bulk: told.append(_finished(bulk, recipe, target, part)),
        )
    except (UserError, KeyboardInterrupt) as error:
        gone = target.file is not None and processes.is_main() and remove_if_empty(target.folder)
        if gone and isinstance(error, KeyboardInterrupt):
            raise type(error) from None  # nothing is kept, so there is nothing to say of it
        raise
    return told[0] if told else None


def _finished(bulk: Bulk, recipe: Recipe, target: Target, part: Part | None) -> Outcome:
    """What a run came to, its shards merged where the target is a file."""
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
