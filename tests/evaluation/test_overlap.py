"""Every expected value is worked out beside it, by the rules of the E2E challenge's script."""

import math

import pytest

from dlmctl.errors import DataError
from dlmctl.metrics.overlap import overlap


def words(text):
    return text.split()


def score(hypothesis, *references):
    return overlap([words(hypothesis)], [[words(text) for text in references]])


def test_bleu_is_the_geometric_mean_of_the_precisions():
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; as long as the reference.
    assert score("a b c d e", "a b c d f").bleu == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_bleu_compares_the_length_with_the_nearest_reference():
    # All n-grams match. 4 words against 5 (not 9): exp(1 - 5/4).
    assert score("a b c d", "a b c d e", "a b c d e f g h i").bleu == pytest.approx(math.exp(1 - 5 / 4))
    # 5 words against 4 and 6, both one away: the shorter counts, so there is no penalty.
    assert score("a b c d e", "a b c d", "a b c d e f").bleu == pytest.approx(1.0)


def test_bleu_counts_a_word_as_often_as_one_reference_has_it():
    # "a" 5 times: 3 count (second reference), not 2 + 3. Pairs 2 of 4, triples 1 of 3, quadruples 0 of 2: not smoothed.
    assert score("a a a a a", "a a", "a a a").bleu == 0
    # "a" 6 times against 5: 5/6, 4/5, 3/4, 2/3.
    assert score("a a a a a a", "a a", "a a a a a").bleu == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


