"""The results of a run: its samples, and how they are displayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

from dlmctl.control.check import Check
from dlmctl.datasets.target_table import Row
from dlmctl.errors import readable
from dlmctl.generation.frames import as_dataset, as_frame
from dlmctl.generation.page.notebook import samples_html, verdict
from dlmctl.generation.trace import Trace
from dlmctl.metrics.fluency import Fluency

# Most rows of a run that a notebook shows, and most characters of a text in them.
MOST_SHOWN, MOST_TEXT = 50, 400


@dataclass(frozen=True)
class Sample:
    """A text with its checks.

    Attributes:
        index: number of the sample in the run.
        words: as the model wrote them; text: the same in natural spelling.
        checks: the verdict of each control, by its label.
        latent: the final latent of the words, ``[L, D]``.
        rounds: how many rounds of drawing it took; with ``until``, all of them if it never was good enough.
        problem: what went wrong with its guidance, if anything.
        nats: -log p of its words, each at the step that wrote it, where the model family provides it.
        trace: its steps, if they were recorded.
        fluency: its scores under the model's scorer, if there is one.
        target: the table row that it was drawn for, if there is one.
        unmet: why it has no words, if so: it could not be drawn, or the model ended it at once.
        prompted: its ``label``, ``source`` and ``prompt``, as far as they are one of a list.
    """

    index: int
    words: list[str]
    text: str
    checks: dict[str, Check]
    latent: np.ndarray = field(repr=False, compare=False)
    rounds: int = 1
    problem: str | None = None
    nats: float | None = None
    trace: Trace | None = field(default=None, repr=False, compare=False)
    fluency: Fluency | None = None
    target: Row | None = None
    unmet: str | None = None
    prompted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every control is satisfied; true without controls, false for a text without words."""
        return self.unmet is None and all(check.passed for check in self.checks.values())

    def to_dict(self) -> dict[str, Any]:
        """The sample as plain values, without its latent: a line of a ``.jsonl`` file."""
        target = {} if self.target is None else {"row": self.target.number, "columns": self.target.values}
        fluency: dict[str, Any] = {}
        if self.fluency is not None:
            fluency = {
                "lm_score": round(self.fluency.lm_score, 4),
                "worst_word": self.fluency.worst_word,
                "worst_nats": round(self.fluency.worst_nats, 4),
            }
            if self.fluency.acceptability is not None:
                fluency["acceptability"] = round(self.fluency.acceptability, 4)
        return {
            "index": self.index,
            **target,
            **self.prompted,
            "text": self.text,
            "words": self.words,
            "passed": self.passed,
            "checks": {name: check.to_dict() for name, check in self.checks.items()},
            **fluency,
            "rounds": self.rounds,
            "problem": self.unmet or self.problem,
            **({"trace": self.trace.to_dict()} if self.trace is not None else {}),
        }

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        """The text, and each control with its score and the reason."""
        verdicts = (f"  {name}: {verdict(check)}, {readable(check.why)}" for name, check in self.checks.items())
        return "\n".join([f"{self.index}: {_display_text(self)}", *verdicts])

    def _repr_html_(self) -> str:
        return samples_html([self])


def _display_text(sample: Sample) -> str:
    """The text of a sample, or why it has none."""
    return readable(sample.text if sample.unmet is None else f"(no text: {sample.unmet})", MOST_TEXT)


@dataclass(frozen=True, repr=False)
class Generation(Sequence[Sample]):
    """The samples of a run, in order: a sequence whose slices are also a ``Generation``.

    Attributes:
        seconds: how long sampling and checking took; for a slice, the time of the whole run.
        environment: what, besides the recipe, decides the exact bits of the texts; see ``environment.environment``.
        about: facts common to every text: seed and model, and for a recipe's run digests of the weights and the recipe.
        columns: the columns of the target table, if there is one.
    """

    samples: list[Sample]
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Generation: ...

    def __getitem__(self, index: int | slice) -> Sample | Generation:
        return replace(self, samples=self.samples[index]) if isinstance(index, slice) else self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def texts(self) -> list[str]:
        """The texts alone."""
        return [sample.text for sample in self.samples]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The samples as plain values, see ``Sample.to_dict``, each with the entries of ``about``."""
        return [{**sample.to_dict(), **self.about} for sample in self.samples]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one row per text; its columns are those of a ``.csv`` file, see ``flat.Columns``.

        Raises:
            UserError: pandas is not installed.
        """
        return as_frame(self.to_dicts(), self.columns)

    def to_dataset(self) -> Any:
        """A ``datasets.Dataset`` of the same rows.

        Raises:
            UserError: the package datasets is not installed.
        """
        return as_dataset(self.to_dicts(), self.columns)

    @property
    def trace(self) -> dict[int, Trace]:
        """The traces of the samples that were traced, by sample number."""
        return {sample.index: sample.trace for sample in self.samples if sample.trace is not None}

    @property
    def success(self) -> float:
        """Share of samples that satisfy every control."""
        return sum(sample.passed for sample in self.samples) / max(1, len(self.samples))

    def __repr__(self) -> str:
        """One line per text, with the score of each control, and the totals."""
        rows = [
            "\t".join([_display_text(sample), *(f"{name} {verdict(check)}" for name, check in sample.checks.items())])
            for sample in self.samples[:MOST_SHOWN]
        ]
        return "\n".join([*rows, self._totals()])

    def _repr_html_(self) -> str:
        return samples_html(self.samples[:MOST_SHOWN], self._totals())

    def _totals(self) -> str:
        hidden = len(self.samples) - MOST_SHOWN
        hidden_note = f"; {hidden} of them not shown" if hidden > 0 else ""
        has_checks = any(sample.checks for sample in self.samples)
        success = f", {self.success:.0%} satisfy every control" if has_checks else ""
        texts = "1 text" if len(self.samples) == 1 else f"{len(self.samples)} texts"
        return f"{texts} in {self.seconds:.1f} s{success}{hidden_note}"
