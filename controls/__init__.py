"""The controls that come with dlmctl, registered through the same entry points as anybody's.

Each is imported when it is first asked for, as most texts are drawn under one or two.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for type checkers
    from .avoid import Avoid as Avoid
    from .check import Predicate as Predicate
    from .classifier import Classifier as Classifier
    from .contains import Contains as Contains
    from .infill import Infill as Infill
    from .length import Length as Length
    from .lexicon import Lexicon as Lexicon
    from .pattern import Pattern as Pattern
    from .pos import Pos as Pos
    from .semantic import Semantic as Semantic
    from .syntax_tree import SyntaxTree as SyntaxTree

_HOMES = {
    "Avoid": ".avoid",
    "Classifier": ".classifier",
    "Contains": ".contains",
    "Infill": ".infill",
    "Length": ".length",
    "Lexicon": ".lexicon",
    "Pattern": ".pattern",
    "Pos": ".pos",
    "Predicate": ".check",
    "Semantic": ".semantic",
    "SyntaxTree": ".syntax_tree",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
