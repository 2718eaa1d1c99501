"""Texts of listed words over tokens, each word in the tokens in which the tokenizer writes it.

Other tokens that spell the same word are left out: so where one word ends and the next begins is clear from the tokens,
and the automaton has few states more than the words have beginnings of several tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from dlmctl.control.automata.dfa import Automaton
from dlmctl.control.automata.token_trie import TokenTrie, automaton_of
from dlmctl.text.spelling import detokenize
from dlmctl.text.syllables import CLITICS
from dlmctl.text.tokenizer import HuggingFaceTokenizer
from dlmctl.text.tokens import plain_words

# "attached" is a clitic, or a mark that must not follow another mark, with which it could be one: ".." after ".".
Role = Literal["word", "attached", "closing", "opening", "hyphen", "dash", "break"]

# Where a text is between two words. One that goes on after a prompt may begin with a space, or with a mark.
START, AFTER_WORD, AFTER_MARK, AFTER_OPENING = PLACES = range(4)


class _Way(NamedTuple):
    """A way to write an entry: after which places, how it looks there, and the place after it.

    Attributes:
        before: a text after which the entry is written in the same way.
        lead: what is written between the two.
    """

    places: tuple[int, ...]
    before: str
    lead: str
    after: int


_WAYS: dict[Role, tuple[_Way, ...]] = {
    "word": (
        _Way((START,), "", "", AFTER_WORD),
        _Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_WORD),
        _Way((AFTER_OPENING,), "(", "", AFTER_WORD),
    ),
    "attached": (_Way((AFTER_WORD,), "x", "", AFTER_MARK),),
    "closing": (_Way((START, AFTER_WORD, AFTER_MARK), "x", "", AFTER_MARK),),
    "opening": (
        _Way((START,), "", "", AFTER_OPENING),
        _Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_OPENING),
    ),
    "hyphen": (_Way((AFTER_WORD,), "x", "", AFTER_OPENING),),
    "dash": (_Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_MARK),),
    "break": (_Way((AFTER_WORD, AFTER_MARK), "x", "", START),),
}


class Entry(NamedTuple):
    """A word, or marks, that texts may have.

    Attributes:
        role: what it is, which decides where it may stand and how it is spaced.
        counts: whether it is one of those of which a text has ``least``.
    """

    text: str
    role: Role
    counts: bool = False


# Marks that may stand between words, also several together that tokenizers write as one token.
_MARKS: dict[Role, tuple[str, ...]] = {
    "closing": (*".,!?;:)", "...", '"', '."', ',"', '?"', '!"', ").", "),"),
    "opening": ("(", '"'),
    "hyphen": ("-",),
    "dash": ("\u2013", "\u2014"),
    "break": ("\n", "\n\n"),
}
MARKS = [Entry(mark, role) for role, marks in _MARKS.items() for mark in marks]


def writable(tokenizer: HuggingFaceTokenizer, texts: Iterable[str]) -> set[str]:
    """Those of the words ``texts`` that are one word, and that the tokenizer can write within a text."""
    return {
        text
        for text in texts
        if _is_one_word(text) and any(any(_written(tokenizer, role, text)) for role in roles(text))
    }


def roles(text: str) -> tuple[Role, ...]:
    """What a word of a list, which may be a mark, can be in a text."""
    if any(char.isalnum() for char in text):
        return ("attached",) if text.casefold() in CLITICS else ("word",)
    if text == '"':
        return "opening", "attached"
    if text == "-":
        return ("hyphen",)
    # As it is usually spelled.
    of_spelling: dict[str, Role] = {f"x{text} y": "attached", f"x {text}y": "opening"}
    return (of_spelling.get(detokenize(["x", text, "y"]), "dash"),)


@lru_cache(maxsize=2)
def one_token_words(tokenizer: HuggingFaceTokenizer) -> dict[int, str]:
    """The words that are one token, by the token, which may have a space before them."""
    words = {}
    for token, string in enumerate(tokenizer.strings):
        text = (string or b"").decode("utf-8", "replace")
        word = text.removeprefix(" ")
        if not word[:1].isalnum() or not _is_one_word(word):
            continue
        # Without a space it may also be a piece that only ends words, such as BERT's "##s".
        if text != word or tokenizer.encode_text(text)[1:-1] == [token]:
            words[token] = word
    return words


def listed_words(
    tokenizer: HuggingFaceTokenizer,
    entries: Iterable[Entry],
    least: int = 0,
    tokens: Iterable[int] = (),
    most_tokens: int | None = None,
) -> Automaton:
    """The texts of entries, with at least ``least`` of those that count.

    Args:
        tokens: those of ``one_token_words`` that are entries as well, and count.
        most_tokens: the most tokens of a word; None for any number.

    Raises:
        TooLarge: the automaton would be too large.
    """
    trie = TokenTrie(len(PLACES))
    for entry in entries:
        if entry.role in ("word", "attached") and not _is_one_word(entry.text):
            continue
        for way, written in _written(tokenizer, entry.role, entry.text):
            if entry.role == "word" and most_tokens is not None and len(written) > most_tokens:
                continue
            for place in way.places:
                trie.add(place, written, way.after, entry.counts)
    for token in tokens:
        has_space = (tokenizer.strings[token] or b"").startswith(b" ")
        for place in (START, AFTER_WORD, AFTER_MARK) if has_space else (START, AFTER_OPENING):
            trie.add(place, (token,), AFTER_WORD, True)
    return automaton_of(trie, least, may_end=(AFTER_WORD, AFTER_MARK), size=len(tokenizer))


def _is_one_word(text: str) -> bool:
    """Whether a text is one word, also after an opening mark and before a clitic or a hyphen, unlike addresses."""
    if text.isalnum() or text.startswith("'") or not any(char.isalnum() for char in text):
        return plain_words(text) == [text]
    return plain_words(f"({text}'s {text}-x") == ["(", text, "'s", text, "-", "x"]


def clitic_tokens(tokenizer: HuggingFaceTokenizer, clitic: str) -> tuple[int, ...]:
    """The tokens of a clitic after a word; none if the tokenizer cannot write it there, or it is no word of its own."""
    return next((tokens for _, tokens in _written(tokenizer, "attached", clitic)), ()) if _is_one_word(clitic) else ()


def _written(tokenizer: HuggingFaceTokenizer, role: Role, text: str) -> Iterator[tuple[_Way, tuple[int, ...]]]:
    """The ways in which the tokenizer can write a text that has a role, each with its tokens."""
    for way in _WAYS[role]:
        if tokens := _tokens(tokenizer, way.before, way.lead, text):
            yield way, tokens


@lru_cache(maxsize=16)
def _head(tokenizer: HuggingFaceTokenizer, before: str) -> list[int]:
    """The tokens of a text before entries, which is the same for many of them."""
    return tokenizer.encode_text(before)[1:-1]


def _tokens(tokenizer: HuggingFaceTokenizer, before: str, lead: str, text: str) -> tuple[int, ...]:
    """The tokens of a text after another one; none if they are not those of the text alone, as for an unknown sign.

    Some tokenizers write a space before every word, but those that write none where ``lead`` is one join marks.
    """
    head, whole = _head(tokenizer, before), tokenizer.encode_text(before + lead + text)[1:-1]
    tokens = whole[len(head) :]
    strings = [tokenizer.strings[token] for token in tokens]
    if whole[: len(head)] != head or None in strings:
        return ()
    written = b"".join(string or b"" for string in strings).decode("utf-8", "replace")
    return tuple(tokens) if written in (lead + text, f" {text}") else ()
