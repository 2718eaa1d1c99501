"""The controls that come with dlmctl, registered through the same entry points as anybody's."""

from .avoid import Avoid
from .check import Predicate
from .classifier import Classifier
from .contains import Contains
from .infill import Infill
from .length import Length
from .lexicon import Lexicon
from .pattern import Pattern
from .pos import Pos
from .semantic import Semantic
from .syntax_tree import SyntaxTree

__all__ = [
    "Avoid",
    "Classifier",
    "Contains",
    "Infill",
    "Length",
    "Lexicon",
    "Pattern",
    "Pos",
    "Predicate",
    "Semantic",
    "SyntaxTree",
]
