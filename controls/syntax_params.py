"""Parameters of ``syntax_tree``: a bracketed tree, or labelled spans."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator, model_validator

from dlmctl import ControlParams
from dlmctl.annotators.trees import TAGS, Span, labelled_spans, read_tree
from dlmctl.errors import RecipeError, did_you_mean

# More than any model holds, and more than any sentence needs.
MAX_WORDS, MAX_DEPTH = 100_000, 100


def _depth(tree: str) -> int:
    """The nesting depth of the brackets."""
    steps = ({"(": 1, ")": -1}.get(char, 0) for char in tree)
    return max(itertools.accumulate(steps, initial=0))


class SpanParams(BaseModel):
    """A labelled span of words."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="label of the constituent; unary chains are joined by ::, as S::NP", examples=["PP"])
    start: StrictInt = Field(ge=0, le=MAX_WORDS, description="first word, counted from 0", examples=[3])
    end: StrictInt = Field(ge=0, le=MAX_WORDS, description="last word, counted from 0", examples=[5])

    @model_validator(mode="after")
    def _forward(self) -> SpanParams:
        if self.end < self.start:
            raise ValueError(f"the span ends at word {self.end}, before its start at {self.start}")
        return self


class SyntaxTreeParams(ControlParams):
    """The syntax of a text: ``tree`` or ``spans``."""

    tree: str | None = Field(
        default=None,
        max_length=20_000,
        description="a bracketed tree; its leaves, (PRP It) or just PRP, set the number of words, not the words",
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
        description="the parser that checks, instead of the bundled one: the folder of one made by `dlmctl train "
        "parser`, or stanza:LANGUAGE",
    )

    reads: ClassVar[Sequence[str]] = ("judge",)

    @field_validator("tree")
    @classmethod
    def _bracketed(cls, tree: str | None) -> str | None:
        if tree is not None and _depth(tree) > MAX_DEPTH:
            raise ValueError(f"the brackets are nested more than {MAX_DEPTH} deep")
        if tree is not None and not labelled_spans(read_tree(tree)):
            raise ValueError("the tree has no phrase, only words")
        return tree

    @model_validator(mode="after")
    def _one_of_both(self) -> SyntaxTreeParams:
        if (self.tree is None) == (self.spans is None):
            raise ValueError("give either tree or spans")
        spans = sorted(self.wanted)
        for at, first in enumerate(spans):
            for second in spans[at + 1 :]:
                if first.start < second.start <= first.end < second.end:
                    raise ValueError(
                        f"the spans {tuple(first)} and {tuple(second)} cross; in a tree they nest or lie apart"
                    )
                if first[:2] == second[:2] and first.label != second.label:
                    raise ValueError(
                        f"the words {first.start} to {first.end} have two labels; join a unary chain as S::NP"
                    )
        return self

    @property
    def wanted(self) -> list[Span]:
        """The wanted constituents."""
        if self.tree is not None:
            return list(sizes_of(self.tree)[0])
        return [Span(span.start, span.end, span.label) for span in self.spans or ()]

    @property
    def words(self) -> int:
        """The number of words of the tree, or for spans the least number of words."""
        if self.tree is not None:
            return sizes_of(self.tree)[1]
        return 1 + max(span.end for span in self.wanted)


def require_labels(labels: Iterable[str], known: Collection[str]) -> None:
    """Check that the labels are among the constituent labels of a model.

    Raises:
        RecipeError: one is not; the message names the nearest known label.
    """
    for label in labels:
        if label not in known:
            what = f"the label {label!r} is not among those of this model's constituents."
            raise RecipeError(what, remedy=did_you_mean(label, sorted(known)))


def require_tags(trees: Iterable[str], known: Collection[str]) -> None:
    """Check that the tags of all leaves are known to the judge or used in treebanks of English.

    Args:
        trees: bracketed trees.
        known: the tags of the judge.

    Raises:
        RecipeError: one is not; the message names the nearest known tag.
    """
    accepted = {*known, *TAGS}
    for tag in (leaf.label for tree in trees for leaf in read_tree(tree).leaves()):
        if tag not in accepted:
            what = f"the tag {tag!r} of a leaf is not among those that the judge of trees knows."
            raise RecipeError(what, remedy=did_you_mean(tag, sorted(accepted)))


@lru_cache(maxsize=4096)
def sizes_of(tree: str) -> tuple[tuple[Span, ...], int]:
    """Constituents and number of words of a bracketed tree; cached, as batches are laid out anew when texts leave."""
    root = read_tree(tree)
    return tuple(labelled_spans(root)), len(list(root.leaves()))
