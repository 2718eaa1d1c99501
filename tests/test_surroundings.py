"""What a program around a run has set of torch: it changes no text, and a run changes nothing of it."""

from __future__ import annotations

import pickle

import pytest
import torch

from controls import Classifier, Pos
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.diffusion.tiny_masked import TOKENIZER, tiny_masked

TAGS = Pos(tags=["DET", "NOUN", "VERB"])
SHORT = SamplerSettings(steps=4, precision="fp32")


def words(model, control=TAGS, sampler=SHORT):
    return [sample.words for sample in generate(control, model=model, samples=2, seed=1, sampler=sampler, device="cpu")]


@pytest.fixture(scope="module")
def wanted():
    return words(from_pretrained("e2e"))


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "no_grad", "autocast"],
)
def test_a_mode_around_a_run_changes_no_text(wanted, mode):
    with mode():
        model = from_pretrained("e2e")
        assert words(model) == wanted
    assert words(model) == wanted


@pytest.mark.parametrize(
    ("model", "control"), [("e2e", TAGS), ("everyday", Classifier(label="positive", name="sentiment"))]
)
def test_random_numbers_of_the_program_are_left_alone(model, control):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    words(from_pretrained(model), control, SamplerSettings(steps=4, precision="fp32"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_masked_model_can_be_sent_to_another_process():
    model = tiny_masked()
    sent = pickle.loads(pickle.dumps(model))
    ids = torch.tensor([[0, len(TOKENIZER), 4, 1]])
    assert torch.equal(sent.logits(ids), model.logits(ids))
    assert sent.state_dict().keys() == model.state_dict().keys()
