"""Texts of so many syllables or characters, exactly, beside other controls."""

import itertools
import random

import numpy as np
import pytest

from controls import Avoid, Characters, Contains, Infill, Length, Syllables
from controls.word_totals import TotalParams
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.automata import Alphabet
from dlmctl.control.automata.dfa import DEAD, shortest
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.control.automata.totals import quantity, with_total
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.syllables import syllables_of_words
from tests.tokens.tokenizers_of_all_kinds import KINDS, model_of, tokenizer_of

QUICK = SamplerSettings(steps=4)
COUNTED = {
    Syllables: lambda sample: sum(syllables_of_words(sample.words)),
    Characters: lambda sample: len(sample.text),
}


def drawn(model, control, samples=12, **options):
    return generate(control, model=model, samples=samples, sampler=QUICK, **options)


@pytest.fixture(scope="module")
def everyday():
    return from_pretrained("everyday")


def test_a_control_forgets_the_model_before(everyday, pretrained):
    control = Characters(20)
    control.load_from(everyday)
    assert drawn(pretrained, control, samples=2).success == 1.0


@pytest.mark.parametrize("control", COUNTED)
@pytest.mark.parametrize(("number", "tolerance"), [(12, 0), (20, 3)])
def test_every_text_has_as_many(pretrained, control, number, tolerance):
    result = drawn(pretrained, control(number=number, tolerance=tolerance), samples=24)
    assert result.success == 1.0
    counts = [COUNTED[control](sample) for sample in result]
    assert all(abs(count - number) <= tolerance for count in counts)
    assert len({len(sample.words) for sample in result}) > 1


@pytest.mark.parametrize(("control", "number"), [(Syllables, 14), (Characters, 40)])
def test_a_masked_model_writes_contractions_and_quotations_of_the_right_size(everyday, control, number):
    result = drawn(everyday, control(number) & Infill('___{1,3}n\'t say "___{1,4}" to ___{1,2}.'), samples=8)
    assert result.success == 1.0
    assert [COUNTED[control](sample) for sample in result] == [number] * 8


@pytest.mark.parametrize(
    "control",
    [Syllables(11) & Length(7), Syllables(11) & Contains("old garden") & Avoid("the"), Characters(31) & Length(7)],
)
def test_other_controls_hold_as_well(pretrained, control):
    assert drawn(pretrained, control).success == 1.0


def test_under_not_and_any(pretrained):
    result = drawn(pretrained, ~Syllables(10, tolerance=4))
    assert result.success == 1.0
    assert all(abs(COUNTED[Syllables](sample) - 10) > 4 for sample in result)
    assert drawn(pretrained, Syllables(8) | Characters(40)).success == 1.0


def test_lengths_are_those_of_texts_with_the_total(everyday):
    few, many = (Syllables(number).for_model(everyday) for number in (4, 20))
    expected = []
    for control in (few, many):
        weights = np.array(control.lengths_of(0, 24))
        expected.append(weights @ np.arange(len(weights)) / weights.sum())
    assert 3 < expected[0] < 6
    assert 10 < expected[1] < 16


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Characters(1) & Contains("garden"), "no text that contains 'garden' satisfies all other requirements"),
        (Characters(4) & Length(4) & Avoid(".", ",", "?", "!"), "no text of 4 words"),
    ],
)
def test_what_cannot_be_is_said(pretrained, control, said):
    with pytest.raises(RecipeError, match=said):
        drawn(pretrained, control, samples=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "control",
    [Characters(34), Characters(24, tolerance=2) & Contains("old bridge"), ~Characters(12, tolerance=9)],
    ids=["alone", "beside contains", "under not"],
)
def test_characters_of_tokens(kind, control):
    result = drawn(model_of(kind), control, samples=8)
    assert result.success == 1.0
    sizes = [len(sample.text) for sample in result]
    if control.name == "not":
        assert all(not 3 <= size <= 21 for size in sizes)
    else:
        assert all(size == 34 for size in sizes) or all(22 <= size <= 26 for size in sizes)
    assert all(sample.text == sample.text.strip() and sample.text.isprintable() for sample in result)


