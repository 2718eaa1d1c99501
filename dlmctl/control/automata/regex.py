"""Parser of the pattern language over words, e.g. ``The <any>{1,2} (is|was) (a|an) <any>* (pub|restaurant) .``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from dlmctl.control.automata.syntax import (
    CLASSES,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_REPEATS,
    MAX_WORDS,
    Chain,
    Choice,
    Literal,
    Node,
    Repeat,
    WordClass,
    size,
    word_range,
)
from dlmctl.text.spelling import split_piece

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<open>\()|(?P<close>\))|(?P<bar>\|)|(?P<name><[^<>()|\s]*>)"
    r"|(?P<repeat>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})"
    r"|(?P<text>(?:\\\W|\\_|[^\s()|<>*+?{}\\])+)|(?P<stray>.)",
    re.DOTALL,
)
_ADVICE = {
    "{": "a repeat is written {2}, {1,3} or {2,}; for the character itself write \\{",
    "}": "no repeat is open; for the character itself write \\}",
    "<": f"a class is one of {', '.join(f'<{name}>' for name in CLASSES)}; for the character itself write \\<",
    ">": "no class is open; for the character itself write \\>",
    "\\": "a backslash goes before a special character, ( ) | < > * + ? { } or \\, to mean the character itself",
}
_SIMPLE = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Group:
    """An open group: its position, its finished alternatives, and the items of the current one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.alternatives: list[Node] = []
        self.items: list[Node] = []


def parse(pattern: str, split: Callable[[str], list[str]]) -> Node:
    """Parse a pattern into its tree.

    Words are separated by spaces and split further by ``split``, as the tokeniser splits raw text: ``pub.`` is two
    words. ``|`` separates alternatives, ``( )`` group, ``* + ? {2} {1,3} {2,}`` repeat the word, class or group right
    before them; ``<any>`` and the other names of ``CLASSES`` match one word each; a backslash makes a special
    character literal (``\\?`` is a question mark). A full stop is a full stop.

    Raises:
        ValueError: the pattern is malformed or exceeds a limit; the message says where and what would be right.
    """
    if len(pattern) > MAX_CHARACTERS:
        raise ValueError(f"the pattern has {len(pattern)} characters; at most {MAX_CHARACTERS} are allowed")
    return _Parser(pattern, split).tree()


def escaped(word: str) -> str:
    """A word with its special characters escaped for a pattern."""
    return re.sub(r"[()|<>*+?{}\\]", r"\\\g<0>", word)


def _at_end(node: Node, split: Callable[[str], list[str]]) -> Node:
    """The pattern, with each abbreviation that may be the last word of a text also as the two words it is there."""
    if isinstance(node, Literal):
        words = split(node.word) if node.word.endswith(".") else []
        return Choice((node, Chain(tuple(map(Literal, words))))) if len(words) == 2 else node
    if isinstance(node, Repeat):
        return Repeat(_at_end(node.item, split), node.least, node.most)
    if isinstance(node, Choice):
        return Choice(tuple(_at_end(item, split) for item in node.items))
    if isinstance(node, Chain):
        items = list(node.items)
        for at in reversed(range(len(items))):
            items[at] = _at_end(items[at], split)
            if word_range(items[at])[0] > 0:  # what is before it can never be last
                break
        return Chain(tuple(items))
    return node


