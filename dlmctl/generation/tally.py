"""What a run came to, counted row by row, so that a million rows need no more memory than ten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts over the samples of a run.

    Attributes:
        scores, passes: of each control, by its label: the sum of its scores, and how many texts pass.
    """

    rows: int = 0
    passed: int = 0
    problems: int = 0
    rounds: int = 1
    scores: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Tally:
        """The counts of all ``rows``."""
        made = cls()
        for row in rows:
            made.add(row)
        return made

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one sample, given as its ``record``."""
        self.rows += 1
        self.passed += row["passed"]
        self.problems += row["problem"] is not None
        self.rounds = max(self.rounds, row["rounds"])
        for name, check in row["checks"].items():
            self.scores[name] = self.scores.get(name, 0.0) + check["score"]
            self.passes[name] = self.passes.get(name, 0) + check["passed"]

    def sentences(self) -> list[str]:
        """For each control its mean score and how many pass, and how many rounds it took."""
        told = [
            f"{name}: mean score {score / self.rows:.1%}, {self.passes[name]} of {self.rows} pass"
            for name, score in self.scores.items()
        ]
        return [*told, *([f"Drawn in {self.rounds} rounds"] if self.rounds > 1 else [])]

    def figures(self) -> dict[str, Any]:
        """The same as plain values."""
        controls = {
            name: {"mean_score": score / self.rows, "passed": self.passes[name] / self.rows}
            for name, score in self.scores.items()
        }
        success = self.passed / max(1, self.rows)
        return {"samples": self.rows, "success": success, "controls": controls, "problems": self.problems}
