"""Editing a text on models whose tokens are parts of words."""

# ruff: noqa: RUF001 (typographic quotation marks and dashes stand here on purpose)

import random
from functools import cache

import pytest

from controls import Avoid, Contains, Edit, Length, Lexicon, Pattern
from controls.edit import requirement_of
from controls.edit_distance import changes_between
from controls.edit_drafts import held_places
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from tests.tokens.test_lifted import walked
from tests.tokens.tokenizers_of_all_kinds import KINDS, UNK, model_of, tokenizer_of

TEXT = "Anna says the old bread is cheap."
EDITS = [
    ("The old cat isn't here.", 2, 0, ()),
    ("The the The the old", 2, 1, (1, 4)),
    ("café – “Fresh fish” 🎉 o'clock p.m.", 2, 1, ()),
    ("It's open till 10.50, isn't it?", 3, 0, (0, 4, 6)),
    ("soup", 1, 1, ()),
    ("the river, near the old bridge", 3, 2, (1, 5)),
]


def is_edit(words, text, changes, tolerance, held):
    """What an edit is, in plain Python."""

    @cache
    def fewest(at, place):
        """The fewest changes from the text behind ``at`` to the words behind ``place``; many if a held one changes."""
        if at == len(text) and place == len(words):
            return 0
        change, counts = (1000 if at in held else 1), [1000]
        if at < len(text) and place < len(words):
            counts.append(fewest(at + 1, place + 1) + (0 if text[at] == words[place] else change))
        if tolerance and at < len(text):
            counts.append(fewest(at + 1, place) + change)
        if tolerance and place < len(words):
            counts.append(fewest(at, place + 1) + 1)
        return min(counts)

    return abs(len(words) - len(text)) <= tolerance and fewest(0, 0) <= changes


def mutated(words, stream):
    """Up to four words exchanged, inserted or removed."""
    words = list(words)
    for _ in range(stream.randrange(5)):
        at, new = stream.randrange(len(words)), stream.choice([*words, "pub", "Old", ",", "'t"])
        words[at : at + stream.choice([0, 1])] = stream.choice([[new], [new], []]) if len(words) > 1 else [new]
    return words


# All edits of bytes, and a simple and a difficult text of each other kind.
@pytest.mark.parametrize(
    ("kind", "edit"), [(kind, edit) for kind in KINDS for edit in (EDITS if kind == "bytes" else EDITS[1:3])]
)
def test_tokens_are_an_edit_if_their_words_are(kind, edit):
    tokenizer, stream = tokenizer_of(kind), random.Random(5)
    (raw, changes, tolerance, held), usual = edit, [at for at, one in enumerate(tokenizer.strings) if one]
    text, held = tuple(tokenizer.split(raw)), frozenset(held)
    params = Edit.Params(text=raw, changes=changes, tolerance=tolerance)
    try:
        automaton = token_language(tokenizer, [requirement_of(text, params, held)])
    except RecipeError:
        assert kind == "word pieces"  # which has no bytes
        return
    verdicts = set()
    for _ in range(60):
        tokens = walked(automaton, stream, 30)
        other = [stream.choice(usual) if stream.random() < 0.1 else token for token in tokens]
        for one in (tokens, other, tokenizer.encode(mutated(text, stream))[1:-1]):
            string = b"".join(tokenizer.strings[index] or b"" for index in one)
            accepted = automaton.accepts(one)
            wanted = is_edit(tuple(tokenizer.words(one)), text, changes, tolerance, held)
            assert wanted or not accepted, string
            # What the automata leave out: parts of characters, and what NFC would change.
            if string.isascii() and b"@" not in string and b"://" not in string and UNK not in string.decode():
                assert accepted == wanted, string
            verdicts.add(accepted)
    assert verdicts == {True, False}


OTHERS = [
    None,
    Contains("river", "pub"),
    Contains("quiet river"),
    Avoid("Anna", "the old"),
    Pattern("<any>* cheap pub"),
    Lexicon(words="Anna says the old quiet pub is cheap".split()),
    ~Edit(TEXT, 1),
    Edit(TEXT.replace("old", "quiet"), 2, 1),
]


