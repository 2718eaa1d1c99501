"""The words of a phrase that states a value stay together, whatever the classifier prefers."""

import pytest

from controls.contains import Contains
from controls.infill import Infill
from controls.pos import Pos
from controls.semantic import Semantic, SemanticParams
from controls.stated import PhraseBook
from controls.wordings import Wordings, read_wordings
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.generation.generate import generate
from dlmctl.text.fields import value_words

NAMES = ["All Bar One", "Raja Indian Cuisine", "Express by Holiday Inn", "Yippee Noodle Bar"]


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def said(e2e, field, value, *, natural=True):
    wordings = read_wordings(e2e.folder / "controls" / "semantic")
    phrases = PhraseBook(wordings, e2e.tokenizer, {}).phrases(field, value, natural=natural)
    return [" ".join(e2e.tokenizer.words(ids)) for ids in phrases]


def test_the_phrases_are_those_of_the_corpus_that_state_the_value_by_themselves(e2e):
    assert said(e2e, "near", "All Bar One") == ["All Bar One"]
    assert "family friendly" in said(e2e, "family friendly", "yes")
    assert "not family friendly" in said(e2e, "family friendly", "no")
    assert "family friendly" not in said(e2e, "family friendly", "no")
    assert "cheap" not in said(e2e, "price", "less than £ 20")


def test_a_value_may_be_spelled_as_the_corpus_has_it(e2e):
    assert value_words("£ 20 - 25") == value_words("£20-25") == "£ 20 - 25"
    assert said(e2e, "price", "£ 20 - 25")


def test_word_for_word_it_is_the_value_itself(e2e):
    assert all("The Golden Palace" in phrase for phrase in said(e2e, "name", "The Golden Palace", natural=False))


def test_what_denies_a_value_may_have_the_words_that_state_it(e2e):
    wordings = read_wordings(e2e.folder / "controls" / "semantic")
    book = PhraseBook(wordings, e2e.tokenizer, {"family friendly": ["yes", "no"], "price": ["cheap", "high"]})

    def alone(field, value, text):
        params = SemanticParams.model_validate({field: value})
        return book.languages(field, value, params)[0].accepts(e2e.tokenizer.encode(text.split())[1:-1])

    assert alone("family friendly", "no", "It is not family - friendly .")
    assert not alone("family friendly", "yes", "It is not family - friendly and is family - friendly .")
    assert not alone("price", "cheap", "It is cheap with a high price range .")


def test_without_a_corpus_a_value_is_stated_by_its_own_words(tokenizer):
    book = PhraseBook(Wordings(), tokenizer, {})
    assert [tokenizer.words(ids) for ids in book.phrases("kind", "old bridge", natural=True)] == [["old", "bridge"]]
    assert book.phrases("open", "yes", natural=True) == ()


def test_names_of_several_words_do_not_fall_apart(e2e):
    control = Semantic.each([SemanticParams.model_validate({"near": name}) for name in NAMES])
    texts = generate(control, model=e2e, samples=len(NAMES), seed=3, preset="fast")
    for name, text in zip(NAMES, texts, strict=True):
        assert f" {name} " in f" {' '.join(text.words)} "


def test_what_holds_exactly_keeps_its_words(e2e):
    control = Contains("cheap", "pub .") & Semantic(near="Burger King")
    text = generate(control, model=e2e, samples=1, preset="fast")[0]
    assert "cheap" in text.words
    assert " pub ." in " ".join(text.words)
    assert " Burger King " in f" {' '.join(text.words)} "


def test_a_phrase_that_has_no_room_is_not_insisted_on(e2e):
    template = Infill(template="The Mill is near ___ .")
    text = generate(Semantic(near="Express by Holiday Inn") & template, model=e2e, samples=1, preset="fast")[0]
    assert text.words[:4] == ["The", "Mill", "is", "near"]
    tags = Pos(tags="PROPN AUX ADJ PUNCT")
    assert (
        len(generate(Semantic(near="Express by Holiday Inn") & tags, model=e2e, samples=1, preset="fast")[0].words) == 4
    )
