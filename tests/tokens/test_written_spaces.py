"""The spaces of a recipe between the words of texts over tokens."""

import random

import numpy as np
import pytest

from controls import Avoid, Contains, Edit, Infill, Pattern
from dlmctl.control.automata.dfa import DEAD, Automaton
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.control.automata.requirement import Requirement
from dlmctl.generation.generate import generate
from dlmctl.text.written_spaces import spaces_between
from tests.tokens.test_lifted import contains, walked
from tests.tokens.tokenizers_of_all_kinds import KINDS, model_of, tokenizer_of

PHRASE = "soup: £4, the"


def one_spaced(text):
    """A text with single spaces: which kind of space is between words, and how many, is the model's choice."""
    return " ".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_phrase_has_the_spaces_of_the_recipe(kind):
    tokenizer, stream = tokenizer_of(kind), random.Random(1)
    automaton = token_language(tokenizer, [contains(PHRASE)._replace(written=(PHRASE,))])
    accepted = [tokens for tokens in (walked(automaton, stream, 40) for _ in range(40)) if automaton.accepts(tokens)]
    assert len(accepted) > 10
    for tokens in accepted:
        assert one_spaced(tokenizer.respelled(PHRASE)) in one_spaced(tokenizer.decode(tokens))
    respaced = tokenizer.encode_text("The soup : £ 4 , the bread")[1:-1]
    assert not automaton.accepts(respaced)


@pytest.mark.parametrize(
    ("control", "start", "end"),
    [
        (Infill("The grey-old ___ £4."), "The grey-old", "£4."),
        (Pattern("grey-old <any> cats:"), "grey-old", "cats:"),
        (Edit("The grey-old cat: £4", 1) & Infill("The grey-old ___{1,2} : £4"), "The grey-old", ": £4"),
        (Contains("grey-old:") & Pattern("<any> <any> <any> <any>"), "grey-old:", ""),
    ],
)
def test_texts_of_a_model_have_the_spaces_of_the_recipe(control, start, end):
    for text in map(one_spaced, generate(control, model=model_of("bytes"), samples=6).texts):
        assert text.startswith(start)
        assert text.endswith(end)


def test_a_violation_is_about_words_alone():
    tokenizer = tokenizer_of("bytes")
    for control in (Avoid("grey-old"), ~Contains("grey-old"), ~Contains("grey-old") & ~Contains("cats")):
        result = generate(control & Infill("grey ___ old"), model=model_of("bytes"), samples=6)
        assert result.success == 1.0
    assert tokenizer.split("grey-old") == ["grey", "-", "old"]


def test_other_spaces_are_better_than_no_text():
    tokenizer = tokenizer_of("bytes")
    few = [tokenizer.encode_text(piece)[1:-1] for piece in ("grey", " -", " old")]
    allowed = np.isin(np.arange(len(tokenizer)), [token for tokens in few for token in tokens])
    only_these = Automaton(allowed.astype(int), np.array([[DEAD, 0]]), np.ones(1, dtype=bool))
    others = Requirement("others", "others", over_tokens=lambda _: only_these)
    wanted = contains("grey-old")._replace(written=("grey-old",))
    assert token_language(tokenizer, [wanted, others]).accepts([token for tokens in few for token in tokens])


def test_spaces_that_the_recipe_leaves_open():
    assert spaces_between(["the dog .", "a ,"], str) == {}  # marks set apart, as words are listed
    assert spaces_between(["ice-cream", "ice - cream"], str) == {}
    assert spaces_between(["ice - cream"], str) == {("ice", "-"): True, ("-", "cream"): True}
    assert spaces_between(["don\u2019t"], str) == {("don", "'t"): False}
    assert spaces_between(["the man", "e\u0301-x"], str) == {("\u00e9", "-"): False, ("-", "x"): False}
