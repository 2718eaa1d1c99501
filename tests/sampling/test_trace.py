"""Traces: their content, that they change no text, and that nothing is recorded unless requested."""

from __future__ import annotations

from itertools import pairwise, zip_longest

import pytest
import torch

from controls import Contains, Infill, Length, Pos
from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.kept_words import KeptWords
from dlmctl.control.prepared import Prepared
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.generation.trace import Trace
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling import draw as drawing
from dlmctl.sampling.trace import Frame
from dlmctl.text.tokenizer import WordTokenizer
from tests.conftest import SENTENCES

TAGS = ["DET", "NOUN", "VERB", "ADJ", "NOUN"]
# With many steps and no patience texts leave their batch early.
LEAVING = SamplerSettings(steps=12, patience=0.1)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    torch.manual_seed(0)
    words = WordTokenizer.from_corpus(SENTENCES, min_count=1, splitting="penn")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 32}
    settings = {"vocab_size": len(words), "length": 24, "denoiser": sizes, "sentence_lengths": [0, 0, 0, 0, 1, 2, 4]}
    config = MaskedConfig.model_validate({**settings, "tags": list(UPOS_TAGS)})
    return Pretrained(MaskedLM(config).eval(), words, tmp_path_factory.mktemp("none"))


def family(name: str, request: pytest.FixtureRequest) -> Pretrained:
    return request.getfixturevalue("pretrained" if name == "latents" else "masked")


@pytest.mark.parametrize("name", ["latents", "masked"])
def test_a_trace_ends_with_the_text_and_changes_none(name, request):
    model = family(name, request)
    sampler = LEAVING if name == "latents" else None
    options = {"model": model, "samples": 4, "candidates": 2, "sampler": sampler, "seed": 4, "device": "cpu"}
    control = Contains("bread") & Length(6, tolerance=1)
    plain, traced = (generate(control, **options, trace=some) for some in (False, 3))
    assert traced.texts == plain.texts
    assert plain.trace == {}
    assert list(traced.trace) == [0, 1, 2]
    for number, trace in traced.trace.items():
        assert trace.words[-1] == traced[number].words
        assert all(trace[-1].settled)
        assert set(trace.energies) == {"contains", "length"}
        assert trace.energies["contains"][-1] is None
        assert all(value is not None for value in trace.energies["contains"][:-1])
        # A word of latents is settled if it was there a step before.
        steps = [frame for frame in trace[:-1] if name == "latents"]
        for before, after in pairwise([Frame(1.0, (), (), {}), *steps]):
            pairs = zip_longest(after.words, before.words[: len(after.words)])
            assert after.settled == tuple(word == old for word, old in pairs)
        times = [frame.t for frame in trace]
        assert times == sorted(times, reverse=True)
        assert Trace.from_dict(trace.to_dict()).to_dict() == trace.to_dict()


@pytest.mark.parametrize("name", ["latents", "masked"])
def test_with_particles_the_trace_is_that_of_the_kept_one(name, request):
    sampler = {"steps": 6, "eta": 1.0, "particles": 3, "resample_every": 1, "reward": "score"}
    options = {"model": family(name, request), "samples": 3, "sampler": sampler, "device": "cpu"}
    control = Length(5) & (Contains("bread") | Contains("cats"))
    plain, traced = (generate(control, **options, trace=some) for some in (False, [0, 2]))
    assert traced.texts == plain.texts
    for number, trace in traced.trace.items():
        assert trace.words[-1] == traced[number].words
        assert len(trace) == {"latents": 7, "masked": 6}[name]  # five words to write, and the text
        stands = [(frame.words, frame.settled) for frame in trace[:-1]]
        # A word that is written stays, in a masked model: the past is that of one walk.
        for before, after in pairwise(stands):
            kept = [at for at, settled in enumerate(before[1]) if settled]
            assert name == "latents" or all(before[0][at] == after[0][at] and after[1][at] for at in kept)
    seen = []
    generate(control, **options, watch=seen.append)
    assert {len(frames) for frames in seen} == {3}


def test_a_masked_text_settles_word_by_word(masked):
    trace = generate(Infill("the ___{5} ."), model=masked, samples=1, trace=True, device="cpu").trace[0]
    counts = [sum(frame.settled) for frame in trace]
    assert counts == [2, 3, 4, 5, 6, 7]  # the two words of the template stand before the first step
    for before, after in pairwise(trace):
        kept = [word for word, stands in zip(before.words, before.settled, strict=True) if stands]
        assert kept == [word for word, stands in zip(after.words, before.settled, strict=True) if stands]
    # Exact controls have an energy too: 0 here, as the words of the template are written.
    assert trace.energies["infill"][0] == 0


def test_texts_that_left_early_are_traced_up_to_there(pretrained):
    result = generate(Pos(tags=TAGS), model=pretrained, samples=4, sampler=LEAVING, trace=True, device="cpu")
    assert min(len(trace) for trace in result.trace.values()) < 13
    assert all(trace.words[-2] == trace.words[-1] for trace in result.trace.values() if len(trace) < 13)


class Silent(Prepared):
    """A restriction, here of nothing, without an energy."""

    exact = True

    def restrict(self, logits):
        return logits


class Quiet(KeptWords):
    name = "quiet"

    def prepare(self, batch):
        return Silent()


def test_controls_without_an_energy_are_left_out(masked):
    control = Quiet(words=["the", None, None]) & Length(3)
    assert set(generate(control, model=masked, samples=1, trace=True, device="cpu").trace[0].energies) == {"length"}
    assert generate(model=masked, samples=1, trace=True, device="cpu").trace[0].energies == {}


def test_several_controls_of_a_kind_are_told_apart(masked):
    control = Contains("bread") & Contains("garden")
    result = generate(control, model=masked, samples=1, trace=[0], device="cpu")
    assert list(result.trace[0].energies) == list(result[0].checks) == ["contains", "contains 2"]


def test_nothing_is_recorded_unless_requested(masked, monkeypatch):
    monkeypatch.setattr(drawing, "Recorder", None)
    assert generate(model=masked, samples=2, device="cpu").trace == {}
    assert generate(model=masked, samples=2, trace=[7], device="cpu").trace == {}
    with pytest.raises(TypeError):
        generate(model=masked, samples=2, trace=True, device="cpu")


def test_watch_receives_every_step_of_every_text(masked):
    seen = []
    result = generate(Length(5), model=masked, samples=3, watch=seen.append, device="cpu")
    assert len(seen) == 6
    assert {draw.sample for draw in seen[0]} == {0, 1, 2}
    assert [list(frame.words) for frame in seen[-1].values()] == [sample.words for sample in result]
    assert result.trace == {}


@pytest.mark.parametrize("trace", ["all", -1, 2.5, [0, "1"]])
def test_a_wrong_trace_is_one_message(masked, trace):
    with pytest.raises(UserError, match="trace: must be a whole number of 0 or more"):
        generate(model=masked, samples=1, trace=trace)
