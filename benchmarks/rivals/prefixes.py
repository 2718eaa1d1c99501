"""Controls as tokens: tags, trees and field values as a prefix of the text; spans and lengths aligned with its words.

To place a span that is given in a prefix, a model this small would have to count, and does not learn to. So it receives
with every word the distance to the span: how many words until it begins and until it ends; or until the text ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from dlmctl.annotators.trees import ROOTS, Tree

from .annotated import Text

CONTROLS = ("pos", "spans", "syntax_tree", "semantic", "length")
# Most tokens of a prefix; most positions of a text, and most tokens aligned with one of them.
MAX_PREFIX = 256
MAX_POSITIONS, MAX_ALIGNED = 64, 2
# Distances are capped here, as rare ones would not be learned.
MAX_DISTANCE = 8
Token = TypeVar("Token")


class ControlTokens(NamedTuple, Generic[Token]):
    """The condition of a model: tokens before the text, and those aligned with each word to be written."""

    prefix: list[Token]
    aligned: list[list[Token]]


NO_CONTROL: ControlTokens[int] = ControlTokens([], [])


def encode(tokens: ControlTokens[str], token_ids: dict[str, int]) -> ControlTokens[int]:
    """Tokens as ids, without those that training never saw."""

    def ids(names: Sequence[str]) -> list[int]:
        return [token_ids[name] for name in names if name in token_ids]

    return ControlTokens(ids(tokens.prefix)[: MAX_PREFIX - 1], [ids(names) for names in tokens.aligned])


def tag_tokens(tags: Sequence[str]) -> ControlTokens[str]:
    return ControlTokens([f"tag:{tag}" for tag in tags], [])


def span_tokens(start: int, end: int, label: str) -> ControlTokens[str]:
    """The distance to its first word, from there to its last, and then a token for its end."""
    before = [[f"from:{min(start - at, MAX_DISTANCE)} {label}"] for at in range(start)]
    first = [f"from:0 {label}", f"to:{min(end - start, MAX_DISTANCE)} {label}"]
    inside = [[f"to:{min(end - at, MAX_DISTANCE)} {label}"] for at in range(start + 1, end + 1)]
    return ControlTokens([], [*before, first, *inside, [f"over {label}"]])


def tree_tokens(tree: Tree) -> ControlTokens[str]:
    return ControlTokens(_brackets(tree), [])


def _brackets(tree: Tree) -> list[str]:
    """Depth first: opening brackets, tags of words, and ``)``."""
    if not tree.children:
        return [f"leaf:{tree.label}"]
    inside = [token for child in tree.children for token in _brackets(child)]
    return inside if tree.label in ROOTS else [f"open:{tree.label}", *inside, ")"]


def length_tokens(words: int) -> ControlTokens[str]:
    return ControlTokens([], [[f"words:{words - at}"] for at in range(words + 1)])


def field_tokens(name: str, value: str) -> ControlTokens[str]:
    return ControlTokens([f"field:{name}={value}"], [])


def satisfied_controls(control: str, text: Text) -> list[Callable[[], ControlTokens[str]]]:
    """The controls of a kind that a text satisfies; an empty control if there is none."""
    no_control = [lambda: ControlTokens[str]([], [])]
    if control == "spans":
        return [partial(span_tokens, *span) for span in text.spans] or no_control
    if control == "semantic":
        return [partial(field_tokens, *field) for field in text.fields.items()] or no_control
    only_choice: dict[str, Callable[[], ControlTokens[str]]] = {
        "pos": lambda: tag_tokens(text.tags),
        "syntax_tree": lambda: tree_tokens(text.tree),
        "length": lambda: length_tokens(len(text.words)),
    }
    return [only_choice[control]]


def control_vocabulary(control: str, texts: Iterable[Text]) -> list[str]:
    """All tokens of controls of a kind over these texts, sorted."""
    controls = (choice() for text in texts for choice in satisfied_controls(control, text))
    return sorted({token for prefix, aligned in controls for part in (prefix, *aligned) for token in part})
