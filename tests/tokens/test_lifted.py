"""Languages of words over tokens: a text is in them exactly if its words are, whatever the tokens."""

import contextlib
import itertools
import random
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dlmctl.control.automata import chain, exact_tokens, scaled, spelled
from dlmctl.control.automata import transitions as transitions_of
from dlmctl.control.automata.dfa import shortest
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.control.automata.languages import avoiding
from dlmctl.control.automata.lifted import lifted, units_of
from dlmctl.control.automata.posterior import condition, likeliest, log_probability, log_probability_by_length
from dlmctl.control.automata.regex import parse
from dlmctl.control.automata.requirement import Requirement, pattern_requirement, required_length
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.spelled import Spelled
from dlmctl.control.automata.syntax import match
from dlmctl.control.automata.transitions import stacked
from dlmctl.errors import RecipeError
from dlmctl.text.tokens import plain_words
from tests.tokens.test_tokens import wrapped
from tests.tokens.tokenizers_of_all_kinds import KINDS, SPECIAL, TEXTS, UNK, tokenizer_of


def phrases_of(*phrases):
    split = tuple(tuple(plain_words(phrase)) for phrase in phrases)
    return split, tuple(word for phrase in split for word in phrase)


def contains(*phrases):
    split, words = phrases_of(*phrases)
    return Requirement("contains", split, words, phrases=split)


def avoids(*phrases):
    split, words = phrases_of(*phrases)
    language = lambda alphabet: avoiding(alphabet, [[alphabet.ids[word] for word in one] for one in split])  # noqa: E731
    return Requirement("avoid", split, words, language)


def has(words, phrase):
    return any(words[at : at + len(phrase)] == list(phrase) for at in range(len(words) - len(phrase) + 1))


PATTERNS = [
    "The <any>{1,2} (is|was) (a|an)? <any>* (pub|café) .",
    "<any>* 🎉 <any>?",
]


def cases(tokenizer):
    """Languages, each with what plain Python says of a text's words."""
    wanted, unwanted = contains("the river", "a"), avoids("a", "the old", "s")
    found = [
        (required_length(2, 3), lambda words: len(words) in (2, 3)),
        (wanted, lambda words: all(has(words, one) for one in wanted.phrases)),
        (unwanted, lambda words: not any(has(words, one) for one in unwanted.key)),
    ]
    for text in PATTERNS:
        tree = parse(text, tokenizer.split)
        try:
            found.append((pattern_requirement("pattern", tree), lambda words, tree=tree: match(tree, tuple(words))[0]))
        except RecipeError:
            assert tokenizer is tokenizer_of("word pieces")  # which has no bytes
    return found


