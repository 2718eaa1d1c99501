"""A part of a long run: commands that know nothing of each other, as those of a Slurm array, fill one folder."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from dlmctl import processes
from dlmctl.errors import UserError
from dlmctl.generation.shards import Run

MOST_PARTS = 100_000


class Part(NamedTuple):
    """Part ``number``, from 1, of ``parts``: every so-manieth shard of the run."""

    number: int
    parts: int

    def missing(self, run: Run) -> list[range]:
        """The shards of this part that are still to be written."""
        return [shard for shard in run.shards[self.number - 1 :: self.parts] if not run.path(shard).exists()]

    def held(self, folder: Path) -> AbstractContextManager[None]:
        """Keep others from the same part.

        Raises:
            UserError: another process is at work on it.
        """
        return processes.held(folder / f".part-{self.number}.lock", f"part ({self.number}) of a run", folder)


def read_part(text: str) -> Part:
    """The part that ``2/16`` names.

    Raises:
        UserError: it names none.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part = Part(int(found[1]), int(found[2])) if found else Part(0, 0)
    if not 1 <= part.number <= part.parts <= MOST_PARTS:
        remedy = "E.g. 2/16, the second of sixteen; of an array of Slurm $SLURM_ARRAY_TASK_ID/16."
        raise UserError(f"{text!r} is no part of a run.", where="--part", remedy=remedy)
    return part
