"""Texts are drawn on devices without float64."""

import pytest

from controls import Contains, Pos
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.generation.generate import generate
from tests.sampling.pretended_mps import pretended_mps

TAGS, PHRASES = Pos(tags=["DET", "NOUN", "VERB"]), Contains("cheap", "river")


@pytest.mark.filterwarnings("ignore:at..frobenius_norm is deprecated")  # said of tensors of other classes alone
@pytest.mark.parametrize(
    ("model", "control", "settings"),
    [
        ("e2e", TAGS, {}),
        ("e2e", TAGS, {"guidance": {"method": "langevin"}}),
        ("e2e", PHRASES, {"sampler": {"name": "ancestral", "top_p": 0.9}}),
        ("everyday", TAGS, {"candidates": 2, "rank_by": ["acceptability"]}),
    ],
)
def test_a_device_without_float64_draws(model, control, settings):
    sampler = {"steps": 3, **settings.get("sampler", {})}
    with pretended_mps():
        # A model of its own, as its weights cannot be moved back.
        own = from_pretrained(from_pretrained(model).folder)
        result = generate(control, model=own, samples=2, seed=1, device="mps", **{**settings, "sampler": sampler})
    assert all(result.texts)
    assert result.environment["device"] == "mps"
