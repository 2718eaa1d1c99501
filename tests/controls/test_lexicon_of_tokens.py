"""`lexicon` on models whose tokens are parts of words."""

import random

import numpy as np
import pytest

from controls import Avoid, Characters, Contains, Length, Lexicon, Pattern
from controls.function_words import is_function_word
from controls.lexicon_of_tokens import lexicon_of_tokens
from controls.word_bounds import word_filter
from dlmctl.control.automata import exact_tokens
from dlmctl.control.automata.dfa import DEAD
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.tokens.tokenizers_of_all_kinds import KINDS, model_of, tokenizer_of

QUICK = SamplerSettings(steps=4)
WORDS = ["pub", "river", "old", "town", "soup", "cook", "grey", "cats", "riverside", "Anna", "quiet"]


def automaton_of(kind, words=WORDS, passes=True, least=0):
    tokenizer = tokenizer_of(kind)
    conditions = word_filter(words, None, (None, "word"), {}, None)
    return tokenizer, token_language(tokenizer, [lexicon_of_tokens(conditions, passes, least, tokenizer)])


# Marks, clitics, initials, names, addresses, and what is another word with a capital or beside a mark.
UNUSUAL = [*".%£\u2013'\"-/,", "...", "..", "🎉", "'s", "US", "it", "Will", "a@b.com", "www.x.com", "10", "4"]
UNUSUAL += ["\u0131", "\u0301", "\u01c6"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listed", [WORDS, UNUSUAL], ids=["usual words", "unusual words"])
@pytest.mark.parametrize(
    "params", [{}, {"function_words": False}, {"min_words": 3}, {"min_words": 2, "function_words": False}], ids=str
)
def test_whatever_the_automaton_accepts_passes(kind, listed, params):
    tokenizer, automaton = automaton_of(kind, listed, params.get("function_words", True), params.get("min_words", 0))
    members = [np.flatnonzero(automaton.classes == label) for label in range(automaton.table.shape[1])]
    lexicon, stream, texts = Lexicon(words=listed, **params), random.Random(0), set()
    for _ in range(600):
        state, ids = 0, []
        while not (automaton.accepting[state] and (len(ids) > 12 or stream.random() < 0.2)):
            label = stream.choice(np.flatnonzero(automaton.table[state] != DEAD).tolist())
            ids.append(int(stream.choice(members[label].tolist())))
            state = int(automaton.table[state, label])
        words = tokenizer.words([tokenizer.start_id, *ids, tokenizer.end_id])
        assert lexicon(words).passed, (tokenizer.decode(ids), lexicon(words).why)
        texts.add(tokenizer.decode(ids))
    assert len(texts) > 300


@pytest.mark.parametrize(
    ("kind", "text", "accepted"),
    [
        ("bytes", "The old town has a pub near the river.", True),
        ("bytes", "Isn't it quiet? Anna's old (grey) cats...", True),
        ("bytes", '"The soup," she said.', False),
        ("bytes", '"The soup," the cook-cats.\nOld town!', True),
        ("bytes", "The old bridge", False),
        ("bytes", "The oldtown", False),
        ("bytes", "Old.town", False),
        ("bytes", "", False),
        ("word pieces", "The old town has a pub near the river.", True),
        ("word pieces", "The old crowns", False),
        ("sentence pieces", "In the old town you can cook.", True),
        ("sentence pieces", "In the new town you can cook.", False),
    ],
)
def test_sentences_as_the_tokenizer_writes_them(kind, text, accepted):
    tokenizer, automaton = automaton_of(kind)
    if accepted:  # what these tokenizers can write is in their few sentences
        assert tokenizer.decode(tokenizer.encode_text(text)) == text.replace(" .", ".")
    assert automaton.accepts(tokenizer.encode_text(text)[1:-1]) == accepted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "other",
    [Contains("cook"), Length(6), Avoid("the", "The") & Characters(24, tolerance=4), Pattern("<any>* (is|was) <any>*")],
    ids=["contains", "length", "avoid and characters", "pattern"],
)
def test_other_controls_hold_as_well(kind, other):
    result = generate(Lexicon(words=WORDS, min_words=2) & other, model=model_of(kind), samples=4, sampler=QUICK)
    assert result.success == 1.0
    assert len({sample.text for sample in result}) > 1


@pytest.mark.parametrize(
    ("listed", "params", "text", "accepted"),
    [
        (["dog", "."], {"passes": False}, "Dog.", True),
        (["dog", "."], {"passes": False}, "Dog .", False),
        (["dog", "."], {"passes": False}, "dog..", False),
        (["10", "%"], {}, "at 10% of", True),
        (["4", "£"], {}, "at £4", True),
        (["Anna", "'s", "cats"], {"passes": False}, "Anna's cats", True),
        (["Anna", "'s", "cats"], {"passes": False}, "Anna 's cats", False),
        (["US"], {"least": 1}, "in the US", True),
        (["US"], {"least": 1}, "in the us", False),
        (["%", "dog"], {"least": 1}, "it %", False),
        (["Will", "dog"], {"least": 1}, "Will it", False),
    ],
)
def test_marks_and_initials_of_a_list(listed, params, text, accepted):
    tokenizer, automaton = automaton_of("bytes", listed, **params)
    assert automaton.accepts(tokenizer.encode_text(text)[1:-1]) == accepted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", [{"letters": [3, 4]}, {"syllables": [1, 1], "function_words": False}], ids=str)
