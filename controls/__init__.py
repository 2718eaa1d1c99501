"""The controls that come with dlmctl, registered through the same entry points as third-party ones.

Each is imported on first access, because most runs use one or two.
"""

from typing import TYPE_CHECKING

from dlmctl.checkpoint.on_demand import lazy_getattr

if TYPE_CHECKING:  # the same for type checkers
    from .avoid import Avoid as Avoid
    from .characters import Characters as Characters
    from .check import Predicate as Predicate
    from .classifier import Classifier as Classifier
    from .contains import Contains as Contains
    from .edit import Edit as Edit
    from .infill import Infill as Infill
    from .length import Length as Length
    from .lexicon import Lexicon as Lexicon
    from .pattern import Pattern as Pattern
    from .pos import Pos as Pos
    from .rhyme import Rhyme as Rhyme
    from .semantic import Semantic as Semantic
    from .surprisal import Surprisal as Surprisal
    from .syllables import Syllables as Syllables
    from .syntax_tree import SyntaxTree as SyntaxTree

_HOMES = {
    "Avoid": ".avoid",
    "Characters": ".characters",
    "Classifier": ".classifier",
    "Contains": ".contains",
    "Edit": ".edit",
    "Infill": ".infill",
    "Length": ".length",
    "Lexicon": ".lexicon",
    "Pattern": ".pattern",
    "Pos": ".pos",
    "Predicate": ".check",
    "Rhyme": ".rhyme",
    "Semantic": ".semantic",
    "Surprisal": ".surprisal",
    "Syllables": ".syllables",
    "SyntaxTree": ".syntax_tree",
}
__all__ = [*_HOMES]

__getattr__ = lazy_getattr(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
