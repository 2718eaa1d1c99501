"""Patterns over words: matches, compared with ``re.fullmatch``, and errors."""

import itertools
import random
import re

import numpy as np
import pytest

from dlmctl.control.automata.dfa import MAX_STATES, TooLarge
from dlmctl.control.automata.languages import Alphabet, pattern
from dlmctl.control.automata.regex import escaped, parse
from dlmctl.control.automata.syntax import Chain, Literal, Repeat, WordClass, match, word_range
from dlmctl.errors import RecipeError
from dlmctl.text.spelling import split_words

WORDS = ["Anna", "pub", "river", ".", "£", "7:30"]
ALPHABET = Alphabet([None, None, *WORDS])
# The members of each class among WORDS, by hand.
MEMBERS = {
    "any": WORDS,
    "word": ["Anna", "pub", "river", "7:30"],
    "punctuation": [".", "£"],
    "number": ["7:30"],
    "capitalised": ["Anna"],
    "lowercase": ["pub", "river"],
}
LETTER = dict(zip(WORDS, "abcdef", strict=True))


def dfa(text):
    return pattern(parse(text, split_words), ALPHABET)


def accepts(automaton, words):
    return automaton.accepts([ALPHABET.ids[word] for word in words])


def accepted(automaton, token_ids):
    """Whether each row of token ids ``[T, n]`` is a text of the language."""
    table = np.append(automaton.table, np.full((1, automaton.table.shape[1]), -1), axis=0)
    state = np.zeros(len(token_ids), dtype=int)
    for column in token_ids.T:
        state = table[state, automaton.classes[column]]
    return np.append(automaton.accepting, False)[state]


def random_pattern(rng, depth):
    """A pattern, and the equivalent regular expression over one letter per word."""
    kind = rng.choice(["word", "class"] if depth == 0 else ["word", "class", "chain", "choice", "repeat"])
    if kind == "word":
        word = rng.choice(WORDS)
        return word, LETTER[word]
    if kind == "class":
        name = rng.choice(list(MEMBERS))
        return f"<{name}>", f"[{''.join(LETTER[word] for word in MEMBERS[name])}]"
    if kind == "repeat":
        item, letters = random_pattern(rng, depth - 1)
        times = rng.choice(["*", "+", "?", "{2}", "{1,2}", "{2,}", "{0,3}"])
        return f"({item}){times}", f"(?:{letters}){times}"
    items = [random_pattern(rng, depth - 1) for _ in range(rng.randint(2, 3))]
    between = ("|", "|") if kind == "choice" else (" ", "")
    return f"({between[0].join(item for item, _ in items)})", f"(?:{between[1].join(letters for _, letters in items)})"


def test_patterns_match_what_re_fullmatch_matches():
    rng = random.Random(5)
    texts = [list(itertools.product(WORDS, repeat=count)) for count in range(5)]
    letters_of = [["".join(LETTER[word] for word in text) for text in same_length] for same_length in texts]
    token_ids = [
        np.array([[ALPHABET.ids[word] for word in text] for text in same_length], dtype=int) for same_length in texts
    ]
    matched = 0
    for _ in range(200):
        source, letters = random_pattern(rng, 3)
        node, compiled = parse(source, split_words), re.compile(letters)
        automaton = pattern(node, ALPHABET)
        for same_length, rows in zip(letters_of, token_ids, strict=True):
            expected = [compiled.fullmatch(text) is not None for text in same_length]
            assert accepted(automaton, rows).tolist() == expected, source
            matched += sum(expected)
        for text in rng.sample(texts[3], 20):
            assert match(node, text)[0] == accepts(automaton, text), (source, text)
    assert matched > 1000


def test_the_tree_of_a_pattern():
    node = parse(r"The pub. <any>{1,2} (is|was)? (7:30) \? 5{2,}", split_words)
    assert node.items[:3] == (Literal("The"), Literal("pub"), Literal("."))
    assert node.items[3] == Repeat(WordClass("any"), 1, 2)
    assert node.items[4].least == 0
    assert node.items[4].most == 1
    assert node.items[5:] == (Literal("7:30"), Literal("?"), Repeat(Literal("5"), 2, None))
    assert word_range(node) == (8, None)
    assert word_range(parse("(a|b c){2,3} d?", split_words)) == (2, 7)


