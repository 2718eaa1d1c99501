"""`guidance.scale: 0` turns off all guidance, of whatever kind; exact constraints remain."""

import pytest
import torch

from controls import Contains, Length
from dlmctl import Check, Control, ControlParams, Prepared
from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.generation.generate import generate
from tests.conftest import tiny_config

HIDDEN, LAYERS = 32, 2


class Kept(Prepared):
    """Never the word 7."""

    def restrict(self, logits):
        return logits.index_fill(-1, torch.tensor([7]), -torch.inf)


class Held(Kept):
    exact = True


class ByEvidence(Kept):
    def __init__(self, batch):
        self.evidence = torch.zeros(len(batch), batch.length, batch.model.config.vocab_size)
        self.evidence[..., 9] = 30.0


class ByTheOtherWords(Kept):
    weighs = True

    def __init__(self, batch):
        del batch

    def evidence_given(self, probabilities):
        return 30.0 * torch.nn.functional.one_hot(torch.tensor(9), probabilities.shape[-1]).expand_as(probabilities)


class ByGradient(Kept):
    def __init__(self, batch):
        del batch

    def energy(self, state):
        return -state.word_log_probs[..., 9].sum(1)


class ByHints(Kept):
    def __init__(self, batch):
        shape = (LAYERS, len(batch), batch.length, HIDDEN)
        self.hints = 20 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


class ByTags(Kept):
    def __init__(self, batch):
        self.tags = [["NOUN", "VERB", "ADJ", "DET"] * 2 for _ in range(len(batch))]


class Leads(Control[ControlParams]):
    name = "leads"
    Params = ControlParams
    by = None

    def prepare(self, batch):
        return Held() if self.by is None else self.by(batch)

    def check(self, params, words):
        return Check(1.0, True, "")


def led(by):
    control = Leads()
    control.by = by
    return control & Length(6)


@pytest.fixture(scope="module")
def masked(tmp_path_factory, tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden": HIDDEN, "layers": LAYERS, "heads": 2, "inner": 48, "max_length": 16}
    lengths = [0, 0, 0, 0, 1, 2, 4]
    config = MaskedConfig(
        length=16, denoiser=sizes, vocab_size=len(tokenizer), sentence_lengths=lengths, tags=list(UPOS_TAGS)
    )
    model = MaskedLM(config)
    with torch.no_grad():  # a network without any training hardly tells one state from another
        model.denoiser.model.embed_tokens.weight.mul_(40.0)
    return Pretrained(model.eval(), tokenizer, tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module", params=["words", "latents"])
def gaussian(request, tmp_path_factory, tokenizer):
    torch.manual_seed(0)
    model = DiffusionLM(tiny_config(len(tokenizer), objective="cross_entropy" if request.param == "words" else "paper"))
    return Pretrained(model.eval(), tokenizer, tmp_path_factory.mktemp("latents"))


def texts(model, control, name="auto", **guidance):
    settings = {"name": name, "precision": "fp32", "steps": None if model.model.family == "masked" else 6}
    asked = {"samples": 6, "sampler": settings, "guidance": guidance, "device": "cpu"}
    return [sample.words for sample in generate(control, model=model, **asked)]


@pytest.mark.parametrize("by", [ByEvidence, ByTheOtherWords, ByGradient, ByHints, ByTags])
def test_masked_models(masked, by):
    held = texts(masked, led(None))
    assert texts(masked, led(by), scale=0.0) == held
    assert texts(masked, led(by)) != held


@pytest.mark.parametrize("by", [ByEvidence, ByTheOtherWords, ByGradient, ByHints, ByTags])
def test_a_weight_of_0_turns_one_control_off(masked, by):
    assert texts(masked, 0 * led(by), "entropy") == texts(masked, led(None), "entropy")


@pytest.mark.parametrize("by", [ByEvidence, ByTheOtherWords, ByGradient])
def test_latents(gaussian, by):
    # Where there are no word logits, what is exact guides by an energy, too.
    held = texts(gaussian, led(None), scale=0.0)
    assert texts(gaussian, led(by), scale=0.0) == held


@pytest.mark.parametrize("by", [ByEvidence, ByTheOtherWords, ByHints])
def test_other_scales_move_the_gradient_alone(masked, by):
    assert texts(masked, led(by), scale=0.1, since=0.5) == texts(masked, led(by), scale=9.0)


class ByTheOtherWordsWithEnergy(ByTheOtherWords):
    def energy(self, state):
        return -90.0 * state.word_log_probs[..., 8].sum(1)


def test_evidence_given_the_other_words_replaces_the_gradient(masked):
    assert texts(masked, led(ByTheOtherWordsWithEnergy)) == texts(masked, led(ByTheOtherWords))


def test_an_exact_control_guides_only_latents_without_word_logits(gaussian):
    control = Contains("bread") & Length(6)
    assert (texts(gaussian, control) == texts(gaussian, control, scale=0.0)) is gaussian.model.predicts_words


def test_an_exact_control_holds_on_latents_without_word_logits(gaussian):
    assert all(len(words) == 6 for words in texts(gaussian, Length(6), scale=0.0))
