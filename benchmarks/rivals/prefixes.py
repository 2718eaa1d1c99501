"""Controls as tokens: tags, a tree, a field with its value in front of a text; a span and a length beside its words.

Where a span stands that is told in front, a model this small would have to count, and does not learn to. So at every
word it is told how far off the span is: how many words until it begins and until it ends; or until the text ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from dlmctl.annotators.trees import ROOTS, Tree

from .annotated import Text

CONTROLS = ("pos", "spans", "syntax_tree", "semantic", "length")
# Most tokens in front; words that a text may have, and most tokens beside one of them.
ROOM = 256
PLACES, BESIDE = 64, 2
# Words from which on a span is as far off as any other: what is rarely told is not learned.
FAR = 8
Token = TypeVar("Token")


class Told(NamedTuple, Generic[Token]):
    """What a model is told: tokens in front of the text, and those beside each word as it is to be written."""

    front: list[Token]
    beside: list[list[Token]]


NOTHING: Told[int] = Told([], [])


def numbered(told: Told[str], number: dict[str, int]) -> Told[int]:
    """Tokens as ids; one that training never saw is left out."""

    def ids(tokens: Sequence[str]) -> list[int]:
        return [number[token] for token in tokens if token in number]

    return Told(ids(told.front)[: ROOM - 1], [ids(tokens) for tokens in told.beside])


def of_tags(tags: Sequence[str]) -> Told[str]:
    return Told([f"tag:{tag}" for tag in tags], [])


def of_span(start: int, end: int, label: str) -> Told[str]:
    """How far off its first word is, from there how far its last, and then that it is over."""
    before = [[f"from:{min(start - at, FAR)} {label}"] for at in range(start)]
    first = [f"from:0 {label}", f"to:{min(end - start, FAR)} {label}"]
    inside = [[f"to:{min(end - at, FAR)} {label}"] for at in range(start + 1, end + 1)]
    return Told([], [*before, first, *inside, [f"over {label}"]])


def of_tree(tree: Tree) -> Told[str]:
    return Told(_brackets(tree), [])


def _brackets(tree: Tree) -> list[str]:
    """Depth first: what opens, tags of words, and ``)``."""
    if not tree.children:
        return [f"leaf:{tree.label}"]
    inside = [token for child in tree.children for token in _brackets(child)]
    return inside if tree.label in ROOTS else [f"open:{tree.label}", *inside, ")"]


def of_length(words: int) -> Told[str]:
    return Told([], [[f"words:{words - at}"] for at in range(words + 1)])


def of_field(name: str, value: str) -> Told[str]:
    return Told([f"field:{name}={value}"], [])


def choices(control: str, text: Text) -> list[Callable[[], Told[str]]]:
    """The controls of a kind that a text itself satisfies; nothing where there is none."""
    nothing = [lambda: Told[str]([], [])]
    if control == "spans":
        return [partial(of_span, *span) for span in text.spans] or nothing
    if control == "semantic":
        return [partial(of_field, *field) for field in text.fields.items()] or nothing
    settled: dict[str, Callable[[], Told[str]]] = {
        "pos": lambda: of_tags(text.tags),
        "syntax_tree": lambda: of_tree(text.tree),
        "length": lambda: of_length(len(text.words)),
    }
    return [settled[control]]


def tokens_of(control: str, texts: Iterable[Text]) -> list[str]:
    """All tokens of controls of a kind over these texts, in order."""
    told = (choice() for text in texts for choice in choices(control, text))
    return sorted({token for front, beside in told for part in (front, *beside) for token in part})