def test_bounds_alone_choose_among_words_of_one_token(kind, params):
    result = generate(Lexicon(**params), model=model_of(kind), samples=8, sampler=QUICK)
    assert result.success == 1.0
    assert len({word for sample in result for word in sample.words}) > 10


def test_words_of_several_tokens_are_left_out_where_the_automaton_would_be_too_large(caplog):
    control = Lexicon(words=[*WORDS, "bridges"]) & Characters(120, tolerance=110)
    result = generate(control, model=model_of("bytes"), samples=4, sampler=QUICK)
    assert result.success == 1.0
    assert "of 12 words are several tokens, such as 'bridges', and are left out" in caplog.text
    assert "bridges" not in " ".join(sample.text for sample in result)


def test_so_are_they_where_steps_would_visit_too_many_transitions(caplog, monkeypatch):
    listed = [*WORDS, "fishes"]
    _, automaton = automaton_of("bytes", listed)
    monkeypatch.setattr(exact_tokens, "_cache", {})
    monkeypatch.setattr(exact_tokens, "MAX_TOKEN_CELLS", automaton.table.size - 1)
    monkeypatch.setattr(exact_tokens, "MAX_SPARSE_TRANSITIONS", np.count_nonzero(automaton.table != DEAD) - 1)
    result = generate(Lexicon(words=listed), model=model_of("bytes"), samples=4, sampler=QUICK)
    assert result.success == 1.0
    assert "such as 'fishes', and are left out" in caplog.text


def test_texts_have_as_many_tokens_as_without_it():
    """Of a short text it is likelier that all words are in a list, but the list is no wish for short texts."""
    model, lexicon = model_of("bytes"), Lexicon(words=["pub", "river"], function_words=False)
    result = generate(lexicon, model=model, samples=32, sampler=QUICK)
    sizes = [len(model.tokenizer.encode_text(sample.text)[1:-1]) for sample in result]
    weights = np.array(model.model.config.sentence_lengths)
    usual = weights @ np.arange(len(weights)) / weights.sum()
    assert np.mean(sizes) == pytest.approx(usual, rel=0.3)


def test_under_not_it_guides():
    lexicon = Lexicon(words=WORDS)
    result = generate(~lexicon, model=model_of("bytes"), samples=8, sampler=QUICK)
    assert [sample.passed for sample in result] == [not lexicon(sample.words).passed for sample in result]


def test_bounds_choose_among_the_words_of_a_table(tmp_path):
    table = tmp_path / "norms.csv"
    table.write_text("word,level\npub,1\nriver,2\nold,1\ntown,3\nice cream,1\n")
    lexicon = Lexicon(table=str(table), level=[1, 2], min_words=2)
    result = generate(lexicon, model=model_of("bytes"), samples=8, sampler=QUICK)
    content = {word.lower() for sample in result for word in sample.words if not is_function_word(word)}
    assert result.success == 1.0
    assert content <= {"pub", "river", "old"}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"words": ["pub"], "where": {"tag": "NOUN"}}, "`where` selects among whole words"),
        ({"words": ["слово", "ice cream"]}, "it does not know 'слово'; 'ice cream' is more than one word to it"),
        ({"words": ["pub"], "letters": [5, 9]}, "0 have letters 5 to 9 (there are 3 to 3)"),
        (
            {"words": ["may", "%"], "min_words": 1},
            "`min_words` counts no function words and marks, and there are no other",
        ),
        ({"letters": [40, 50]}, "0 have letters 40 to 50"),
        ({"zipf": [4, None]}, "the model has no counts of its training text"),
    ],
)
def test_what_cannot_be_is_said(params, said):
    with pytest.raises(RecipeError) as caught:
        generate(Lexicon(**params), model=model_of("word pieces"), samples=1, sampler=QUICK)
    assert said in str(caught.value)


def test_words_that_the_tokens_cannot_write_are_named(caplog):
    generate(Lexicon(words=["pub", "слово", "ice cream"]), model=model_of("word pieces"), samples=1, sampler=QUICK)
    assert "of the 3 words of the list the model knows 1; it does not know 'слово'" in caplog.text


def test_words_out_of_bounds_are_not_called_unknown(caplog):
    generate(Lexicon(words=["pub", "river"], letters=[1, 3]), model=model_of("bytes"), samples=1, sampler=QUICK)
    assert "the model knows" not in caplog.text
