"""Constituency trees: bracketed text, labelled spans, and conversions between them.

A span is over words, from 0, with both ends included. A unary chain is one span; its label joins those of the chain
from the top by ``::``, as ``S::NP``. The root symbol (``ROOT``, ``TOP``) is not a span.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROOTS = ("ROOT", "TOP", "")
JOIN = "::"
PHRASES = tuple(
    "ADJP ADVP CONJP FRAG INTJ LST NAC NML NP NX PP PRN PRT QP RRC S SBAR SBARQ SINV SQ UCP VP WHADJP WHADVP WHNP"
    " WHPP X".split()
)
# Tags of words in treebanks of English, including those too rare for a parser to have learned them.
TAGS = tuple(
    "# $ '' , -LRB- -RRB- . : `` ADD AFX CC CD DT EX FW GW HYPH IN JJ JJR JJS LS MD NFP NN NNP NNPS NNS PDT POS PRP"
    " PRP$ RB RBR RBS RP SYM TO UH VB VBD VBG VBN VBP VBZ WDT WP WP$ WRB XX".split()
)

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_FUNCTION = re.compile(r"(?<=.)[-=|].*")
_ESCAPES = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_UNESCAPES = {written: char for char, written in _ESCAPES.items()}


class Span(NamedTuple):
    """A constituent: its first and last word, from 0, and its label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Tree:
    """A node: a phrase with children, or a word (no children) whose label is its tag."""

    label: str
    children: tuple[Tree, ...] = ()
    word: str = ""

    def leaves(self) -> Iterator[Tree]:
        """Yield the words from left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def __str__(self) -> str:
        """Bracketed on one line; brackets among the words are written ``-LRB-`` and the like."""
        if not self.children and not self.word:
            return self.label
        if not self.children:
            return f"({self.label} {_ESCAPES.get(self.word, self.word)})"
        return f"({self.label} {' '.join(map(str, self.children))})"


def read_trees(text: str) -> list[Tree]:
    """All bracketed trees of a text.

    A leaf is ``(PRP It)``, or its tag alone as in ``(NP DT NN)`` and ``(NP PRP)``: in brackets with a single atom, a
    label in ``PHRASES`` is a phrase over that tag, any other label a tag of that word.

    Raises:
        ValueError: the brackets do not match, or are empty.
    """
    # The label of each open bracket and its children so far: trees and bare atoms.
    stack: list[tuple[str, list[Tree | str]]] = []
    trees: list[Tree] = []
    tokens = [*_TOKEN.findall(text)]
    for at, token in enumerate(tokens):
        if token == "(":
            labelled = at + 1 < len(tokens) and tokens[at + 1] not in "()"
            stack.append((tokens[at + 1] if labelled else "", []))
        elif token == ")":
            if not stack:
                raise ValueError("a bracket is closed that was not opened")
            node = _node(*stack.pop())
            if stack:
                stack[-1][1].append(node)
            else:
                trees.append(node)
        elif not stack:
            raise ValueError(f"{token!r} is outside all brackets")
        elif tokens[at - 1] != "(":
            stack[-1][1].append(token)
    if stack:
        raise ValueError(f"{len(stack)} brackets are not closed" if len(stack) > 1 else "a bracket is not closed")
    return trees


def read_tree(text: str) -> Tree:
    """The single tree of a text; see ``read_trees``.

    Raises:
        ValueError: it has no tree or several, or is not well bracketed.
    """
    trees = read_trees(text)
    if len(trees) != 1:
        raise ValueError(f"one tree is expected, not {len(trees)}")
    return trees[0]


def _node(label: str, children: list[Tree | str]) -> Tree:
    if not children:
        raise ValueError(f"the brackets of {label or 'a node without a label'!r} are empty")
    if len(children) == 1 and isinstance(children[0], str) and label not in PHRASES and label not in ROOTS:
        return Tree(label, word=_UNESCAPES.get(children[0], children[0]))
    return Tree(label, tuple(Tree(child) if isinstance(child, str) else child for child in children))


def simplify(tree: Tree) -> Tree | None:
    """The tree without function tags (``NP-SBJ`` becomes ``NP``) and traces; None if nothing is left."""
    if tree.label == "-NONE-":
        return None
    if not tree.children:
        return tree
    kept = tuple(child for child in map(simplify, tree.children) if child is not None)
    return Tree(_FUNCTION.sub("", tree.label), kept) if kept else None


def labelled_spans(tree: Tree) -> list[Span]:
    """Every constituent with its chain of labels, outer before inner."""
    spans: list[Span] = []

    def walk(node: Tree, start: int, chain: tuple[str, ...]) -> int:
        if not node.children and not chain:
            return start + 1
        if node.children and node.label not in ROOTS:
            chain = (*chain, node.label)
        if len(node.children) == 1:
            return walk(node.children[0], start, chain)
        index, end = len(spans), start if node.children else start + 1
        for child in node.children:
            end = walk(child, end, ())
        if chain:
            spans.insert(index, Span(start, end - 1, JOIN.join(chain)))
        return end

    walk(tree, 0, ())
    return spans


def from_spans(words: Sequence[str], tags: Sequence[str], spans: Iterable[Span]) -> Tree:
    """The tree under ``ROOT`` with these constituents, which must nest.

    Args:
        spans: at most one for each pair of ends; chains as ``S::NP``.
    """
    # The topmost nodes so far, and the first word of each.
    nodes = [Tree(tag, word=word) for word, tag in zip(words, tags, strict=True)]
    starts = list(range(len(nodes)))
    for span in sorted(spans, key=lambda span: (span.end - span.start, span.start)):
        first = bisect_left(starts, span.start)
        last = bisect_right(starts, span.end, first)
        children = tuple(nodes[first:last])
        for label in reversed(span.label.split(JOIN)):
            children = (Tree(label, children),)
        nodes[first:last] = children
        starts[first:last] = [span.start]
    return Tree("ROOT", tuple(nodes))