def walked(automaton, stream, longest):
    """Tokens at random that lead to acceptance, or nowhere in so many; straight on in the second half."""
    near = shortest(automaton)
    state, tokens = 0, []
    by_class = [(automaton.classes == one).nonzero()[0] for one in range(automaton.table.shape[1])]
    while len(tokens) < longest and not (automaton.accepting[state] and stream.random() < 0.3):
        to = automaton.table[state]
        good = (to >= 0) & ((len(tokens) < longest // 2) | (near[to] < near[state]))
        kinds = good.nonzero()[0]
        if not len(kinds):
            break
        kind = stream.choice(kinds.tolist())
        tokens.append(int(stream.choice(by_class[kind].tolist())))
        state = int(automaton.table[state, kind])
    return tokens


@pytest.mark.parametrize("kind", KINDS)
def test_token_texts_are_in_a_language_if_their_words_are(kind):
    tokenizer, stream = tokenizer_of(kind), random.Random(3)
    usual = [index for index, string in enumerate(tokenizer.strings) if string]
    for asked, holds in cases(tokenizer):
        automaton, seen = token_language(tokenizer, [asked]), 0
        for _ in range(60):
            tokens = walked(automaton, stream, 24)
            seen += automaton.accepts(tokens)
            changed = list(tokens)
            if changed:
                changed[stream.randrange(len(changed))] = stream.choice(usual)
            for one in (tokens, changed, stream.choices(usual, k=4), tokenizer.encode_text(stream.choice(TEXTS))[1:-1]):
                text = b"".join(tokenizer.strings[index] or b"" for index in one)
                accepted = automaton.accepts(one)
                assert not accepted or holds(tokenizer.words(one)), (asked, text)
                # What the automata leave out: parts of characters, and what NFC would change.
                if text.isascii() and b"@" not in text and b"://" not in text and UNK not in text.decode():
                    assert accepted == holds(tokenizer.words(one)), (asked, text)
        assert seen > 10, asked


@pytest.mark.parametrize("kind", KINDS)
def test_requirements_beside_each_other_are_built_from_those_of_each(kind, monkeypatch):
    """The rows of a table share what they have in common."""
    tokenizer, stream, built = tokenizer_of(kind), random.Random(4), []
    monkeypatch.setattr(exact_tokens, "_cache", {})
    monkeypatch.setattr(exact_tokens, "lifted", lambda *given: built.append(given) or lifted(*given))
    for phrase, count in itertools.product(("bread", "a pub"), (5, 6, 7)):
        automaton = token_language(tokenizer, [contains(phrase), required_length(count, count), avoids("soup the")])
        texts = [tokens for tokens in (walked(automaton, stream, 30) for _ in range(20)) if automaton.accepts(tokens)]
        assert len(texts) > 5
        for words in map(tokenizer.words, texts):
            assert len(words) == count
            assert has(words, plain_words(phrase))
            assert not has(words, ["soup", "the"])
    assert len(built) == 2 + 3 + 1


def test_what_is_too_large_is_found_out_once(monkeypatch):
    tokenizer, tried, faults = tokenizer_of("bytes"), [], []
    monkeypatch.setattr(exact_tokens, "_cache", {})
    monkeypatch.setattr(spelled, "MAX_CHARACTER_STATES", 500)
    monkeypatch.setattr(exact_tokens, "Spelled", lambda *given: tried.append(given) or Spelled(*given))
    for _ in range(3):
        with pytest.raises(RecipeError, match=r"pattern: .* too large") as fault:
            token_language(tokenizer, [pattern_requirement("pattern", parse("<any>{1,1000}", tokenizer.split))])
        faults.append(fault.value)
    assert len(tried) == 1
    assert all(fault.__context__ is None for fault in faults)  # which would hold what was built
    assert len({id(fault) for fault in faults}) == 3


def tiny(folder):
    """Ten pieces that meet in many ways: parts of a word, of a clitic, of a number and of a character."""
    pieces = ["a", "▁a", "n", "'", "s", ".", "5", "▁", "<0xC3>", "<0xA9>"]
    scored = [(piece, -1.0) for piece in [*SPECIAL, *pieces]]
    inner = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return wrapped(inner, folder)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


ASKED = [
    (contains("an"), lambda words: has(words, ["an"])),
    (avoids("a", "an 's"), lambda words: not has(words, ["a"]) and not has(words, ["an", "'s"])),
    (contains("é"), lambda words: has(words, ["é"])),
    (required_length(2, 2), lambda words: len(words) == 2),
]


@pytest.mark.parametrize("way", ["log space", "scaled", "chain"])
@pytest.mark.parametrize("large", [0, 1 << 16], ids=["edges", "tables"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", range(len(ASKED)))
def test_the_posterior_over_tokens_is_that_of_enumeration(few, monkeypatch, number, dtype, large, way):
    monkeypatch.setattr(transitions_of, "LARGE", large)
    monkeypatch.setattr(transitions_of, "SPARSE", 0)
    monkeypatch.setattr(scaled, "TRANSITIONS_CPU", 0 if way == "scaled" else None)
    monkeypatch.setattr(chain, "ON_CPU", way == "chain")
    asked, holds = ASKED[number]
    count, automaton = 4, token_language(few, [asked])
    generator = torch.Generator().manual_seed(number)
    log_probs = (2 * torch.randn(1, count + 2, len(few), generator=generator, dtype=dtype)).log_softmax(-1)
    texts = [one for one, words in texts_of(few, count) if holds(words)]
    assert texts
    at = torch.tensor(texts)
    scores = log_probs[0, torch.arange(count) + 1][torch.arange(count), at].double().sum(1)
    total = scores.logsumexp(0)
    wanted = torch.zeros(count, len(few), dtype=torch.float64)
    for place in range(count):
        wanted[place].index_add_(0, at[:, place], (scores - total).exp())
    automata, words = stacked([automaton]), torch.tensor([count])
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert float(log_probability(log_probs, automata, spans_of(words))) == pytest.approx(float(total), abs=tolerance)
    found = condition(log_probs, automata, spans_of(words))[0, 1 : count + 1].double().exp()
    assert (found - wanted).abs().max() < tolerance
    best = likeliest(log_probs, automata, spans_of(words))[0, 1 : count + 1].argmax(-1)
    assert tuple(best.tolist()) == texts[int(scores.argmax())]


@cache
def texts_of(tokenizer, count):
    """Every text of so many tokens that is UTF-8, with its words."""
    found = []
    for tokens in itertools.product(range(4, len(tokenizer)), repeat=count):
        with contextlib.suppress(UnicodeDecodeError):
            b"".join(tokenizer.strings[index] or b"" for index in tokens).decode()
            found.append((tokens, tokenizer.words(tokens)))
    return found


def test_the_chance_of_each_number_of_tokens(few):
    automaton = token_language(few, [required_length(2, 2)])
    log_probs = torch.randn(len(few), dtype=torch.float64).log_softmax(-1)
    found = log_probability_by_length(log_probs, stacked([automaton]), 5)
    for count in range(1, 6):
        rows = log_probs.expand(1, count + 2, -1)
        wanted = log_probability(rows, stacked([automaton]), spans_of(torch.tensor([count])))
        assert float(found[count]) == pytest.approx(float(wanted), abs=1e-9)


def test_a_word_of_one_token_and_of_ten():
    tokenizer = tokenizer_of("bytes")
    pieces = [
        next(at for at, string in enumerate(tokenizer.strings) if string == bytes([byte])) for byte in b"riverside"
    ]
    whole = tokenizer.encode_text("by the riverside")[1:-1]
    assert len(whole) < len(pieces)
    automaton = token_language(tokenizer, [avoids("riverside")])
    space = tokenizer.encode_text(" ")[1]
    assert not automaton.accepts(whole)
    assert not automaton.accepts(pieces)
    assert not automaton.accepts(
        [*tokenizer.encode_text("The")[1:-1], space, *pieces, *tokenizer.encode_text(".")[1:-1]]
    )
    assert automaton.accepts([*pieces, pieces[-4]])  # riversides
    assert automaton.accepts([pieces[4], *pieces])  # sriverside


@pytest.mark.parametrize(("words", "message"), [("see me@mill.uk", "cannot be enforced"), ("漢", "cannot spell '漢'")])
def test_words_that_cannot_be_written_are_named(words, message):
    with pytest.raises(RecipeError, match=message):
        token_language(tokenizer_of("word pieces"), [contains(words)])


def test_bytes_that_are_no_characters_are_units_themselves():
    units = units_of([bytes([byte]) for byte in range(0x80, 0x100)])
    assert units.flat.tolist() == list(range(0x80, 0x100))


def test_many_phrases_come_in_the_given_order():
    tokenizer = tokenizer_of("word pieces")
    words = ["quiet", "cheap", "open", "old", "pub", "river", "soup", "bread", "cook", "place", "bridge", "two"]
    automaton = token_language(tokenizer, [contains(*words)])
    text = tokenizer.encode_text(" ".join(words))[1:-1]
    assert automaton.accepts(text)
    assert not automaton.accepts(tokenizer.encode_text(" ".join(words[:-1]))[1:-1])
