"""Controls that speak of words, on masked models whose tokens are parts of words."""

import pytest
import torch

from controls import Avoid, Contains, Infill, Length, Pattern
from dlmctl import Check, Control, ControlParams
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from tests.checkpoint.tiny_vendors import write_dream, write_llada
from tests.tokens.tokenizers_of_all_kinds import KINDS, model_of

CONTROLS = [
    Length(6),
    Contains("riverside", "Quiet Fox"),
    Avoid("the", "a", "river", "old town"),
    Pattern("The <any>{1,2} (is|was) <lowercase> <any>* (pub|café) ."),
    Infill("The ___{1,3} is a ___ café near the riverside."),
    Length(8, tolerance=1) & Contains("Anna") & Avoid("the") & ~Contains("cat"),
]


CASES = [("word pieces", control) for control in CONTROLS]
CASES += [
    ("bytes", CONTROLS[1]),
    ("bytes", CONTROLS[4]),
    ("bytes", Length(5)),
    ("bytes", Pattern("The <any> is <any>* .")),
    ("bytes", Avoid("the", "The", "é", "🎉")),
    ("sentence pieces", CONTROLS[0]),
    ("sentence pieces", CONTROLS[2]),
    ("sentence pieces", Contains("🎉", "café", "Quiet Fox")),
    ("sentence pieces", Pattern("<any>* Anna <any>* .")),
    ("sentence pieces", Infill("The ___{1,2} café 🎉 is quiet.")),
]


@pytest.mark.parametrize(("kind", "control"), CASES)
def test_every_text_is_as_asked(kind, control):
    found = generate(control, model=model_of(kind), samples=2, seed=5)
    for sample in found.samples:
        assert sample.passed, (sample.text, sample.checks)
        assert " ".join(sample.words)


@pytest.mark.parametrize("kind", ["bytes", "sentence pieces"])
def test_a_word_of_ten_tokens_is_written_whole(kind):
    word, model = "Zqxzjqxzkq", model_of(kind)
    assert len(model.tokenizer.encode_text(f"a {word}")) - len(model.tokenizer.encode_text("a")) >= 10
    for sample in generate(Contains(word), model=model, samples=2, seed=5).samples:
        assert word in sample.words
        assert not Avoid(word)(sample.words).passed


@pytest.mark.parametrize("kind", KINDS)
def test_checks_see_the_words_of_free_texts(kind):
    model = model_of(kind)
    found = generate(None, model=model, samples=3, seed=5)
    for sample in found.samples:
        ids = model.tokenizer.encode_text(sample.text)
        assert sample.words == model.tokenizer.words(ids) or "\ufffd" in sample.text
    word = "riverside"
    pieces = model.tokenizer.encode_text(f"by the {word}, so.")
    assert not Avoid(word)(model.tokenizer.words(pieces)).passed
    assert Length(6)(model.tokenizer.words(pieces)).passed


def test_the_tokens_of_a_length_are_drawn_as_likely_as_they_are():
    model = model_of("word pieces")
    short, long = (generate(Length(count), model=model, samples=12, seed=1).samples for count in (3, 12))
    assert max(len(one.latent) for one in short) < max(len(one.latent) for one in long)
    assert {len(one.words) for one in short} == {3}


def test_a_text_is_the_same_in_any_company(float64):
    model_of.cache_clear()
    model = model_of("word pieces")
    control = Contains("riverside") & Length(7, tolerance=2)
    together = generate(control, model=model, samples=4, seed=2).samples
    for number in range(4):
        (alone,) = generate(control, model=model, samples=[number], seed=2).samples
        assert alone.text == together[number].text
    model_of.cache_clear()


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (Length(90), "no text of up to 38 tokens"),
        (Contains("the") & Avoid("the"), "contains and avoid|no text"),
        (Pattern("a{3}") & Length(2), "pattern|length"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_step(control, message):
    with pytest.raises(RecipeError, match=message):
        generate(control, model=model_of("word pieces"), samples=1)


def test_any_of_several_and_a_text_of_nothing_else():
    found = generate(Contains("🎉") | Length(3), model=model_of("bytes", 16), samples=2, seed=0)
    assert all(torch.isfinite(torch.from_numpy(one.latent)).all() for one in found.samples)


def test_a_text_has_a_token(monkeypatch):
    model = model_of("word pieces")
    mostly_none = model.model.config.model_copy(update={"sentence_lengths": [9, 1]})
    monkeypatch.setattr(model.model, "config", mostly_none)
    assert all(sample.words for sample in generate(~Contains("cat"), model=model, samples=2, seed=1))


@pytest.mark.parametrize("control", [None, ~Contains("cat")])
def test_a_text_that_ends_at_once_does_not_pass_and_is_redrawn(tmp_path, monkeypatch, control):
    model, scores = from_pretrained(write_llada(tmp_path / "m")), TokenLM._scores
    end = torch.nn.functional.one_hot(torch.tensor(model.tokenizer.end_id), model.model.config.vocab_size)
    monkeypatch.setattr(TokenLM, "_scores", lambda *arguments: scores(*arguments) + 1e4 * end)
    until = {"max_rounds": 2}
    for sample in generate(control, model=model, samples=2, sampler={"new_tokens": 4}, until=until):
        assert not sample.words
        assert not sample.passed
        assert sample.rounds == 2
        assert "before the first word" in sample.to_dict()["problem"]


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_checkpoints_of_others_hold_to_words(tmp_path, write):
    model = from_pretrained(write(tmp_path / "m"))
    for control in (Contains("cat") & Length(5, tolerance=2), Pattern("The <any> (cat|dog) .")):
        for sample in generate(control, model=model, samples=2, sampler={"new_tokens": 14}).samples:
            assert sample.passed, (sample.text, sample.checks)


class FiveWords(Control):
    """As a sequence of five tags: the number of words follows, and nothing else is exact."""

    name = "five_words"
    Params = ControlParams

    def word_range(self, params):
        return 5, 5

    def check(self, params, words):
        return Check(1.0, len(words) == 5, "")


def test_a_control_whose_number_of_words_cannot_be_is_named():
    for other, name in ((Length(9), "length"), (Infill("a ___ cat"), "infill")):
        with pytest.raises(RecipeError, match=f"no text satisfies {name} and five_words together"):
            generate(FiveWords() & other, model=model_of("bytes"), samples=1)
