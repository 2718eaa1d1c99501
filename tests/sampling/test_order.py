"""The order in which a masked model writes if the sampler is ``auto``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dlmctl.control.prepared import Part, Prepared, PreparedAll
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.masked_draw import sampler_name


class Guide(Prepared):
    def __init__(self, *, weighs: bool = False, exact: bool = False) -> None:
        self.weighs, self.exact = weighs, exact

    def energy(self, state):
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("guides", "name"),
    [
        ([], "entropy"),
        ([Guide(exact=True)], "entropy"),
        ([Guide()], "confidence"),
        # A label is asked of the whole text: the surest words of it are the same in every one.
        ([Guide(weighs=True), Guide(exact=True)], "entropy"),
        ([Guide(weighs=True), Guide()], "confidence"),
        # What only checks, as what nothing has a contrary of, says nothing of a place.
        ([Prepared()], "entropy"),
        ([Guide(weighs=True), Prepared()], "entropy"),
    ],
)
def test_guidance_of_single_places_writes_the_surest_word_first(guides, name) -> None:
    control = PreparedAll([Part(f"part {at}", 1.0, guide) for at, guide in enumerate(guides)])
    assert sampler_name(SamplerSettings(), control, SimpleNamespace(family="masked")) == name


def test_particles_need_draws_of_known_probability() -> None:
    control, model = PreparedAll([Part("part", 1.0, Guide())]), SimpleNamespace(family="masked")
    assert sampler_name(SamplerSettings(particles=2), control, model) == "entropy"
    for name in ("confidence", "low_confidence"):
        with pytest.raises(RecipeError, match="keeps the likeliest"):
            sampler_name(SamplerSettings(particles=2, name=name), control, model)
        assert sampler_name(SamplerSettings(name=name), control, model) == name
