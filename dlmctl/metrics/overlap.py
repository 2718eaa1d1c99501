"""Overlap with references: BLEU, NIST, METEOR, ROUGE-L and CIDEr, as the E2E challenge's script computes them.

The challenge: Dušek, Novikova and Rieser 2020. BLEU is sacrebleu's and METEOR nltk's. NIST, ROUGE-L and CIDEr are
implemented here: nltk's NIST keeps the best reference where mteval-13a merges them, rouge-score's ROUGE-L weighs
precision and recall equally, and the libraries with CIDEr depend on Java or audio models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlmctl.errors import DataError

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]

# Tokens that the COCO scripts remove before METEOR, ROUGE-L and CIDEr.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."])
NIST_ORDER, CIDER_ORDER = 5, 4
# The penalty is 0.5 for a text of two thirds of the references' length.
NIST_BETA = math.log(2) / math.log(1.5) ** 2
ROUGE_BETA, CIDER_SIGMA = 1.2, 6.0


class Overlap(NamedTuple):
    """Scores of a corpus, higher is better, in the units of the E2E challenge.

    Attributes:
        bleu: BLEU-4 in [0, 1], 0 where no four words match; nist: NIST-5, 0 upwards, in bits.
        meteor_exact_stem: METEOR of 2007 in [0, 1], with equal words and equal stems alone: no synonyms, no
            paraphrases. Its scale is not that of the challenge's METEOR 1.5, which gives about 0.45 for 0.78 here.
        rouge_l: ROUGE-L in [0, 1], recall weighted by 1.2; cider: CIDEr-D in [0, 10].
    """

    bleu: float
    nist: float
    meteor_exact_stem: float
    rouge_l: float
    cider: float


def overlap(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Overlap:
    """The overlap of hypotheses with their references, ignoring case.

    BLEU and NIST count all words; METEOR, ROUGE-L and CIDEr leave out ``PUNCTUATION``.

    Args:
        hypotheses: one text for each source, as words. An empty text scores 0.
        references: one or more texts for each source, as words.

    Raises:
        DataError: there are no hypotheses, their number differs from that of the reference sets, or a set is empty.
    """
    if len(hypotheses) != len(references):
        raise DataError(f"there are {len(hypotheses)} hypotheses and {len(references)} sets of references.")
    if not hypotheses:
        raise DataError("there are no hypotheses.")
    for number, texts in enumerate(references, start=1):
        if not any(map(len, texts)):
            raise DataError(f"hypothesis {number} has no reference.")
    hypothesis_words = [_lower(text) for text in hypotheses]
    reference_words = [[_lower(text) for text in texts if text] for texts in references]
    hypotheses_bare = [_without_punctuation(text) for text in hypothesis_words]
    references_bare = [[_without_punctuation(text) for text in texts] for texts in reference_words]
    pairs = list(zip(hypotheses_bare, references_bare, strict=True))
    return Overlap(
        bleu=_bleu(hypothesis_words, reference_words),
        nist=_nist(hypothesis_words, reference_words),
        meteor_exact_stem=sum(_meteor(text, texts) for text, texts in pairs) / len(pairs),
        rouge_l=sum(_rouge_l(text, texts) for text, texts in pairs) / len(pairs),
        cider=_cider(hypotheses_bare, references_bare),
    )


def _lower(words: Words) -> list[str]:
    return [word.lower() for word in words]


def _without_punctuation(words: Words) -> list[str]:
    return [word for word in words if word not in PUNCTUATION]


def _bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002) against the reference nearest in length, not smoothed."""
    from sacrebleu.metrics.bleu import BLEU

    most_references = max(map(len, references))
    # One stream for the first reference of every source, one for the second, ...
    streams = [
        [" ".join(texts[at]) if at < len(texts) else None for texts in references] for at in range(most_references)
    ]
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return metric.corpus_score([" ".join(text) for text in hypotheses], streams).score / 100


def _grams(words: Words, n: int) -> Grams:
    return Counter(zip(*(words[at:] for at in range(n)), strict=False))


