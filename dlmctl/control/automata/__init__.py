"""Exact constraints as one automaton over words: patterns, phrases, word lists, lengths, and their product."""

from dlmctl.control.automata.asked import Asked, asked_length, asked_of
from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.held import Demand, possible_lengths
from dlmctl.control.automata.held_to import held_to
from dlmctl.control.automata.languages import Alphabet, avoiding, everything
from dlmctl.control.automata.posterior import log_probability_by_length
from dlmctl.control.automata.product import complement, intersection, lengths
from dlmctl.control.automata.regex import escaped, parse
from dlmctl.control.automata.rows import merged
from dlmctl.control.automata.tokens import HeldTokens
from dlmctl.control.automata.transitions import stacked
from dlmctl.control.automata.words import HeldWords, alphabet_of

__all__ = [
    "Alphabet",
    "Asked",
    "Automaton",
    "Demand",
    "HeldTokens",
    "HeldWords",
    "TooLarge",
    "alphabet_of",
    "asked_length",
    "asked_of",
    "avoiding",
    "complement",
    "escaped",
    "everything",
    "held_to",
    "intersection",
    "lengths",
    "log_probability_by_length",
    "merged",
    "parse",
    "possible_lengths",
    "stacked",
]
