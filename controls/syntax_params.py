"""What a recipe says of syntax: a bracketed tree, or labelled spans."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator, model_validator

from dlmctl import ControlParams
from dlmctl.annotators.trees import TAGS, Span, labelled_spans, read_tree
from dlmctl.errors import RecipeError, nearest

# More than any model holds, and than any sentence needs.
MOST_WORDS, MOST_DEPTH = 100_000, 100


def _depth(tree: str) -> int:
    """How deep brackets stand in each other."""
    steps = ({"(": 1, ")": -1}.get(char, 0) for char in tree)
    return max(itertools.accumulate(steps, initial=0))


class SpanParams(BaseModel):
    """A labelled span of words."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="of the constituent; a unary chain is joined by ::, as S::NP", examples=["PP"])
    start: StrictInt = Field(ge=0, le=MOST_WORDS, description="first word, counted from 0", examples=[3])
    end: StrictInt = Field(ge=0, le=MOST_WORDS, description="last word, counted from 0", examples=[5])

    @model_validator(mode="after")
    def _forward(self) -> SpanParams:
        if self.end < self.start:
            raise ValueError(f"the span ends at word {self.end}, before its start at {self.start}")
        return self


class SyntaxTreeParams(ControlParams):
    """What a recipe says of syntax: ``tree`` or ``spans``."""

    tree: str | None = Field(
        default=None,
        max_length=20_000,
        description="a bracketed tree; its leaves, (PRP It) or just PRP, say how many words there are, not which",
        examples=["(S (NP (PRP It)) (VP (VBZ is) (NP (DT a) (NN pub))) (. .))"],
    )
    spans: list[SpanParams] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="constituents that the text must have",
        examples=[[{"label": "PP", "start": 3, "end": 5}]],
    )
    pass_at: StrictFloat = Field(
        default=1.0,
        ge=0,
        le=1,
        description="labelled F1 of the tree, or share of spans, that a text must reach to pass",
    )
    judge: str | None = Field(
        default=None,
        max_length=1000,
        description="what checks, in place of the bundled parser: the folder of one made by `dlmctl train parser`, or "
        "stanza:LANGUAGE",
    )

    reads: ClassVar[Sequence[str]] = ("judge",)

    @field_validator("tree")
    @classmethod
    def _bracketed(cls, tree: str | None) -> str | None:
        if tree is not None and _depth(tree) > MOST_DEPTH:
            raise ValueError(f"brackets stand more than {MOST_DEPTH} deep in each other")
        if tree is not None and not labelled_spans(read_tree(tree)):
            raise ValueError("the tree has no phrase, only words")
        return tree

    @model_validator(mode="after")
    def _one_of_both(self) -> SyntaxTreeParams:
        if (self.tree is None) == (self.spans is None):
            raise ValueError("give either tree or spans")
        found = sorted(self.wanted)
        for at, one in enumerate(found):
            for other in found[at + 1 :]:
                if one.start < other.start <= one.end < other.end:
                    raise ValueError(
                        f"the spans {tuple(one)} and {tuple(other)} cross; in a tree they nest or lie apart"
                    )
                if one[:2] == other[:2] and one.label != other.label:
                    raise ValueError(f"the words {one.start} to {one.end} have two labels; join a unary chain as S::NP")
        return self

    @property
    def wanted(self) -> list[Span]:
        """The constituents asked for."""
        if self.tree is not None:
            return list(sizes_of(self.tree)[0])
        return [Span(span.start, span.end, span.label) for span in self.spans or ()]

    @property
    def words(self) -> int:
        """How many words there are, or, of spans, must at least be."""
        if self.tree is not None:
            return sizes_of(self.tree)[1]
        return 1 + max(span.end for span in self.wanted)


def require_labels(labels: Iterable[str], known: Collection[str]) -> None:
    """Refuse a label of a constituent that a model was never shown.

    Raises:
        RecipeError: there is one; the message names the nearest one that is known.
    """
    for label in labels:
        if label not in known:
            what = f"the label {label!r} is not among those of this model's constituents."
            raise RecipeError(what, remedy=nearest(label, sorted(known)))


def require_tags(trees: Iterable[str], known: Collection[str]) -> None:
    """Refuse a tag of a leaf that neither the judge nor any treebank of English has.

    Args:
        trees: bracketed; known: the tags of the judge.

    Raises:
        RecipeError: there is one; the message names the nearest one that is known.
    """
    wanted = {*known, *TAGS}
    for tag in (leaf.label for tree in trees for leaf in read_tree(tree).leaves()):
        if tag not in wanted:
            what = f"the tag {tag!r} of a leaf is not among those that the judge of trees knows."
            raise RecipeError(what, remedy=nearest(tag, sorted(wanted)))


@lru_cache(maxsize=4096)
def sizes_of(tree: str) -> tuple[tuple[Span, ...], int]:
    """Constituents and number of words of a bracketed tree; a batch is laid out anew as texts leave it."""
    found = read_tree(tree)
    return tuple(labelled_spans(found)), len(list(found.leaves()))