def test_special_characters_are_literal_after_a_backslash():
    assert parse(r"\( \) \| \< \> \* \+ \? \{ \} \\", split_words) == Chain(tuple(map(Literal, r"()|<>*+?{}" + "\\")))
    assert parse(".? (.)*", split_words).items == (Repeat(Literal("."), 0, 1), Repeat(Literal("."), 0, None))
    assert parse(r"\??", split_words) == Repeat(Literal("?"), 0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The (pub", r"at character 5.*not closed"),
        ("The pub)", r"at character 8.*no group is open"),
        ("<noun> .", r"at character 1, '<noun> \.'.*no such class.*<any>"),
        ("a < b", r"at character 3.*a class is one of"),
        ("a > b", r"at character 3.*no class is open"),
        ("a {x}", r"at character 3.*a repeat is written \{2\}"),
        ("a }", r"at character 3.*no repeat is open"),
        ("a* *", r"at character 4.*without a space"),
        ("a**", r"at character 3.*repeat of a repeat"),
        ("The .* pub .", r"at character 5.*for any words write <any>\*"),
        ("The .+", r"at character 5.*for any words write <any>\+"),
        ("is it ?", r"at character 7.*write \\\?"),
        ("coffee-shop?", r"at character 1.*3 words"),
        ("(a|)", r"at character 4.*words are missing"),
        ("()", r"at character 2.*words are missing"),
        ("", r"the end: words are missing"),
        ("a{0}", "at least 1"),
        ("a{3,2}", "not less than the minimum"),
        ("a{1,2000}", "at most 1000"),
        (r"\d", r"at character 1.*backslash"),
        ("a \x1b[31m<x>", r"\\x1b|no such class"),
        ("(" * 60 + "a" + ")" * 60, "more than 50 deep"),
        ("(" * 10_000 + "a" + ")" * 10_000, "20001 characters"),
        ("((a{1000}){1000}){1000}", "1e.09 words"),
        ("a{1,1000} b{1,1000} c", "2e.03 words"),
    ],
)
def test_malformed_patterns_are_refused_with_their_place(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(text, split_words)
    assert len(str(error.value)) < 300
    assert "\x1b" not in str(error.value)


def test_words_and_classes_outside_the_vocabulary():
    with pytest.raises(RecipeError, match="no text of words"):
        dfa("The castle".replace("The", "Anna"))
    assert dfa("Anna | castle").accepts([ALPHABET.ids["Anna"]])
    with pytest.raises(RecipeError, match="no text of words"):
        pattern(parse("<number>", split_words), Alphabet([None, "pub"]))


def test_a_pattern_that_needs_too_many_states_is_refused():
    # Whether the 13th word from the end is "pub" takes 2^13 states.
    with pytest.raises(TooLarge, match=str(MAX_STATES)):
        dfa("<any>* pub <any>{12}")


def test_states_grow_with_the_places_of_blanks_not_with_their_combinations():
    assert len(dfa("Anna <any>{0,12} pub <any>{0,12} river <any>{0,12} .").table) < MAX_STATES / 2
    rng, blanks = random.Random(3), parse("Anna (<any>{0,4} pub){2} <any>{1,3} .", split_words)
    automaton = pattern(blanks, ALPHABET)
    texts = [["Anna", *rng.choices(["pub", "river", "."], k=rng.randint(3, 13)), "."] for _ in range(500)]
    is_accepted = [accepts(automaton, text) for text in texts]
    assert is_accepted == [match(blanks, tuple(text))[0] for text in texts]
    assert 50 < sum(is_accepted) < 450


def test_automata_are_minimal():
    assert len(dfa("<any>{0,3}").table) == 4
    assert len(dfa("(pub|river) . | pub .").table) == 3
    assert len(dfa("(pub . | river .)*").table) == 2
    assert dfa("(pub|river) .").table.shape == (3, 4)  # "pub" and "river" are one class; OUTSIDE, "." and the rest


def test_matching_takes_polynomial_time():
    node = parse("((<any>+)+)+ .", split_words)
    assert match(node, ("pub",) * 60) == (False, 60)
    assert match(node, (*("pub",) * 60, ".")) == (True, 61)


def test_how_far_a_text_fits():
    node = parse("Anna (pub . | river{2}) .", split_words)
    assert match(node, ("Anna", "river", "pub")) == (False, 2)
    assert match(node, ("pub",)) == (False, 0)
    assert match(node, ("Anna", "pub", ".", ".", ".")) == (False, 4)


def test_an_escaped_word_is_itself():
    for word in ["pub", "?", "<any>", "a{2}", "(", "\\", "7:30"]:
        assert parse(escaped(word), lambda text: [text]) == Literal(word)
