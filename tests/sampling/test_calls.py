"""Calls of a step on the device: as many for many texts as for few, and nothing is read back."""

import pytest
import torch

from benchmarks.calls import GPU_CONSTANTS, count_calls
from controls import (
    Avoid,
    Characters,
    Contains,
    Edit,
    Infill,
    Length,
    Lexicon,
    Pattern,
    Pos,
    Semantic,
    Surprisal,
    Syllables,
    SyntaxTree,
)
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.evaluation.calls import CallCounter
from dlmctl.recipe.presets import settings_of
from dlmctl.sampling.plan import Plan

STEPS = 3
# Calls of a step beside those of networks and of gradients, for any one control.
MOST = 150
NINE = Length(9)
CONTROLS = {
    "free": NINE,
    "pos": Pos(tags=["DET", "NOUN", "VERB|AUX", "*", "PUNCT"]),
    "tree": SyntaxTree(tree="(S (NP (DT a) (NN pub)) (VP (VBZ opens)) (. .))"),
    "spans": SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}]) & NINE,
    "semantic": Semantic(food="Italian") & NINE,
    "infill": Infill("The ___{2} is a ___ pub ."),
    "edit": Edit("The pub is a cheap place .", 2),
    "edit beside": Edit("The pub is a cheap place .", 2) & Avoid("pub"),
    "edit within a tolerance": Edit("The pub is a cheap place .", 2, 1) & Length(8),
    "not edit": ~Edit("The pub is cheap .", 2, 1) & Length(5),
    "contains": Contains("riverside", "cheap pub") & NINE,
    "avoid": Avoid("pub", "city centre") & NINE,
    "pattern": Pattern("The <any>+ (pub|place) .") & NINE,
    "lexicon": Lexicon(words=["the", "pub", "place", "is", "a", "cheap", "good", "food"]) & NINE,
    "syllables": Syllables(4) & Length(4),
    "characters": Characters(40) & NINE,
    "surprisal": Surprisal(where={"place": -2}, nats=[3, 6]) & NINE,
    "any": (Semantic(food="Italian") | Contains("cheap")) & NINE,
    "not": ~Semantic(food="Italian") & NINE,
}
# Of these the way depends on how much there is to be summed.
HELD = ("semantic", "edit beside", "not edit", "contains", "avoid", "pattern", "syllables", "characters", "any")


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Noise and words in pieces as large as on a GPU."""
    for way in GPU_CONSTANTS:
        monkeypatch.setattr(*way)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", CONTROLS)
def test_many_texts_take_the_calls_of_few_and_nothing_is_read_back(e2e, name):
    few, many = (count_calls(e2e, CONTROLS[name], texts, STEPS) for texts in ((8, 32) if name in HELD else (2, 16)))
    assert few.names == many.names
    assert (few.network, few.backward) == (many.network, many.backward)
    assert few.network + few.other > 0
    assert many.waits == many.made == 0
    # Of several controls, or of one as another.
    if name not in ("any", "not"):
        assert many.per_step()["other"] <= MOST


@pytest.mark.usefixtures("as_on_a_gpu")
def test_long_texts_take_the_calls_of_short_ones(e2e):
    """Up to the next power of 2, with which they grow by a dozen."""
    short, longer, longest = (
        count_calls(e2e, Contains("riverside", "cheap pub") & Length(n), 8, STEPS) for n in (17, 31, 62)
    )
    assert short.names == longer.names
    assert 0 < longest.per_step()["other"] - short.per_step()["other"] <= 12
    assert longest.per_step()["other"] <= MOST


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("sampler", ["entropy", "confidence", "remasking", "random"])
def test_the_same_for_masked_models(tokenizer, sampler):
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    config = MaskedConfig(vocab_size=len(tokenizer), length=16, denoiser=sizes, sentence_lengths=[0] * 8 + [1])
    torch.manual_seed(0)
    model = Pretrained(MaskedLM(config).eval(), tokenizer, from_pretrained("e2e").folder)
    few, many = (count_calls(model, NINE, texts, STEPS, name=sampler) for texts in (2, 16))
    assert few.names == many.names
    assert many.waits == many.made == 0


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("control", [Contains("garden", "old house"), Characters(50, tolerance=5)])
def test_a_masked_model_that_writes_one_word_a_step_takes_few_calls_as_well(control):
    calls = count_calls(from_pretrained("everyday"), control, 2, 64)
    assert calls.steps > STEPS
    assert calls.waits == calls.made == 0
    assert calls.per_step()["other"] <= MOST


def test_early_exit_reads_one_small_tensor(e2e):
    """On a CPU at every step; ``READ_EVERY`` steps apart on a GPU."""
    calls = count_calls(e2e, NINE, 4, STEPS, patience=0.25)
    assert calls.names["waits: tolist"] > 0
    assert calls.waits == calls.names["waits: tolist"] <= STEPS


def test_reads_and_allocations_are_counted(e2e):
    counter = CallCounter()
    with counter.counting() as calls:
        x = torch.tensor([1.0, 2.0])
        x[[0, 1]].sum().item()
        bool((x > 0).all())
        torch.tensor(0.5, dtype=torch.float64)
    assert (calls.waits, calls.made) == (2, 3)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_batch_of_many_is_prepared_with_the_calls_of_few(e2e):
    """Early exit prepares the rest of a batch anew."""
    for name in ("pos", "tree", "semantic"):
        found = []
        for texts in (2, 16):
            counter = CallCounter()
            plan = Plan(e2e, CONTROLS[name], settings_of("fast").sampler, settings_of("fast").guidance, texts)
            prepare_only(plan, texts)  # what is loaded once in a process, whatever test comes first
            with counter.counting() as calls:
                prepare_only(plan, texts)
            found.append(calls)
        assert found[0].made == found[1].made
        assert found[0].other == found[1].other


def prepare_only(plan, texts):
    from dlmctl.sampling.batch_layout import batch_context, layout_of, prepare_batch

    draws = [Draw(0, sample) for sample in range(texts)]
    layout = layout_of(plan, draws[0])
    assert len(batch_context(plan, [(draw, layout) for draw in draws])) == texts
    prepare_batch(plan, [(draw, layout) for draw in draws])
