"""Counts over the samples of a run, updated row by row, so that a million rows need no more memory than ten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Most faults of rows that are kept for the report.
MAX_UNMET = 10


@dataclass
class RunCounts:
    """Counts over the samples of a run.

    Attributes:
        scores, passes, counts: for each control, by its label: the sum of its scores, the number of texts that pass it,
            and the number of texts that it checked.
        nats, scored: the sum of the lm-scores, and the number of texts that have one.
        unmet: the first reasons why rows of targets could not be drawn, with their counts.
        missing: the number of texts that could not be drawn.
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
        """Count all ``rows``."""
        counts = cls()
        for row in rows:
            counts.add(row)
        return counts

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one sample, given as ``Sample.to_dict`` returns it."""
        self.rows += 1
        self.passed += row["passed"]
        if row["words"] or row["problem"] is None:
            self.problems += row["problem"] is not None
        elif row["problem"] in self.unmet or len(self.unmet) < MAX_UNMET:
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
        """Each control's mean score and number of texts that pass, then lm-score, rounds and texts not drawn."""
        sentences = [
            f"{name}: mean score {score / self.counts[name]:.1%}, {self.passes[name]} of {self.counts[name]} pass"
            for name, score in self.scores.items()
        ]
        sentences += [f"lm-score: {self.nats / self.scored:.2f} nats per token"] if self.scored else []
        sentences += [f"Drawn in {self.rounds} rounds"] if self.rounds > 1 else []
        return [*sentences, *([f"{self.missing} could not be drawn"] if self.missing else [])]

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
