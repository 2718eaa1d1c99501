"""Reading results for a report: a run in memory, a ``.jsonl`` file, the output of ``--json``, or a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from dlmctl.control.check import Mark
from dlmctl.errors import DataError, UserError, first_validation_error, short_message
from dlmctl.generation.identity import recipe_digest
from dlmctl.generation.results import Generation
from dlmctl.generation.shards import saved_run
from dlmctl.generation.trace import Trace
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.files import read_object, require_file

# Most bytes of a file that is read whole, and of a line.
MAX_BYTES, MAX_LINE = 512 * 2**20, 16 * 2**20
REMEDY = "Give what `dlmctl generate` wrote: a .jsonl file of --out, the output of --json as .json, or a folder."


class Verdict(BaseModel):
    """The check of one control, as in a line of results."""

    score: Annotated[float, Field(ge=0, le=1)]
    passed: bool
    why: str = ""
    where: list[int] = []
    marks: list[Mark] | None = None

    @property
    def seen(self) -> list[Mark]:
        """The marks; for results without marks, one on each word at fault."""
        return [Mark(at, at, met=False) for at in self.where] if self.marks is None else self.marks


class Row(BaseModel):
    """One text, as in a line of results."""

    index: int
    text: str
    words: list[str]
    passed: bool
    checks: dict[str, Verdict]
    rounds: int = 1
    problem: str | None = None
    lm_score: float | None = None
    worst_word: str | None = None
    worst_nats: float | None = None
    acceptability: float | None = None
    row: int | None = None
    columns: dict[str, Any] = {}
    label: Any = None
    source: Any = None
    prompt: Any = None
    trace: dict[str, Any] | None = None

    @property
    def unmet(self) -> bool:
        """Whether it could not be drawn at all."""
        return not self.words and self.problem is not None

    def steps(self) -> Trace | None:
        """The trace of the text, if it was recorded.

        Raises:
            ValueError: the trace is damaged.
        """
        try:
            return None if self.trace is None else Trace.from_dict(self.trace)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"the trace of text {self.index} is damaged: {short_message(error)}") from None


@dataclass(frozen=True)
class Results:
    """The texts of a run, and what is known of the whole run.

    Attributes:
        name: of their file or folder; recipe: the recipe as plain values, None if the results do not hold it.
        records: returns an iterator over all texts, each as in a line of results.
    """

    name: str
    records: Callable[[], Iterable[Any]]
    recipe: Mapping[str, Any] | None = None
    seconds: float | None = None
    environments: list[Mapping[str, Any]] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Yield all texts in order.

        Raises:
            DataError: one of them is malformed.
        """
        for number, record in enumerate(self.records(), start=1):
            try:
                row = Row.model_validate(record)
                row.steps()
            except ValidationError as error:
                raise DataError(
                    f"is no text of results: {first_validation_error(error)}", where=f"{self.name}:{number}"
                ) from None
            except ValueError as error:
                raise DataError(f"{error}.", where=f"{self.name}:{number}") from None
            yield row


def results_of_run(result: Generation, recipe: Mapping[str, Any] | None) -> Results:
    """The results of a run in memory."""
    environments: list[Mapping[str, Any]] = [result.environment] if result.environment else []
    return Results("this run", result.to_dicts, recipe, result.seconds, environments)


def read_results(path: Path, recipe: Mapping[str, Any] | None = None) -> Results:
    """Read results from disk.

    Args:
        recipe: the recipe as plain values; it takes precedence over one that the file holds.

    Raises:
        DataError: there is no such file, or it does not hold results.
        UserError: the folder holds no run.
    """
    if path.is_dir():
        run = saved_run(path)
        settings = {name: value for name, value in run.settings().items() if name in Recipe.model_fields}
        return Results(str(path), run.records_so_far, recipe or settings, None, list(run.environments()))
    if path.suffix == ".jsonl":
        require_file(path, error=DataError, remedy=REMEDY)
        return Results(str(path), lambda: _lines(path), recipe)
    if path.suffix == ".json":
        saved = read_object(path, limit=MAX_BYTES, error=DataError, remedy=REMEDY)
        samples = saved.get("samples")
        if not isinstance(samples, list):
            raise DataError("has no list of samples.", where=str(path), remedy=REMEDY)
        recipe_saved, environment, seconds = saved.get("recipe"), saved.get("environment"), saved.get("seconds")
        return Results(
            str(path),
            lambda: samples,
            recipe or (recipe_saved if isinstance(recipe_saved, dict) else None),
            seconds if isinstance(seconds, float | int) else None,
            [environment] if isinstance(environment, dict) else [],
        )
    raise DataError(f"the ending {path.suffix!r} is not that of results.", where=str(path), remedy=REMEDY)


def with_recipe(results: Results, recipe: Recipe) -> Results:
    """Add the recipe to results that do not hold it.

    Raises:
        UserError: the results hold their recipe. While the records are read: a text was drawn by another recipe.
    """
    if results.recipe:
        message = "these results hold the recipe that they were drawn by."
        raise UserError(message, where="--recipe", remedy="Leave it out.")
    digest = recipe_digest(recipe)

    def records() -> Iterator[Any]:
        for number, record in enumerate(results.records(), start=1):
            recorded_digest = record.get("recipe_digest", digest) if isinstance(record, dict) else digest
            if recorded_digest != digest:
                message = (
                    f"{results.name}:{number} was drawn by another recipe, or with settings that override this one."
                )
                remedy = "Save the full recipe (`dlmctl generate ... --dry-run`) and give that, or leave --recipe out."
                raise DataError(message, where="--recipe", remedy=remedy)
            yield record

    return replace(results, records=records, recipe=recipe.model_dump())


def _lines(path: Path) -> Iterator[Any]:
    """Yield the value of each line.

    Raises:
        DataError: a line is not JSON, or the file is not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                if line.strip():
                    yield json.loads(line)
    except RecursionError:
        raise DataError("is nested too deep.", where=f"{path}:{number}") from None
    except UnicodeDecodeError:
        raise DataError("is not UTF-8.", where=f"{path}:{number + 1}") from None
    except ValueError as error:
        raise DataError(f"is no line of results: {short_message(error)}.", where=f"{path}:{number}") from None
    except OSError as error:
        raise DataError(f"cannot be read: {short_message(error)}.", where=str(path)) from None
