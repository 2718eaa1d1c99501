"""Exact constraints as automata over words: patterns, phrases, word lists, lengths, and their products."""

from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.edits import edited, exchanged
from dlmctl.control.automata.exact_control import exact_control
from dlmctl.control.automata.exact_rows import merged
from dlmctl.control.automata.exact_tokens import ExactTokens
from dlmctl.control.automata.exact_words import ExactWords, alphabet_of
from dlmctl.control.automata.joint import Demand, possible_lengths
from dlmctl.control.automata.languages import Alphabet, avoiding, everything
from dlmctl.control.automata.posterior import log_probability_by_length
from dlmctl.control.automata.product import complement, intersection, lengths
from dlmctl.control.automata.regex import escaped, parse
from dlmctl.control.automata.requirement import Requirement, pattern_requirement, required_length
from dlmctl.control.automata.transitions import stacked

__all__ = [
    "Alphabet",
    "Automaton",
    "Demand",
    "ExactTokens",
    "ExactWords",
    "Requirement",
    "TooLarge",
    "alphabet_of",
    "avoiding",
    "complement",
    "edited",
    "escaped",
    "everything",
    "exact_control",
    "exchanged",
    "intersection",
    "lengths",
    "log_probability_by_length",
    "merged",
    "parse",
    "pattern_requirement",
    "possible_lengths",
    "required_length",
    "stacked",
]
