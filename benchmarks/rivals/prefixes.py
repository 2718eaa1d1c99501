"""Controls as tokens: tags and a tree in front of a text; a span, a length, a field with its value beside its words.

Of a token or three in front, a model this small learns little: where a span stands it would have to count. So at every
word it is told how far off the control is, from there: how many words until the span begins and until it ends, or until
the text ends; and the field with its value all along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.annotators.trees import ROOTS, Tree

from .annotated import Text

CONTROLS = ("pos", "spans", "syntax_tree", "semantic", "length")
# Most tokens in front; words that a text may have, and most tokens beside one of them.
ROOM = 256
PLACES, BESIDE = 64, 3
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
    """Until one word after the span: its label, how far off its first word is, and how far its last."""
    before = [[f"label:{label}", f"from:{start - at}", f"to:{end - at}"] for at in range(start + 1)]
    inside = [[f"label:{label}", f"to:{end - at}"] for at in range(start + 1, end + 1)]
    return Told([], [*before, *inside, [f"label:{label}"]])


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
    return Told([], [[f"field:{name}={value}"]] * PLACES)


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


def tokens_of(texts: Iterable[Text]) -> list[str]:
    """All tokens of controls over these texts, in order."""
    found = {")"} | {f"tag:{tag}" for tag in UPOS_TAGS}
    for place in range(PLACES):
        found |= {f"from:{place}", f"to:{place}", f"words:{place}"}
    for text in texts:
        found |= set(_brackets(text.tree)) | {f"label:{span.label}" for span in text.spans}
        found |= {f"field:{name}={value}" for name, value in text.fields.items()}
    return sorted(found)
