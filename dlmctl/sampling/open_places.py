"""Steering of masked models whose places are steered independently: logits of open places, a few texts at a time.

Scores of every word at every place take most of the memory of a step and, on a CPU, most of its time; in a half-written
text, half of them belong to words that are already written. If no control looks at several places at once, these need
not be computed, and the others stay in the cache until the walk is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.prepared import Prepared, PreparedAll, overrides
from dlmctl.diffusion.absorbing import Absorbing
from dlmctl.diffusion.family import Prediction
from dlmctl.sampling.steering import Steered, needs_gradient
from dlmctl.sampling.trace import StepView


def steers_places_independently(control: PreparedAll | None) -> bool:
    """Whether the steering of a place does not depend on the words at other places."""
    return control is None or not any(
        _depends_on_others(part.prepared, needs_gradient(part)) for part in control.guides
    )


def _depends_on_others(prepared: Prepared, by_gradient: bool) -> bool:
    return overrides(prepared, "restrict", "constrain") or prepared.weighs or (by_gradient and not prepared.exact)


class OpenSteered(Steered):
    """The guided estimates of masked models for one batch, if ``steers_places_independently``."""

    family: Absorbing

    @cached_property
    def bias(self) -> Tensor:
        """The bias of the scores ``[B, L, V]``: the evidence, and -inf for words that cannot stand where they are."""
        zero = torch.zeros((), device=self.banned.device)
        return torch.where(self.banned, -torch.inf, zero if self.evidence is None else self.evidence)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        scores, model = self.family.scores_of(x_t, self.mask), self.family.model

        def parts(places: Tensor, rows: int) -> Iterator[Tensor]:
            flat_places = places + x_t.shape[1] * torch.arange(len(places), device=places.device)[:, None]
            for piece, piece_scores in zip(flat_places.split(rows), scores(flat_places).split(rows), strict=True):
                yield F.embedding(piece, self.bias.flatten(0, 1)) + piece_scores

        @cache
        def own() -> Tensor:
            with torch.no_grad():
                return self.family.logits_of(x_t, scores)

        @cache
        def steered() -> Tensor:
            return own() + self.bias

        guided = Prediction(lambda: model.soft(steered().softmax(-1)), steered, parts=parts)
        self.record(StepView(float(t[0]), x_t, Prediction(lambda: model.soft(own().softmax(-1)), own), guided))
        return guided
