"""BLEU of a single text, for diversity and for ranking drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Words = Sequence[str]


def sentence_bleu(words: Words, references: Sequence[Words], *, smoothing: Literal[1, 2] = 1) -> float:
    """BLEU-4 of one text against ``references`` together, in [0, 1] (Papineni et al. 2002); 0 for an empty text.

    Args:
        smoothing: a short text often shares no n-gram of some length, and would score 0. Method 1 replaces zero counts
            by a small number, method 2 adds one to the counts of two words and more (Lin and Och 2004); both are
            numbered as by Chen and Cherry (2014).
    """
    from nltk.translate.bleu_score import SmoothingFunction
    from nltk.translate.bleu_score import sentence_bleu as bleu

    if not words:
        return 0.0
    methods = SmoothingFunction()
    method = methods.method1 if smoothing == 1 else methods.method2
    return float(bleu([list(text) for text in references], list(words), smoothing_function=method))
