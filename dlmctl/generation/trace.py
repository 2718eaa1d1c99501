"""The recorded steps of a text, as results keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from dlmctl.generation.page.notebook import trace_html
from dlmctl.sampling.trace import Frame


@dataclass(frozen=True, repr=False)
class Trace(Sequence[Frame]):
    """The steps of a text, from noise to words: a sequence of ``Frame``, the last of which has the finished words.

    With several rounds or candidates, these are the steps of the text that was kept.
    """

    frames: tuple[Frame, ...]

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> Trace: ...

    def __getitem__(self, index: int | slice) -> Frame | Trace:
        return Trace(self.frames[index]) if isinstance(index, slice) else self.frames[index]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def words(self) -> list[list[str]]:
        """The words at every step."""
        return [list(frame.words) for frame in self.frames]

    @property
    def energies(self) -> dict[str, list[float | None]]:
        """The energy of each control at every step; None where there is none, as for the finished words."""
        names = dict.fromkeys(name for frame in self.frames for name in frame.energies)
        return {name: [frame.energies.get(name) for frame in self.frames] for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The steps as plain values: columns ``t``, ``words``, ``settled`` and ``energies``."""
        return {
            "t": [round(frame.t, 4) for frame in self.frames],
            "words": self.words,
            "settled": [[int(is_settled) for is_settled in frame.settled] for frame in self.frames],
            "energies": self.energies,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Trace:
        """Restore a trace from the values of ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: the values are not of a trace.
        """
        energies = {str(name): list(values) for name, values in dict(saved["energies"]).items()}
        columns = zip(saved["t"], saved["words"], saved["settled"], strict=True)
        return cls(
            tuple(
                Frame(
                    float(t),
                    tuple(map(str, words)),
                    tuple(map(bool, settled)),
                    {name: float(values[at]) for name, values in energies.items() if values[at] is not None},
                )
                for at, (t, words, settled) in enumerate(columns)
            )
        )

    def __repr__(self) -> str:
        """One line per step: the time, the words, and the energies."""
        rows = []
        for frame in self.frames:
            energies = "".join(f"  {name} {value:.2f}" for name, value in frame.energies.items())
            rows.append(f"{frame.t:.2f}  {' '.join(frame.words)}{energies}")
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        return trace_html(self.frames, self.energies)