def _nist(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """NIST-5 (Doddington 2002, eq. 3) as in mteval-13a.

    An n-gram counts as often as the reference that has it most often; lengths are compared with the mean reference.
    """
    seen: Grams = Counter()
    for texts in references:
        for text in texts:
            seen[()] += len(text)
            for n in range(1, NIST_ORDER + 1):
                seen.update(_grams(text, n))
    total = 0.0
    for n in range(1, NIST_ORDER + 1):
        information, count = 0.0, 0
        for text, texts in zip(hypotheses, references, strict=True):
            grams, merged = _grams(text, n), _merged(_grams(other, n) for other in texts)
            information += sum(
                math.log2(seen[gram[:-1]] / seen[gram]) * times for gram, times in (grams & merged).items()
            )
            count += grams.total()
        total += information / max(1, count)
    length = sum(map(len, hypotheses))
    reference_length = sum(sum(map(len, texts)) / len(texts) for texts in references)
    return total * math.exp(-NIST_BETA * math.log(min(1.0, length / reference_length)) ** 2) if length else 0.0


def _merged(counts: Iterable[Grams]) -> Grams:
    merged: Grams = Counter()
    for grams in counts:
        merged |= grams
    return merged


class _NoSynonyms:
    """Replaces WordNet, whose data is a separate download."""

    def synsets(self, word: str) -> list[object]:
        return []


def _meteor(hypothesis: Words, references: Sequence[Words]) -> float:
    """METEOR (Lavie and Agarwal 2007) against the best reference, with its exact and stem stages."""
    from nltk.translate.meteor_score import meteor_score

    return float(meteor_score(references, hypothesis, wordnet=_NoSynonyms()))


def _rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """ROUGE-L (Lin 2004) as in the COCO scripts: the best precision and the best recall of any reference."""
    common = [(_longest_common(hypothesis, text), len(text)) for text in references]
    precision = max(shared for shared, _ in common) / max(1, len(hypothesis))
    recall = max(shared / max(1, length) for shared, length in common)
    square = ROUGE_BETA**2
    return (1 + square) * precision * recall / (recall + square * precision) if precision else 0.0


def _longest_common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0  # the entry above and to the left
        for at, other in enumerate(b, start=1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]


def _cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D (Vedantam, Zitnick and Parikh 2015, section 4 and the supplement), mean over sources.

    The more sources have an n-gram in a reference, the less it weighs, so a single source scores 0.
    """
    orders = range(1, CIDER_ORDER + 1)
    sources: Grams = Counter()
    for texts in references:
        sources.update({gram for text in texts for n in orders for gram in _grams(text, n)})

    def vectors(words: Words) -> list[dict[tuple[str, ...], float]]:
        """TF-IDF of the n-grams, one vector for each n."""
        return [
            {
                gram: times * math.log(len(references) / max(1, sources[gram]))
                for gram, times in _grams(words, n).items()
            }
            for n in orders
        ]

    total = 0.0
    for words, texts in zip(hypotheses, references, strict=True):
        candidate_vectors = vectors(words)
        for text in texts:
            # The script measures length in bigrams; the difference is that of the words, except for empty texts.
            gap = max(0, len(words) - 1) - max(0, len(text) - 1)
            similarity = (
                sum(_clipped_cosine(a, b) for a, b in zip(candidate_vectors, vectors(text), strict=True)) / CIDER_ORDER
            )
            total += 10 * math.exp(-(gap**2) / (2 * CIDER_SIGMA**2)) * similarity / len(texts)
    return total / len(hypotheses)


def _clipped_cosine(candidate: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
    """Cosine of two vectors, where repeating an n-gram more often than the reference gains nothing."""
    norms = math.sqrt(sum(v * v for v in candidate.values()) * sum(v * v for v in reference.values()))
    shared = sum(
        min(value, reference[gram]) * reference[gram] for gram, value in candidate.items() if gram in reference
    )
    return shared / norms if norms else 0.0
