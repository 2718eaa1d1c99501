"""How many syllables and characters words add to a text."""

import random
from itertools import product

import pytest

from dlmctl.text.penn import split_penn
from dlmctl.text.spelling import detokenize, split_words
from dlmctl.text.syllables import _exceptions, counted, syllables, syllables_of_words
from dlmctl.text.written_length import step


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The little table was made of rosewood .", [1, 2, 2, 1, 1, 1, 2, 0]),
        ("She did n't , I do n't , it 'll , we 'll !", [1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0]),
        ("James 's houses and Tom 's house", [1, 1, 2, 1, 1, 0, 1]),
        ("it 'd , she 'd , could 've , they 've", [1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0]),
        ("Mr. O'Brien rode a well-known U.S. bus at 3 p.m. !", [2, 3, 1, 1, 2, 2, 1, 1, None, 2, 0]),
        ("isn 't , don 't", [1, 1, 0, 1, 0]),
        ("every idea is a poem", [2, 3, 1, 1, 2]),
    ],
)
def test_syllables(text, expected):
    assert syllables_of_words(text.split()) == expected


def test_words_that_are_not_in_the_dictionary_follow_the_rule():
    invented = "grumbled flonker zibbled trondle snazed snatted vorded blivious wuggish tropely sprizing gruithm"
    assert list(map(syllables, invented.split())) == [2, 2, 2, 2, 1, 2, 2, 3, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "café cafés naïve résumé resume Zoë Beyoncé fiancée façade crème über jalapeño",
            [2, 2, 2, 3, 2, 2, 3, 3, 2, 1, 2, 4],
        ),
        ("cafe\u0301 Łódź Cæsar слово 日本 Ελλάδα", [2, 1, 2, None, None, None]),
        ("TV MLB NYC BMW QBs DVDs US us NASA LITTLE HMM hmm Dr.", [2, 3, 3, 5, 2, 3, 2, 1, 2, 2, 1, 1, 2]),
        ("dog's bus's let's who'll didn't don\u2019t TV's", [1, 2, 1, 1, 2, 1, 2]),
        ("didnt wouldnt dont loveliest our PizzaExpress McDonald iPhone", [2, 2, 1, 3, 1, 4, 3, 2]),
    ],
)
def test_accents_initials_and_words_in_one_piece(words, expected):
    assert list(map(syllables, words.split())) == expected


def test_the_list_has_only_what_the_rule_gets_wrong():
    """As ``benchmarks/syllables.py`` writes it."""
    listed = _exceptions()
    assert len(listed) > 9_000
    assert [word for word, count in listed.items() if counted(word, "", {}) == count and "'" not in word] == []


def written_length(words):
    context, total = 0, 0
    for word in words:
        after = step(context, word)
        if after is None:
            return None
        context, added = after
        total += added
    return total


@pytest.mark.parametrize("split", [split_penn, split_words])
@pytest.mark.parametrize(
    "text",
    [
        '"Do you think so?" she asked, "or don\'t you?"',
        "We're gonna take the 7:30 train (it's cheap), lemme see...",
        "The up-to-date well-known co-op costs $5 - a lot - and 10% more.",
        "He said: Mr. Smith's and/or Dr. O'Brien's dog; isn't it -- at 3 p.m. - the best?",
    ],
)
def test_the_length_of_a_text_follows_from_its_words_one_by_one(split, text):
    words = split(text)
    assert written_length(words) == len(detokenize(words))


def test_the_length_of_any_words():
    stream = random.Random(0)
    words = [*'.,?!"-/:;$%()&', "--", "...", "n't", "'s", "'ll", "the", "and", "he", "gon", "wan", "na", "got", "ta"]
    words += ["lem", "me", "Mr.", "a.m.", "10", "7:30", "cat", "O'Brien", "1/2", "I", "'", "\u2018", "\u2013"]
    known = 0
    texts = [stream.choices(words, k=stream.randint(1, 9)) for _ in range(3000)]
    # Dashes, and words written as one, depend on several words.
    for text in [*texts, *product(["cat", "-", "the", "n't", "gon", "na"], repeat=4)]:
        if (length := written_length(text)) is not None:
            known += 1
            assert length == len(detokenize(text)), text
    assert known > 2500
