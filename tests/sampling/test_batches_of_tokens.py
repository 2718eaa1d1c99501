"""A text of a checkpoint over tokens is the same alone and in a batch, whatever settings, prompts and controls it has,
and its exact controls hold.

``DLMCTL_FUZZ=10000 pytest tests/sampling/test_batches_of_tokens.py`` is the long form.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlmctl
from controls import Avoid, Characters, Contains, Edit, Length, Lexicon, Pattern, Syllables
from dlmctl.errors import RecipeError
from tests.checkpoint.tiny_blocks import write_llada2, write_sdar
from tests.checkpoint.tiny_encoders import write_encoder
from tests.checkpoint.tiny_uniform import write_duo
from tests.checkpoint.tiny_vendors import write_bd3lm, write_dream, write_llada, write_mdlm, write_sedd
from tests.recipe.fuzzing import fuzzed

WRITERS = {
    "LLaDA": write_llada,
    "Dream": write_dream,
    "MDLM": write_mdlm,
    "SEDD": write_sedd,
    "BD3LM": write_bd3lm,
    "Duo": write_duo,
    "SDAR": write_sdar,
    "LLaDA 2": write_llada2,
    "BERT": partial(write_encoder, kind="bert"),
}
TEXTS = 4
PROMPTS = ["the red boat", "a river near", "the"]
OTHERS = [
    Contains(words=["boat"]),
    Avoid(words=["river", "red"]),
    Pattern("(the)? <any>*"),
    Edit("the boat on the river", 2, 1),
    Characters(14, tolerance=6),
    Syllables(5, tolerance=2),
    Lexicon(words=["boat", "red", "river"]),
]
SAMPLERS = st.fixed_dictionaries(
    {"new_tokens": st.sampled_from([12, 20]), "steps": st.sampled_from([None, 3, 5, 8, 14])},
    optional={
        "name": st.sampled_from(["entropy", "confidence", "margin", "random", "ancestral", "remasking"]),
        "block": st.sampled_from([2, 3, 4, 8]),
        "threshold": st.sampled_from([0.05, 0.3]),
        "particles": st.sampled_from([2, 3]),
        "temperature": st.sampled_from([0.0, 1.0]),
    },
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("batches")
    found = {name: dlmctl.load(writes(root / name)) for name, writes in WRITERS.items()}
    for model in found.values():
        model.model.double()  # so that rounding, which depends on the batch, decides nothing
    return found


@st.composite
def controls(draw: st.DrawFn) -> Any:
    """A control, often with another number of words for each text; None for free text."""
    parts: list[Any] = []
    if draw(st.booleans()):
        counts = draw(st.lists(st.integers(1, 8), min_size=TEXTS, max_size=TEXTS))
        parts.append(Length.each([{"words": count} for count in counts]))
    parts += draw(st.lists(st.sampled_from(OTHERS), max_size=2, unique_by=id))
    whole = None
    for part in parts:
        whole = part if whole is None else whole & part
    return whole


@fuzzed(40)
@given(
    name=st.sampled_from(sorted(WRITERS)),
    control=controls(),
    sampler=SAMPLERS,
    prompt=st.sampled_from([None, PROMPTS]),
    number=st.integers(0, TEXTS - 1),
    seed=st.integers(0, 99),
)
def test_exact_controls_hold_and_a_text_alone_is_the_text_in_a_batch(
    models, name, control, sampler, prompt, number, seed
):
    def texts(samples):
        settings = {"precision": "fp32", **sampler}
        return list(
            models[name].generate(control, samples=samples, prompt=prompt, sampler=settings, seed=seed, device="cpu")
        )

    try:
        together = texts(TEXTS)
    except RecipeError:  # such as too few steps for the blocks
        return
    assert all(check.passed for text in together for check in text.checks.values())
    (alone,) = texts([number])
    assert alone.words == together[number].words
    if alone.nats is not None:
        assert alone.nats == pytest.approx(together[number].nats, abs=1e-3)
