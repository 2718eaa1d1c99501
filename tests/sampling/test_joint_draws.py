"""Several words in one step under exact controls: words of one text, drawn with its probability."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

import dlmctl
from controls import Contains, Length, Pattern
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from tests.checkpoint.tiny_vendors import write_sedd
from tests.diffusion.tiny_masked import MASK, PLACES, TEXTS, TOKENIZER, Enumerated, tiny_masked

OAK = TOKENIZER.vocabulary["oak"]
TEXTS_WITH_OAK = torch.tensor([OAK in text for text in TEXTS])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Pretrained(tiny_masked(6.0), TOKENIZER, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def table():
    return Enumerated(tiny_masked(6.0), framed=True)


def share_of_texts(model, texts=4000, **settings):
    walk = {"temperature": 1.0, "precision": "fp32", "min_p": 0.0, "name": "random"}
    found = generate(
        Pattern("<any>* oak <any>*") & Length(words=3),
        model=model,
        samples=texts,
        seed=5,
        sampler=SamplerSettings(**{**walk, **settings}),
        guidance=Guidance(scale=0.0),
        batch_size=4000,
        device="cpu",
    )
    ids = torch.tensor([[TOKENIZER.vocabulary[word] - 4 for word in sample.words] for sample in found])
    return (ids * torch.tensor([9, 3, 1])).sum(1).bincount(minlength=len(TEXTS)).double() / texts


def given_the_canvas(table, canvas, temperature=1.0):
    """Probabilities of ``TEXTS`` with oak, their words independent given a canvas."""
    log_probs = (table.at(torch.tensor([canvas]))[0] / temperature).log_softmax(-1)
    chances = torch.stack([log_probs[list(PLACES), list(text)].sum() for text in TEXTS]).exp()
    fits = [all(at in (MASK, word) for at, word in zip(canvas, text, strict=True)) for text in TEXTS]
    chances = chances * TEXTS_WITH_OAK * torch.tensor(fits)
    return chances / chances.sum()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_text_written_in_one_step_has_its_probability(model, table, temperature):
    wanted = given_the_canvas(table, (MASK, MASK, MASK), temperature)
    alone = table.log_probs[-1, 0].exp()
    assert 0.05 < alone[OAK] < 0.9  # not decided by the model
    found = share_of_texts(model, steps=1, temperature=temperature)
    assert not found[~TEXTS_WITH_OAK].any()
    # The sampling error of so many texts is about 0.03.
    assert float((found - wanted).abs().sum() / 2) < 0.06


def test_a_text_written_in_two_steps_has_its_probability(model, table):
    first = given_the_canvas(table, (MASK, MASK, MASK))
    wanted = torch.zeros(len(TEXTS), dtype=torch.float64)
    for pair in combinations(PLACES, 2):
        for number, text in enumerate(TEXTS):
            alike = torch.tensor([all(other[at] == text[at] for at in pair) for other in TEXTS])
            canvas = tuple(word if at in pair else MASK for at, word in enumerate(text))
            if TEXTS_WITH_OAK[alike].any():
                # The last word alone: given the canvas, and that there is an oak.
                wanted[number] += first[alike].sum() * given_the_canvas(table, canvas)[number] / 3
    found = share_of_texts(model, steps=2)
    assert float(wanted.sum()) == pytest.approx(1.0)
    assert float((found - wanted).abs().sum() / 2) < 0.06


def test_a_required_word_of_a_checkpoint_is_not_always_at_its_likeliest_place(tmp_path):
    checkpoint = dlmctl.load(write_sedd(tmp_path / "m"))
    sampler = {"precision": "fp32", "steps": 2, "new_tokens": 12, "temperature": 1.0}
    found = checkpoint.generate(Contains("boat"), prompt="the red", samples=24, sampler=sampler, device="cpu")
    assert all(sample.passed for sample in found)
    assert len({sample.words.index("boat") for sample in found}) > 3
