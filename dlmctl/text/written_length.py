"""How many characters each word adds to a text as ``detokenize`` writes it.

That depends on what stands before it: a word after a word gets a space, a comma does not, and after a hyphen a space is
taken back. What matters of the words before is a context; each has an example, so that the number is that of
``detokenize`` itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import product

from dlmctl.text.spelling import AFTER_DASH, JOINED, SPACED, WRITTEN_AS_ONE, detokenize

# The first word of two that are written as one, by its spellings: "gon" for "gon" and "wan".
_FIRST_OF_ONE = {first: firsts[0] for firsts in WRITTEN_AS_ONE.values() for first in firsts}
# For each state of the text before a word, words that bring it about; see ``_state_after``.
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "start": (),
    "word": ("x",),
    "mark": ("x", ","),
    "open": ("x", "("),
    "hyphen": ("x", "-"),
    "slash": ("x", "/"),
    "dashed": ("x", "-", "the"),
    **{first: (first,) for first in _FIRST_OF_ONE.values()},
    "one": ("gon", "na"),
}
# A context is a state, and whether a quotation is open.
CONTEXTS: tuple[tuple[str, bool], ...] = tuple(product(_EXAMPLES, (False, True)))
_NUMBERS = {context: number for number, context in enumerate(CONTEXTS)}

_OPENING = frozenset("([£$€#¡¿")
_MARKS = frozenset([*'.,;:!?%)]…”"-/&*+=~@', "--", "..", "...", *_OPENING])
_JOINING = {"-": "hyphen", "/": "slash"}
_AFTER_WORD = frozenset(["word", "one", *_FIRST_OF_ONE.values()])
_SPECIAL = AFTER_DASH | WRITTEN_AS_ONE.keys() | _FIRST_OF_ONE.keys() | {"n't"}


def step(context: int, word: str) -> tuple[int, int] | None:
    """The number of the context after a word, and how many characters the word adds; None if the spacing would not
    follow from the context, as for single quotation marks.

    Args:
        context: number of the context before it; a text begins in context 0.
    """
    state, quoted = CONTEXTS[context]
    after = _state_after(state, word, quoted=quoted)
    if after is None:
        return None
    before = [*['"'] * quoted, *_EXAMPLES[state]]
    added = len(detokenize([*before, word])) - len(detokenize(before))
    return _NUMBERS[after, quoted ^ (word == '"')], added


def kind(word: str) -> Hashable:
    """Words of the same kind have the same steps."""
    is_plain = word[:1].isalnum() and word[-1:].isalnum() and word.casefold() not in _SPECIAL
    return len(word) if is_plain else word


def _state_after(state: str, word: str, *, quoted: bool) -> str | None:
    if JOINED in word or SPACED in word:
        return None
    if any(char.isalnum() for char in word):
        return _state_after_word(state, word)
    if word not in _MARKS:
        return None
    if word == '"':
        return "mark" if quoted else "start"
    if word in _JOINING and state in _AFTER_WORD:
        return _JOINING[word]
    if word in _JOINING and state != "mark":
        return None  # after "x - the" it would take back the spaces before
    return "open" if word in _OPENING else "mark"


def _state_after_word(state: str, word: str) -> str | None:
    if not word[-1].isalnum():
        return None if state == "hyphen" else "mark"  # "x - a.m." is a dash, too
    lower = word.casefold()
    if state == "hyphen" and lower in AFTER_DASH:
        return "dashed"
    if state == _FIRST_OF_ONE.get(WRITTEN_AS_ONE.get(lower, ("",))[0]):
        return "one"
    return _FIRST_OF_ONE.get(lower, "word")
