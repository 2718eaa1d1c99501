"""Controls about words, on checkpoints and in other samplers, however many tokens a step writes."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

import dlmctl
from controls import Avoid, Characters, Contains, Edit, Length, Lexicon, Syllables
from dlmctl import LogitsControl
from tests.checkpoint.tiny_gemma import tiny_gemma
from tests.checkpoint.tiny_uniform import write_duo, write_udlm
from tests.checkpoint.tiny_vendors import write_bd3lm, write_dream, write_llada, write_sedd
from tests.sampling.test_logits_control import diffused

BOAT = Contains(words=["boat"])
CONTROLS = {
    "contains": BOAT,
    "with a length": BOAT & Length(words=3),
    "avoid": Avoid(words=["river", "red"]),
    "lexicon": BOAT & Lexicon(words=["boat", "red", "river"], min_words=2),
    "an edit that others leave no draft": Edit("the boat near a river", 2) & Avoid(words=["boat", "river"]),
    "syllables": Syllables(4, tolerance=1) & BOAT,
}
# Checked in the text as it is written.
WRITTEN = {"characters": BOAT & Characters(24, tolerance=1)}


def write_gemma(folder):
    network, tokenizer = tiny_gemma(12)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# One of each way to write tokens; Dream is below.
WRITERS = [write_llada, write_bd3lm, write_sedd, write_gemma, write_udlm, write_duo]


@pytest.fixture(scope="module", params=WRITERS)
def model(request, tmp_path_factory):
    return dlmctl.load(request.param(tmp_path_factory.mktemp("words") / "m"))


@pytest.mark.parametrize("control", [*CONTROLS.values(), *WRITTEN.values()], ids=[*CONTROLS, *WRITTEN])
@pytest.mark.parametrize("steps", [None, 4])
def test_words_hold(model, control, steps):
    sampler = {"precision": "fp32", "steps": steps}
    sampler |= {} if model.model.family == "canvas" else {"new_tokens": 12, "temperature": 1.0}
    found = model.generate(control, prompt="the red", samples=3, sampler=sampler, device="cpu")
    assert all(sample.passed for sample in found), [sample.text for sample in found]


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_words_hold_in_other_samplers(control, tmp_path):
    dream = dlmctl.load(write_dream(tmp_path / "m"))
    start = dream.tokenizer.start_id
    prompt = torch.tensor([[start, 5, 6], [start, 7, 8]])
    for steps in (12, 3):
        hook = LogitsControl(control, dream.tokenizer.inner).hook
        for row in diffused(dream, prompt, 12, steps, hook).tolist():
            assert control(dream.tokenizer.words([start, *row])).passed
    gemma, tokenizer = tiny_gemma(12)
    inside = LogitsControl(control, tokenizer)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 12, "max_denoising_steps": 4, "logits_processor": LogitsProcessorList([inside])}
    for row in gemma.generate(prompt, **settings).sequences[:, 3:].tolist():
        assert control(inside.tokenizer.words([inside.tokenizer.start_id, *row])).passed
