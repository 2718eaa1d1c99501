"""Exact constraints as one automaton over words: patterns, phrases, word lists, lengths, and their product."""

from dlmctl.control.automata.asked import Asked, asked_length, asked_of
from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.held import Demand, Held, language_of, possible_lengths
from dlmctl.control.automata.held_to import held_to
from dlmctl.control.automata.languages import (
    Alphabet,
    avoiding,
    containing,
    ended,
    everything,
    in_order,
    length,
    only,
    pattern,
)
from dlmctl.control.automata.phrases import Language, in_likely_order, with_phrases
from dlmctl.control.automata.posterior import (
    allowed,
    condition,
    draw,
    likeliest,
    log_probability,
    log_probability_by_length,
)
from dlmctl.control.automata.product import complement, intersection, joined, lengths, require_length
from dlmctl.control.automata.regex import escaped, parse
from dlmctl.control.automata.rows import merged
from dlmctl.control.automata.tokens import HeldTokens, token_language
from dlmctl.control.automata.transitions import Automata, stacked
from dlmctl.control.automata.words import HeldWords, alphabet_of

__all__ = [
    "Alphabet",
    "Asked",
    "Automata",
    "Automaton",
    "Demand",
    "Held",
    "HeldTokens",
    "HeldWords",
    "Language",
    "TooLarge",
    "allowed",
    "alphabet_of",
    "asked_length",
    "asked_of",
    "avoiding",
    "complement",
    "condition",
    "containing",
    "draw",
    "ended",
    "escaped",
    "everything",
    "held_to",
    "in_likely_order",
    "in_order",
    "intersection",
    "joined",
    "language_of",
    "length",
    "lengths",
    "likeliest",
    "log_probability",
    "log_probability_by_length",
    "merged",
    "only",
    "parse",
    "pattern",
    "possible_lengths",
    "require_length",
    "stacked",
    "token_language",
    "with_phrases",
]
