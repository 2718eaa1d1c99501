"""The controls that come with dlmctl, registered through the same entry points as anybody's."""

from controls.avoid import Avoid
from controls.classifier import Classifier
from controls.contains import Contains
from controls.infill import Infill
from controls.length import Length
from controls.lexicon import Lexicon
from controls.pattern import Pattern
from controls.pos import Pos
from controls.semantic import Semantic
from controls.syntax_tree import SyntaxTree

__all__ = ["Avoid", "Classifier", "Contains", "Infill", "Length", "Lexicon", "Pattern", "Pos", "Semantic", "SyntaxTree"]
