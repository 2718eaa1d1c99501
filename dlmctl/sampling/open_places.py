"""What the walk asks of masked models where each place is steered alone: logits of open places, a few texts at a time.

Scores of every word at every place are most of the memory of a step and, on a CPU, most of its time, and of a text half
written half of them are of words that stand. Where no control looks at several places at once, the others need not be
worked out, and those that are stay in the cache until the walk is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.prepared import Prepared, PreparedAll, has_own
from dlmctl.diffusion.absorbing import Absorbing
from dlmctl.diffusion.family import Prediction
from dlmctl.sampling.steering import Steered, by_gradient
from dlmctl.sampling.trace import Look


def each_place_alone(control: PreparedAll | None) -> bool:
    """Whether what steers says the same of the words of a place whatever stands at the others."""
    return control is None or not any(_looks_around(part.prepared, by_gradient(part)) for part in control.guides)


def _looks_around(prepared: Prepared, guides: bool) -> bool:
    return has_own(prepared, "restrict", "constrain") or prepared.weighs or (guides and not prepared.exact)


class OpenSteered(Steered):
    """The guided estimates of masked models for one batch; for controls of ``each_place_alone``."""

    family: Absorbing

    @cached_property
    def bias(self) -> Tensor:
        """What is added to the scores ``[B, L, V]``: the evidence, -inf for words that cannot stand where they are."""
        none = torch.zeros((), device=self.banned.device)
        return torch.where(self.banned, -torch.inf, none if self.evidence is None else self.evidence)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        scores, model = self.family.scores_of(x_t, self.mask), self.family.model

        def parts(places: Tensor, rows: int) -> Iterator[Tensor]:
            at = places + x_t.shape[1] * torch.arange(len(places), device=places.device)[:, None]
            for here, found in zip(at.split(rows), scores(at).split(rows), strict=True):
                yield F.embedding(here, self.bias.flatten(0, 1)) + found

        @cache
        def own() -> Tensor:
            with torch.no_grad():
                return self.family.logits_of(x_t, scores)

        @cache
        def whole() -> Tensor:
            return own() + self.bias

        guided = Prediction(lambda: model.soft(whole().softmax(-1)), whole, parts=parts)
        self.note(Look(float(t[0]), x_t, Prediction(lambda: model.soft(own().softmax(-1)), own), guided))
        return guided
