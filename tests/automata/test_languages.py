"""Automata of phrases, lengths and word lists, their products and complements, against plain Python."""

import itertools
import random

import numpy as np
import pytest
import torch

from dlmctl.control.automata import languages
from dlmctl.control.automata.dfa import MAX_STATES, TooLarge, reduced
from dlmctl.control.automata.phrases import EXACT_STATES, in_likely_order, likely_order, with_phrases
from dlmctl.control.automata.product import complement, intersect_all, intersection, lengths, require_length
from dlmctl.control.automata.regex import parse
from dlmctl.errors import RecipeError

ALPHABET = languages.Alphabet([None, "a", "b", "c", None])
TEXTS = [text for count in range(6) for text in itertools.product([1, 2, 3], repeat=count)]


def occurs(phrase, text):
    return any(text[at : at + len(phrase)] == tuple(phrase) for at in range(len(text)))


def language(automaton):
    return [text for text in TEXTS if automaton.accepts(text)]


def pattern(text):
    return languages.pattern(parse(text, str.split), ALPHABET)


def random_phrases(rng, count):
    return [tuple(rng.choices([1, 2, 3], k=rng.randint(1, 3))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_phrases_that_must_or_must_not_occur(seed):
    phrases = random_phrases(random.Random(seed), 3)
    avoiding = languages.avoiding(ALPHABET, phrases)
    assert language(avoiding) == [text for text in TEXTS if not any(occurs(p, text) for p in phrases)]
    for phrase in phrases:
        containing = languages.containing(ALPHABET, phrase)
        assert language(containing) == [text for text in TEXTS if occurs(phrase, text)]
        assert len(containing.table) == len(phrase) + 1


def test_a_thousand_words_are_avoided_without_a_state_for_each():
    alphabet = languages.Alphabet([f"word{number}" for number in range(3000)])
    avoiding = languages.avoiding(alphabet, [(token,) for token in range(1000)] + [(1000, 1001), (5, 1002)])
    assert avoiding.table.shape == (2, 5)
    assert avoiding.accepts([1001, 1000, 2999])
    assert not any(map(avoiding.accepts, [[2999, 999], [1000, 1001], [5, 1002]]))


@pytest.mark.parametrize("seed", range(20))
def test_products_complements_and_their_minimal_forms(seed):
    phrases = random_phrases(random.Random(seed), 2)
    one, other = languages.containing(ALPHABET, phrases[0]), languages.avoiding(ALPHABET, phrases[1:])
    both = sorted(set(language(one)) & set(language(other)), key=TEXTS.index)
    assert language(intersection(one, other)) == both
    assert language(reduced(intersection(one, other))) == both
    assert set(language(complement(other))) == set(TEXTS) - set(language(other))
    assert not any(complement(one).accepts([token]) for token in (0, 4))


def test_phrases_in_order():
    automaton = languages.in_order(ALPHABET, [(1, 2), (2,)])
    assert not automaton.accepts([1, 2])
    assert automaton.accepts([3, 1, 2, 3, 2])
    assert not automaton.accepts([2, 1, 2])


def test_lengths_and_word_lists():
    assert {len(text) for text in language(languages.length(ALPHABET, 2, 3))} == {2, 3}
    assert {len(text) for text in language(languages.length(ALPHABET, 4))} == {4, 5}
    allowed = np.array([True, True, False, True, True])
    assert all(2 not in text for text in language(languages.only(ALPHABET, allowed)))
    assert {text for text in language(complement(languages.only(ALPHABET, allowed))) if len(text) == 1} == {(2,)}
    assert lengths(pattern("(a b){1,2} c?"), 6).tolist() == [False, False, True, True, True, True, False]


def test_a_language_whose_number_of_words_is_open():
    end, pad = 4, 0
    automaton = languages.ended(pattern("a b?"), end, pad)
    rows = itertools.product(range(5), repeat=4)
    accepted = {row for row in rows if automaton.accepts(row)}
    assert accepted == {(1, end, pad, pad), (1, 2, end, pad)}


def test_impossible_lengths_are_refused_with_the_possible_ones():
    with pytest.raises(RecipeError, match=r"no text of 7 words.*possible are 2, 4 to 5 words"):
        require_length(pattern("a b | a b c <any>{1,2}"), 7, 10, "pattern")
    with pytest.raises(RecipeError, match="nor does any text of up to 10 words"):
        require_length(pattern("<any>{12}"), 7, 10, "pattern")
    with pytest.raises(RecipeError, match=r"no text of 2 tokens.*possible are 3 to 10 tokens. Set sampler.new_tokens"):
        require_length(pattern("a b <any>+"), 2, 10, "pattern", "token")
    require_length(pattern("(a b)*"), 6, 10, "pattern")


def test_controls_that_exclude_each_other_are_named():
    parts = [
        ("length", languages.length(ALPHABET, 2, 8)),
        ("pattern", pattern("<any>* a b <any>*")),
        ("avoid", languages.avoiding(ALPHABET, [(1, 2)])),
    ]
    with pytest.raises(RecipeError, match="no text satisfies pattern and avoid together"):
        intersect_all(parts)
    with pytest.raises(RecipeError, match="no text that contains 'c c'"):
        with_phrases(pattern("a <any> b"), [(3, 3)], ALPHABET)
    assert len(intersect_all(parts[:2]).table) > 1


def test_a_product_is_limited_while_it_is_built():
    parts = [(str(size), pattern(f"(<any>{{{size}}})*")) for size in (7, 11, 13, 17)]
    assert len(intersect_all(parts[:3]).table) == 7 * 11 * 13
    with pytest.raises(TooLarge, match=f"{MAX_STATES} states"):
        intersect_all(parts)


MANY = languages.Alphabet([None, *(f"w{index}" for index in range(80)), "."])


def test_few_phrases_are_allowed_in_any_order_and_many_in_one_that_fits():
    few = with_phrases(languages.everything(MANY), [(index,) for index in range(1, 9)], MANY)
    assert not few.phrases
    assert len(few.automaton.table) == 2**8
    phrases = [(index, index + 30) for index in range(1, 31)]
    many = with_phrases(languages.everything(MANY), phrases, MANY)
    assert (len(many.automaton.table), many.least_words) == (1, 60)
    torch.manual_seed(0)
    for words in (60, 64):
        automaton = in_likely_order(many, torch.randn(words, 82).log_softmax(-1), MANY)
        assert len(automaton.table) == 61 < EXACT_STATES
        assert lengths(automaton, words)[words]
    with pytest.raises(RecipeError, match="no arrangement of 30 phrases in 59 words"):
        in_likely_order(many, torch.zeros(59, 82), MANY)


def test_the_order_follows_the_likely_places_and_other_requirements():
    phrases = [(index,) for index in range(1, 13)]
    log_probs = torch.full((20, 82), -8.0)
    places = random.Random(1).sample(range(20), 12)
    for phrase, place in zip(phrases, places, strict=True):
        log_probs[place, phrase[0]] = -0.1
    expected = sorted(range(12), key=lambda phrase: places[phrase])
    assert likely_order(languages.everything(MANY), phrases, log_probs) == expected
    # The template requires w11 (token 12) first and a full stop at the end.
    base = languages.pattern(parse("w11 <word>{18} .", str.split), MANY)
    order = likely_order(base, phrases, log_probs)
    assert order is not None
    assert order[0] == 11
    automaton = in_likely_order(with_phrases(base, phrases, MANY), log_probs, MANY)
    assert lengths(automaton, 20).nonzero()[0].tolist() == [20]


def test_a_phrase_contained_in_another_needs_no_place_of_its_own():
    phrases = [(1, 2, 3), (2, 3), (3,), *((index,) for index in range(10, 30))]
    assert with_phrases(languages.everything(MANY), phrases, MANY).least_words == 23


def test_a_word_is_not_the_class_of_its_name():
    alphabet = languages.Alphabet([None, "any", "number", "7", None])
    anywhere = languages.pattern(parse("<any> any", str.split), alphabet)
    assert [text for text in TEXTS if anywhere.accepts(text)] == [(1, 1), (2, 1), (3, 1)]
    numbers = languages.pattern(parse("<number> number", str.split), alphabet)
    assert [text for text in TEXTS if numbers.accepts(text)] == [(3, 2)]


def test_a_chain_is_not_the_choice_of_its_items():
    assert parse("a b", str.split) != parse("a|b", str.split)
