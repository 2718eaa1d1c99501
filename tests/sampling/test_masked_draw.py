"""Texts of a masked model under controls, through the public API."""

from __future__ import annotations

import pytest
import torch

from controls import Avoid, Contains, Infill, Length, Pattern, Pos
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.base import AnyOf
from dlmctl.control.evidence.table import fingerprint, save_table
from dlmctl.control.evidence.tags import count_tags
from dlmctl.control.prepared import Energy
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.text.tokenizer import WordTokenizer
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved masked model with random weights, and a table for `pos` counted from three sentences."""
    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    words = WordTokenizer.from_corpus(SENTENCES, min_count=1, splitting="penn")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 32}
    config = MaskedConfig(
        length=24,
        denoiser=sizes,
        vocab_size=len(words),
        sentence_lengths=[0, 0, 0, 0, 1, 2, 4, 2],
        tags=list(UPOS_TAGS),
    )
    save_pretrained(MaskedLM(config), words, folder)
    number = {tag: at for at, tag in enumerate(UPOS_TAGS)}
    tagged = [
        (words.encode(sentence)[1:-1], [number[tag] for tag in tags])
        for sentence, tags in zip(SENTENCES, upos_tagger()(SENTENCES), strict=True)
    ]
    table = count_tags(tagged, UPOS_TAGS, len(words), fingerprint(list(words.vocabulary)))
    save_table(table, folder / "controls" / "pos" / "tags.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Pretrained:
    return from_pretrained(folder)


def texts(model, control=None, **changes):
    settings = {**settings_of("fast", "masked").sampler.model_dump(), "precision": "fp32", **changes.pop("sampler", {})}
    options = {"samples": 6, "seed": 3, "device": "cpu", "sampler": SamplerSettings(**settings), **changes}
    return list(generate(control, model=model, **options))


def test_a_model_comes_back_as_it_was_saved(folder, model):
    torch.manual_seed(0)
    assert model.tokenizer.splitting == "penn"
    again = from_pretrained(folder)
    ids = torch.tensor([[0, 5, model.model.mask_id, 1]])
    assert torch.equal(again.model.logits(ids), model.model.logits(ids))
    fresh = MaskedLM(model.model.config)
    fresh.load_state_dict(model.model.state_dict())
    assert torch.allclose(fresh.eval().logits(ids), model.model.logits(ids))


def test_free_texts_have_lengths_of_the_training_text_and_no_special_tokens(model):
    found = texts(model, samples=20)
    assert {len(sample.words) for sample in found} <= {4, 5, 6, 7}
    known = set(model.tokenizer.vocabulary) - {"START", "END", "UNK", "PAD"}
    assert all(set(sample.words) <= known for sample in found)
    assert all(sample.nats > 0 for sample in found)


def test_texts_of_one_batch_have_latents_of_their_own_positions(model):
    drawn = texts(model, Length(words=5, tolerance=2))
    assert len({len(sample.words) for sample in drawn}) > 1
    assert all(len(sample.latent) == len(sample.words) + SPECIAL for sample in drawn)


@pytest.mark.parametrize(
    "name", ["ancestral", "remasking", "random", "low_confidence", "confidence", "margin", "entropy"]
)
def test_every_sampler_leaves_no_mask(model, name):
    found = texts(model, Length(6), samples=3, sampler={"name": name, "remask": 0.2 * (name == "remasking")})
    assert all(len(sample.words) == 6 and sample.passed for sample in found)


@pytest.mark.parametrize(
    "control",
    [
        Length(8),
        Contains("warm bread", "river"),
        Avoid("the", "old bridge") & Contains("bridge"),
        Infill("the ___ bakery ___{1,3} bread ."),
        Pattern("<any>{2,3} (garden|river) <any>* ."),
        ~Contains("the") & Length(5),
        Contains("Anna") & Pattern("<any>+ .") & Avoid("river"),
    ],
    ids=repr,
)
def test_exact_controls_hold_in_every_text(model, control):
    assert all(sample.passed for sample in texts(model, control, samples=12))


def test_a_text_is_the_same_in_any_batch(model):
    wide = Pretrained(from_pretrained(model.folder).model.double(), model.tokenizer, model.folder)
    alone, together = (texts(wide, Contains("river"), samples=8, batch_size=size) for size in (1, 8))
    assert [sample.words for sample in alone] == [sample.words for sample in together]


def test_tags_steer_by_their_table_and_reach_the_network(model):
    tags = upos_tagger()([SENTENCES[0]])[0]

    def score(weight: float) -> float:
        return sum(sample.checks["pos"].score for sample in texts(model, weight * Pos(tags=tags), samples=16))

    assert score(1.0) > score(0.0) + 4


def test_settings_for_latents_are_refused(model):
    with pytest.raises(RecipeError, match="sampler of latents"):
        texts(model, sampler={"name": "ddim"})
    with pytest.raises(UserError, match="takes no label"):
        texts(model, label="cheap")


def test_combinations_keep_all_guidance(model):
    """Evidence from word counts, and tags that the network reads."""
    one = Pos(tags=["DET", "ADJ", "NOUN", "VERB", "ADJ", "NOUN", "PUNCT"])
    plain = [sample.words for sample in texts(model, one & Avoid("river") & Avoid("cats"))]
    for control in ((1 * (one & Avoid("river"))) & Avoid("cats"), AnyOf([one & Avoid("river")]) & Avoid("cats")):
        assert [sample.words for sample in texts(model, control)] == plain
    half, whole = 0.5 * (one & Avoid("river")) & Avoid("cats"), 0.5 * one & Avoid("river") & Avoid("cats")
    assert [sample.words for sample in texts(model, half)] == [sample.words for sample in texts(model, whole)]


def test_guidance_by_a_gradient_works_as_for_latents(model):
    """For a control that has only an energy."""

    class Soft(Contains):
        def prepare(self, batch):
            return Energy(super().prepare(batch).energy)

    def passed(scale: float) -> int:
        return sum(sample.passed for sample in texts(model, Soft("cats"), samples=24, guidance=Guidance(scale=scale)))

    assert passed(4.0) > passed(0.0)


@pytest.mark.parametrize("canvas", ["fitted", "full"])
def test_the_network_reads_texts_without_padding_as_in_training(model, canvas):
    """PAD is not attended to in training, so it must not be attended to in sampling."""
    steps = []
    texts(model, Length(words=5), samples=2, sampler={"canvas": canvas, "steps": None}, on_step=steps.append)
    masked = torch.tensor([[model.tokenizer.start_id, *[model.model.mask_id] * 5, model.tokenizer.end_id]])
    expected = model.model.logits(masked)[0, 1:6].log_softmax(-1)
    special = len("START END UNK PAD".split())
    found = steps[0].estimate.logits[0, 1:6].log_softmax(-1)
    kept = expected[:, special:] - expected[:, special:].logsumexp(-1, keepdim=True)
    assert torch.allclose(found[:, special:], kept, atol=1e-4)


@pytest.mark.parametrize("block", [2, 3, 4])
def test_the_last_block_has_steps_by_its_places(model, block):
    """One more step for it would be one less for the others, which would then write two words at once."""
    seen = []
    texts(model, Length(words=5), sampler={"block": block}, on_step=lambda step: seen.append(step.x.clone()))
    open_places = [int((x[0] == model.model.mask_id).sum()) for x in seen]
    assert open_places == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("sampler", [{"name": "ancestral"}, {"name": "remasking", "remask": 0.2}, {"block": 2}])
def test_steps_by_word_count_do_not_depend_on_the_batch(model, sampler):
    together = [sample.words for sample in texts(model, samples=12, sampler=sampler, batch_size=12)]
    assert len({len(words) for words in together}) > 1
    assert [sample.words for sample in texts(model, samples=12, sampler=sampler, batch_size=1)] == together
