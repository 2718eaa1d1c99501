"""Controls as tokens in front of a text: tags, a span, a tree, a length, a field with its value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dlmctl.annotators.tagging import UPOS_TAGS
from dlmctl.annotators.trees import ROOTS, Tree

from .annotated import Text
from .network import ROOM

CONTROLS = ("pos", "spans", "syntax_tree", "semantic", "length")


def of_tags(tags: Sequence[str]) -> list[str]:
    return [f"tag:{tag}" for tag in tags]


def of_span(start: int, end: int, label: str) -> list[str]:
    return [f"from:{start}", f"to:{end}", f"label:{label}"]


def of_tree(tree: Tree) -> list[str]:
    """Depth first: what opens, tags of words, and ``)``."""
    if not tree.children:
        return [f"leaf:{tree.label}"]
    inside = [token for child in tree.children for token in of_tree(child)]
    return inside if tree.label in ROOTS else [f"open:{tree.label}", *inside, ")"]


def of_length(words: int) -> list[str]:
    return [f"words:{words}"]


def of_field(name: str, value: str) -> list[str]:
    return [f"field:{name}={value}"]


def choices(control: str, text: Text) -> list[list[str]]:
    """The controls of a kind that a text itself satisfies, as tokens; the empty one where there is none."""
    if control == "spans":
        return [of_span(*span) for span in text.spans] or [[]]
    if control == "semantic":
        return [of_field(*field) for field in text.fields.items()] or [[]]
    settled: dict[str, Callable[[], list[str]]] = {
        "pos": lambda: of_tags(text.tags),
        "syntax_tree": lambda: of_tree(text.tree),
        "length": lambda: of_length(len(text.words)),
    }
    return [settled[control]()[: ROOM - 1]]


def tokens_of(texts: Iterable[Text]) -> list[str]:
    """All tokens of controls over these texts, in order."""
    found = {")"} | {f"tag:{tag}" for tag in UPOS_TAGS}
    for place in range(64):
        found |= {f"from:{place}", f"to:{place}", f"words:{place}"}
    for text in texts:
        found |= set(of_tree(text.tree)) | {f"label:{span.label}" for span in text.spans}
        found |= {token for field in text.fields.items() for token in of_field(*field)}
    return sorted(found)