def test_bleu_adds_counts_up_over_the_corpus():
    # Words 4 + 2 of 4 + 4, pairs 3 + 1 of 3 + 3, triples 2 + 0 of 2 + 2, quadruples 1 + 0 of 1 + 1.
    both = overlap([words("a b c d"), words("e f x y")], [[words("a b c d")], [words("e f g h")]])
    assert both.bleu == pytest.approx((6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25)


def test_nist_weighs_words_by_their_information():
    # The reference has 4 words, each once: log2(4/1) = 2 bits each. "a b" after "a" is certain: 0 bits.
    # (2 + 2) / 2 words + 0; the length 2/4 costs exp(-ln 2 (ln 0.5 / ln 1.5)^2).
    penalty = math.exp(-math.log(2) * (math.log(0.5) / math.log(1.5)) ** 2)
    assert score("a b", "a b c d").nist == pytest.approx(2 * penalty)
    # Two thirds of the length cost one half: log2(3) bits a word.
    assert score("a b", "a b c").nist == pytest.approx(math.log2(3) / 2)


def test_nist_merges_references():
    # 8 reference words: a 3, b 2, c 2, d 1. Found: a, c of one and b of another reference.
    # log2(8/3) + log2(8/2) + log2(8/2) over 3 words; "a b": log2(3/2) of 2 pairs, "b c" (log2(2/1)) is in none.
    # The mean reference has 4 words, the text 3.
    nist = score("c a b", "a b d a", "c a c b").nist
    information = (math.log2(8 / 3) + 2 + 2) / 3
    pairs = (math.log2(2 / 1) + math.log2(3 / 1)) / 2  # "c a": c is followed by a once of 2; "a b": once of 3
    penalty = math.exp(-math.log(2) * (math.log(3 / 4) / math.log(1.5)) ** 2)
    assert nist == pytest.approx((information + pairs) * penalty)


def test_nist_of_single_references_is_that_of_nltk():
    from nltk.translate.nist_score import corpus_nist

    texts = [words("the small bakery sells warm bread at noon"), words("a grey cat sleeps near the warm oven")]
    references = [[words("the bakery sells bread and cakes at noon daily")], [words("a cat sleeps near the old oven")]]
    assert overlap(texts, references).nist == pytest.approx(corpus_nist(references, texts))


def test_meteor_weighs_recall_nine_to_one_and_counts_chunks():
    # Three words in one chunk: 1 - 0.5 (1/3)^3.
    assert score("a b c", "a b c").meteor_exact_stem == pytest.approx(1 - 0.5 / 27)
    # 2 of 4 words (P = 1/2), 2 of 2 (R = 1), in two chunks: F = PR / (0.9 P + 0.1 R) = 0.5 / 0.55, half of it lost.
    assert score("a x b y", "a b").meteor_exact_stem == pytest.approx(0.5 / 0.55 * 0.5)
    # The best reference counts.
    assert score("a b c", "x", "a b c").meteor_exact_stem == pytest.approx(1 - 0.5 / 27)


def test_meteor_matches_stems_but_no_synonyms():
    assert score("bakeries", "bakery").meteor_exact_stem == pytest.approx(0.5)  # one word, one chunk: 1 - 0.5
    assert score("car", "automobile").meteor_exact_stem == 0


def test_rouge_l_joins_the_best_precision_with_the_best_recall():
    # "a c": 2 of 4 and 2 of 2. "a b c e f g": 3 of 4 and 3 of 6. So P = 3/4 and R = 1.
    assert score("a b c d", "a c", "a b c e f g").rouge_l == pytest.approx(2.44 * 0.75 / (1 + 1.44 * 0.75))
    assert score("d c b a", "a b c d").rouge_l == pytest.approx(1 / 4)  # order counts: one word in common
    assert score("a b", "c d").rouge_l == 0


def test_cider_is_ten_for_copies_whose_words_no_other_source_has():
    # Every n-gram is in 1 of 2 sources, so cosine 1 for n = 1 to 4. "e" has no pair: a cosine of 0 for n = 2 to 4.
    assert overlap([words("a b c d"), words("e")], [[words("a b c d")], [words("e")]]).cider == pytest.approx(
        (10 + 10 / 4) / 2
    )


def test_cider_weighs_by_rarity_and_clips_repetitions():
    # Two sources; "the" is in both and weighs log(2/2) = 0, the others weigh w = log 2.
    # First text, n = 1: (cat 2w), reference (cat w, sat w): min(2w, w) w / (2w * sqrt(2) w) = 1 / (2 sqrt 2).
    # n = 2: "the cat", "cat cat" w each, reference "the cat", "cat sat": 1/2. n = 3, 4: none in common.
    # As long as the reference. The second text shares nothing.
    cider = overlap([words("the cat cat"), words("x")], [[words("the cat sat")], [words("the dog")]]).cider
    assert cider == pytest.approx(10 / 4 * (1 / (2 * math.sqrt(2)) + 1 / 2) / 2)


def test_cider_takes_the_mean_over_references_and_punishes_another_length():
    # n = 1: a in the text, a b c d in the first reference: w w / (w * 2w) = 1/2, times exp(-3^2 / 72); the length is
    # counted in pairs, 0 against 3. The second reference has nothing in common. n > 1: nothing.
    cider = overlap([words("a"), words("x")], [[words("a b c d"), words("f")], [words("e")]]).cider
    assert cider == pytest.approx(10 / 4 * (0.5 * math.exp(-9 / 72)) / 2 / 2)


def test_case_counts_nowhere_and_punctuation_only_for_bleu_and_nist():
    low, high = score("the cat sat down", "the cat sat down"), score("The Cat SAT down", "the cat sat down")
    assert low == high
    dotted = score("the cat sat down .", "the cat sat down")
    assert dotted[2:] == low[2:]
    assert (dotted.bleu, low.bleu) == (pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25), pytest.approx(1.0))


def test_an_empty_text_scores_nothing():
    empty = overlap([[], words("a b c d")], [[words("e")], [words("a b c d")]])
    assert (empty.rouge_l, empty.cider) == (pytest.approx(0.5), pytest.approx(5))
    assert score("", "a b c d") == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([["a"]], [[["a"]], [["b"]]], "1 hypotheses and 2 sets"),
        ([], [], "no hypotheses"),
        ([["a"], ["b"]], [[["a"]], []], "hypothesis 2 has no reference"),
        ([["a"], ["b"]], [[["a"]], [[]]], "hypothesis 2 has no reference"),
    ],
)
def test_what_cannot_be_compared_is_said(hypotheses, references, message):
    with pytest.raises(DataError, match=message):
        overlap(hypotheses, references)
