"""Parts of a long run: independent commands, such as those of a Slurm array, fill one folder."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from dlmctl import processes
from dlmctl.errors import UserError
from dlmctl.generation.shards import Run

MAX_PARTS = 100_000


class Part(NamedTuple):
    """Part ``number``, from 1, of ``parts``: every ``parts``-th shard of the run."""

    number: int
    parts: int

    def missing(self, run: Run) -> list[range]:
        """The shards of this part that are still to be written."""
        return [shard for shard in run.shards[self.number - 1 :: self.parts] if not run.path(shard).exists()]

    def lock(self, folder: Path) -> AbstractContextManager[None]:
        """Lock this part against other processes.

        Raises:
            UserError: another process is working on it.
        """
        return processes.run_lock(folder / f".part-{self.number}.lock", f"part ({self.number}) of a run", folder)


def read_part(text: str) -> Part:
    """Parse a part such as ``2/16``.

    Raises:
        UserError: it does not name a part.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part = Part(int(match[1]), int(match[2])) if match else Part(0, 0)
    if not 1 <= part.number <= part.parts <= MAX_PARTS:
        remedy = "E.g. 2/16, the second of sixteen; in a Slurm array $SLURM_ARRAY_TASK_ID/16."
        raise UserError(f"{text!r} is not a part of a run.", where="--part", remedy=remedy)
    return part