class _Parser:
    """Reads tokens one by one onto a stack of open groups, without recursion; one method for each kind of token."""

    def __init__(self, pattern: str, split: Callable[[str], list[str]]) -> None:
        self.pattern, self.split = pattern, split
        self.groups = [_Group(0)]
        self.previous = _Token("start", "", 0)

    def tree(self) -> Node:
        for match in _TOKEN.finditer(self.pattern):
            token = _Token(match.lastgroup or "", match[0], match.start())
            getattr(self, f"_{token.kind}")(token)
            self.previous = token
        if len(self.groups) > 1:
            raise self._error(self.groups[-1].at, "this group is not closed: a `)` is missing")
        tree = _at_end(self._finished(len(self.pattern)), self.split)
        if word_range(tree)[1] == 0:
            raise ValueError("the pattern matches no words")
        if size(tree) > MAX_WORDS:
            raise ValueError(
                f"the pattern has {size(tree):.3g} words with its repeats written out; at most {MAX_WORDS} are "
                "allowed. Use smaller repeats, or * and +"
            )
        return tree

    def _error(self, at: int, message: str) -> ValueError:
        excerpt = self.pattern[at : at + 12]
        return ValueError(f"at character {at + 1}{f', {excerpt!r}' if excerpt else ', the end'}: {message}")

    def _space(self, token: _Token) -> None:
        pass

    def _open(self, token: _Token) -> None:
        if len(self.groups) > MAX_DEPTH:
            raise self._error(token.at, f"groups are nested more than {MAX_DEPTH} deep")
        self.groups.append(_Group(token.at))

    def _bar(self, token: _Token) -> None:
        group = self.groups[-1]
        group.alternatives.append(self._alternative(token.at))
        group.items = []

    def _close(self, token: _Token) -> None:
        if len(self.groups) == 1:
            raise self._error(token.at, "no group is open; for the character itself write \\)")
        tree = self._finished(token.at)
        self.groups.pop()
        self.groups[-1].items.append(tree)

    def _name(self, token: _Token) -> None:
        name = token.text[1:-1]
        if name not in CLASSES:
            raise self._error(token.at, f"there is no such class: {_ADVICE['<']}")
        self.groups[-1].items.append(WordClass(name))

    def _text(self, token: _Token) -> None:
        text = re.sub(r"\\(.)", r"\1", token.text)
        words = split_piece(text, self.pattern, token.at + len(token.text), self.split)
        if not words:
            raise self._error(token.at, "this is not a word")
        self.groups[-1].items.extend(map(Literal, words))
        self.words = words

    def _repeat(self, token: _Token) -> None:
        if self.previous.kind == "repeat":
            raise self._error(token.at, "a repeat of a repeat; put the first into a group: (a+){2}")
        if self.previous.kind not in ("text", "name", "close"):
            rule = "a repeat follows a word, class or group directly, without a space"
            raise self._error(token.at, f"{rule}; for the character itself write \\{token.text[0]}")
        if self.previous.text == "." and token.text in ("*", "+"):
            any_words = f"this repeats full stops; for any words write <any>{token.text}"
            raise self._error(self.previous.at, f"{any_words}, for full stops (.){token.text}")
        if self.previous.kind == "text" and len(self.words) > 1:
            raise self._error(
                self.previous.at,
                f"these are {len(self.words)} words, {' '.join(self.words)}; write spaces between them, or put the "
                "words to repeat into a group",
            )
        least, most = self._bounds(token)
        items = self.groups[-1].items
        items[-1] = Repeat(items[-1], least, most)

    def _bounds(self, token: _Token) -> tuple[int, int | None]:
        if token.text in _SIMPLE:
            return _SIMPLE[token.text]
        first, comma, last = token.text[1:-1].partition(",")
        least = int(first)
        most = least if not comma else int(last) if last.strip() else None
        if max(least, most or 0) > MAX_REPEATS:
            raise self._error(token.at, f"a repeat count is at most {MAX_REPEATS}; {{2,}} has no upper bound")
        if most is not None and most < max(1, least):
            raise self._error(token.at, "the maximum must be at least 1 and not less than the minimum")
        return least, most

    def _stray(self, token: _Token) -> None:
        raise self._error(token.at, _ADVICE[token.text])

    def _alternative(self, at: int) -> Node:
        items = self.groups[-1].items
        if not items:
            raise self._error(at, "words are missing before this; write (a|b)? for optional words")
        return items[0] if len(items) == 1 else Chain(tuple(items))

    def _finished(self, at: int) -> Node:
        alternatives = [*self.groups[-1].alternatives, self._alternative(at)]
        return alternatives[0] if len(alternatives) == 1 else Choice(tuple(alternatives))
