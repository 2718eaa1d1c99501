"""What a run came to, counted row by row, so that a million rows need no more memory than ten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Of faults of rows, those that are kept to be told.
MOST_UNMET = 10


@dataclass
class RunCounts:
    """Counts over the samples of a run.

    Attributes:
        scores, passes, counts: of each control, by its label: the sum of its scores, how many texts pass, and how many
            it was asked of.
        nats, scored: the sum of the lm-scores, and of how many texts.
        unmet: why rows of targets could not be drawn, the first of them.
        missing: how many texts those cost, all of them counted.
    """

    rows: int = 0
    passed: int = 0
    problems: int = 0
    rounds: int = 1
    scores: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    nats: float = 0.0
    scored: int = 0
    unmet: dict[str, int] = field(default_factory=dict)
    missing: int = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> RunCounts:
        """The counts of all ``rows``."""
        made = cls()
        for row in rows:
            made.add(row)
        return made

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one sample, given as its ``record``."""
        self.rows += 1
        self.passed += row["passed"]
        if row["words"] or row["problem"] is None:
            self.problems += row["problem"] is not None
        elif row["problem"] in self.unmet or len(self.unmet) < MOST_UNMET:
            self.unmet[row["problem"]] = self.unmet.get(row["problem"], 0) + 1
        self.missing += not row["words"] and row["problem"] is not None
        if "lm_score" in row:
            self.nats += row["lm_score"]
            self.scored += 1
        self.rounds = max(self.rounds, row["rounds"])
        for name, check in row["checks"].items():
            self.scores[name] = self.scores.get(name, 0.0) + check["score"]
            self.passes[name] = self.passes.get(name, 0) + check["passed"]
            self.counts[name] = self.counts.get(name, 0) + 1

    def sentences(self) -> list[str]:
        """For each control its mean score and how many pass, and how many rounds it took."""
        told = [
            f"{name}: mean score {score / self.counts[name]:.1%}, {self.passes[name]} of {self.counts[name]} pass"
            for name, score in self.scores.items()
        ]
        told += [f"lm-score: {self.nats / self.scored:.2f} nats a token"] if self.scored else []
        told += [f"Drawn in {self.rounds} rounds"] if self.rounds > 1 else []
        return [*told, *([f"{self.missing} could not be drawn"] if self.missing else [])]

    def figures(self) -> dict[str, Any]:
        """The same as plain values."""
        controls = {
            name: {"mean_score": score / self.counts[name], "passed": self.passes[name] / self.counts[name]}
            for name, score in self.scores.items()
        }
        success = self.passed / max(1, self.rows)
        fluency = {"lm_score": round(self.nats / self.scored, 4)} if self.scored else {}
        unmet = {"not_drawn": self.missing} if self.missing else {}
        return {
            "samples": self.rows,
            "success": success,
            "controls": controls,
            **fluency,
            "problems": self.problems,
            **unmet,
        }
