"""BLEU of one text, for diversity and for choosing among drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Words = Sequence[str]


def sentence_bleu(words: Words, references: Sequence[Words], *, smoothing: Literal[1, 2] = 1) -> float:
    """BLEU-4 of one text against ``references`` together, in [0, 1] (Papineni et al. 2002); 0 of a text without words.

    Args:
        smoothing: a short text often has no n-gram of some length in common, and would count as 0. 1 takes a small
            number in place of none, 2 adds one to the counts of two words and more (Lin and Och 2004); both numbered as
            by Chen and Cherry (2014).
    """
    from nltk.translate.bleu_score import SmoothingFunction
    from nltk.translate.bleu_score import sentence_bleu as bleu

    if not words:
        return 0.0
    methods = SmoothingFunction()
    method = methods.method1 if smoothing == 1 else methods.method2
    return float(bleu([list(text) for text in references], list(words), smoothing_function=method))