# The kinds in turn. With a tolerance the automata are large; those of word pieces are the smallest.
@pytest.mark.parametrize(
    ("other", "kind", "tolerance"),
    [*((other, KINDS[at % len(KINDS)], 0) for at, other in enumerate(OTHERS)), (None, "word pieces", 1)],
)
def test_every_text_is_an_edit_beside_any_other_control(other, kind, tolerance):
    edit = Edit(TEXT, 2, tolerance)
    result = generate(edit if other is None else edit & other, model=model_of(kind), samples=4, seed=1)
    assert result.success == 1.0, result.texts


@pytest.mark.parametrize("kind", KINDS)
def test_without_changes_a_text_stays_as_it_is(kind):
    model = model_of(kind)
    (sample,) = generate(Edit(TEXT, 0), model=model, samples=1)
    assert changes_between(model.tokenizer.split(TEXT), sample.words).total == 0


@pytest.mark.parametrize("options", [{"steps": 4}, {"steps": None}, {"particles": 3}])
def test_each_text_has_its_own_words_whatever_the_sampler(options):
    rows = [{"text": TEXT, "changes": 1}, {"text": "A quiet place.", "tolerance": 1}, {"text": "soup", "changes": 6}]
    result = generate(Edit.each(rows) & Avoid("cheap"), model=model_of("bytes"), samples=6, sampler=options)
    assert result.success == 1.0


def test_one_of_two_texts():
    result = generate(Edit(TEXT, 1) | Edit("A quiet place.", 1), model=model_of("bytes"), samples=8)
    assert result.success == 1.0
    assert {len(sample.words) for sample in result} == {8, 4}


def test_drafts_change_other_words_whatever_the_model_finds_unlikely():
    text, model = tokenizer_of("bytes").split(TEXT), model_of("bytes")
    changes = [changes_between(text, sample.words) for sample in generate(Edit(TEXT, 2), model=model, samples=24)]
    assert len({place for change in changes for place in change.exchanged}) > len(text) // 2


def test_the_number_of_words_varies_within_the_tolerance():
    result = generate(Edit("A quiet place.", 2, 1), model=model_of("bytes"), samples=24)
    assert {len(sample.words) for sample in result} >= {3, 4}
    result = generate(Edit(TEXT, 2, 2) & Length(9), model=model_of("bytes"), samples=4)
    assert {len(sample.words) for sample in result} == {9}


@pytest.mark.parametrize(("count", "changes"), [(1, 1), (4, 3), (9, 2), (10, 6), (3, 100)])
def test_a_draft_may_change_as_many_words_as_it_may_and_each_is_open_in_about_half_of_them(count, changes):
    drafts = [held_places(count, changes, Draw(0, sample)) for sample in range(400)]
    assert all(len(held) == count - min(count, max(changes, (count + 1) // 2)) for held in drafts)
    assert all(sum(place not in held for held in drafts) > 0.4 * len(drafts) for place in range(count))
    assert held_places(count, changes, Draw(0, 3, particle=2)) == held_places(count, changes, Draw(0, 3))
    assert len(set(drafts)) <= 8  # each takes an automaton


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Edit("Fresh fish at www.fish.org.", 1), "edit: 'www.fish.org' cannot be enforced exactly"),
        (Edit(TEXT, 1) & Contains("river", "pub"), "edit and contains: no text that contains 'river'"),
        (Edit(TEXT, 2, 2) & Length(14), "no text satisfies edit and length together|at least 14 words"),
        (Edit(" ".join(f"{word} bread" for word in TEXT.split()), 8, 4), "edit: .* too .*fewer"),
    ],
)
def test_what_cannot_be_is_said_once(control, said):
    with pytest.raises(RecipeError, match=said):
        generate(control, model=model_of("bytes"), samples=1)


def test_a_word_without_tokens_is_named():
    with pytest.raises(RecipeError, match="edit: the model's tokens cannot spell 'Z' of 'Zorbles'"):
        generate(Edit("Zorbles here.", 1), model=model_of("word pieces"), samples=1)