@pytest.mark.parametrize("kind", KINDS)
def test_the_language_of_characters_over_tokens(kind):
    tokenizer = tokenizer_of(kind)
    params = TotalParams(number=9, tolerance=1)
    automaton = token_language(tokenizer, [Characters(9, tolerance=1).requirement(params)])
    stream, accepted = random.Random(0), 0
    plain = [at for at, string in enumerate(tokenizer.strings) if string and string.isascii() and string.strip()]
    for _ in range(4000):
        ids = stream.choices(plain, k=stream.randint(1, 5))
        text = tokenizer.decode(ids)
        is_line = text.isprintable() and "  " not in text and not text.startswith(" ")
        wanted = len(text) in (8, 9, 10) and is_line and not any(tokenizer.strings[at].endswith(b" ") for at in ids)
        accepted += wanted
        assert automaton.accepts(ids) == wanted, text
    assert accepted > 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "control",
    [Syllables(7), Syllables(9, tolerance=1) & Contains("and"), Syllables(6) & Length(5)],
    ids=["alone", "beside contains", "beside length"],
)
def test_syllables_of_tokens(kind, control):
    result = drawn(model_of(kind), control, samples=8)
    assert result.success == 1.0
    assert len({sample.text for sample in result}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_automaton_of_syllables_accepts_has_as_many(kind):
    tokenizer = tokenizer_of(kind)
    automaton = token_language(tokenizer, [Syllables(7).requirement(TotalParams(number=7, tolerance=2))])
    members = [np.flatnonzero(automaton.classes == label) for label in range(automaton.table.shape[1])]
    steps = shortest(automaton)
    stream, texts = random.Random(0), set()
    for _ in range(400):
        state, ids = 0, []
        while not (automaton.accepting[state] and stream.random() < 0.5):
            labels = np.flatnonzero(automaton.table[state] != DEAD).tolist()
            if len(ids) > 9:  # to an end
                labels = [label for label in labels if steps[automaton.table[state, label]] < max(1, steps[state])]
            if not labels:
                break
            label = stream.choice(labels)
            ids.append(int(stream.choice(members[label].tolist())))
            state = int(automaton.table[state, label])
        words = tokenizer.words([tokenizer.start_id, *ids, tokenizer.end_id])
        assert Syllables(7, tolerance=2)(words).passed, tokenizer.decode(ids)
        texts.add(tokenizer.decode(ids))
    assert len(texts) > 200


def test_syllables_over_tokens_under_not_are_checked():
    result = drawn(model_of("bytes"), ~Syllables(9), samples=12)
    assert [sample.passed for sample in result] == [not Syllables(9)(sample.words).passed for sample in result]


def test_a_word_of_several_tokens_under_syllables_is_told_why():
    with pytest.raises(RecipeError, match=r"no text satisfies .* `syllables` leaves out words of several tokens"):
        drawn(model_of("bytes"), Syllables(9, tolerance=3) & Contains("extraordinarily"), samples=1)


@pytest.mark.parametrize("control", COUNTED)
def test_over_tokens_the_size_of_a_text_is_bounded(pretrained, control):
    model = model_of("bytes")
    assert control(20).for_model(model).range_of(0) == (1, model.model.config.length - 1)
    assert control(20).for_model(pretrained).range_of(0)[1] > 1000


def test_characters_over_tokens_with_too_many_numbers_of_words_are_refused():
    with pytest.raises(RecipeError, match="characters and length: the controls together need an automaton of more"):
        drawn(model_of("bytes"), Characters(90) & Length(19), samples=1)


@pytest.mark.parametrize("params", [{"number": 0}, {"number": 2001}, {"number": 7, "tolerance": -1}, {}])
def test_parameters_that_mean_nothing_are_refused(params):
    with pytest.raises(UserError):
        Syllables(**params)


def test_verdicts():
    check = Syllables(5)(["I", "do", "n't", "like", "tables", "."])
    assert (check.passed, check.score, check.why) == (True, 1.0, "5 syllables")
    assert [(mark.start, mark.label) for mark in check.marks] == [(0, "1"), (1, "1"), (3, "1"), (4, "2")]
    check = Syllables(4)(["In", "2014", "."])
    assert (check.passed, check.score, check.where) == (False, 0.0, (1,))
    assert check.why == "the syllables of '2014' are unknown"
    check = Characters(10, tolerance=1)(["It", "is", "red", "!"])
    assert (check.passed, check.why) == (True, "10 characters")
    check = Characters(20, tolerance=1)(["Red", "!"])
    assert (check.passed, check.score, check.why) == (False, 1 - 15 / 20, "4 characters")


def test_targets_of_sentences():
    sentences = [["We", "did", "n't", "go", "."], ["Yes", "!"]]
    assert [params.number for params in Syllables.from_words(sentences)] == [4, 1]
    assert [params.number for params in Characters.from_words(sentences)] == [13, 4]


def test_the_language_of_a_total():
    """After "b", an "a" adds 2 instead of 1; "c" must not follow "b"."""

    def step(context, word):
        if word == "c" and context == 1:
            return None
        return int(word == "b"), {"a": 1 + context, "b": 0, "c": 3}[word]

    alphabet = Alphabet([None, "a", "b", "c"])
    automaton = with_total(quantity(alphabet, 2, step, kind=str), 3, 4)

    def total(text):
        count, before = 0, ""
        for word in text:
            if before == "b" and word == "c":
                return None
            count += {"a": 1 + (before == "b"), "b": 0, "c": 3}[word]
            before = word
        return count

    for size in range(6):
        for text in itertools.product("abc", repeat=size):
            ids = [alphabet.ids[word] for word in text]
            assert automaton.accepts(ids) == (total(text) in (3, 4)), text


def test_a_total_that_is_too_large_to_hold_is_named(everyday):
    with pytest.raises(
        RecipeError, match=r"up to 1,900 is asked for; with this vocabulary one up to \d{3} can be held"
    ):
        generate(Characters(number=1900), model=everyday, samples=1)
