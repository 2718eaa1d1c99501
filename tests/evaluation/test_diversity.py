import time

import pytest

from dlmctl.errors import DataError
from dlmctl.metrics.diversity import distinct_n, novelty, self_bleu


def words(text):
    return text.split()


def test_distinct_counts_n_grams_over_all_samples():
    samples = [words("a b a b"), words("a b c")]
    assert distinct_n(samples, 1) == 3 / 7
    assert distinct_n(samples, 2) == 3 / 5  # ab ba bc of ab ba ab ab bc
    assert distinct_n(samples, 4) == 1.0


def test_samples_that_are_all_too_short_have_no_distinct_n():
    with pytest.raises(DataError, match="3 words"):
        distinct_n([words("a b")], 3)


def test_self_bleu_is_one_for_copies_and_near_zero_for_strangers():
    same = [words("the tall baker sings at noon")] * 4
    strangers = [words("the tall baker sings at noon"), words("cold rivers carry many grey stones down")]
    assert self_bleu(same) == pytest.approx(1.0)
    assert self_bleu(strangers) < 0.05


def test_self_bleu_never_compares_a_sample_with_itself():
    samples = [words("one two three four five"), words("six seven eight nine ten"), words("a b c d e f")]
    assert self_bleu(samples, references=1, seed=3) < 0.05
    assert self_bleu(samples, references=2) < 0.05


def test_self_bleu_samples_references_by_its_seed():
    samples = [
        words(f"the {a} {b} walks home slowly") for a in "old young tall".split() for b in "man cat duck ox".split()
    ]
    assert self_bleu(samples, references=3, seed=1) == self_bleu(samples, references=3, seed=1)
    assert self_bleu(samples, references=3, seed=1) != self_bleu(samples, references=3, seed=2)


def test_self_bleu_of_a_thousand_samples_takes_bounded_time():
    samples = [words(f"number {at} of {at % 7} goes past the {at % 13} gates of town") for at in range(1000)]
    begun = time.process_time()
    self_bleu(samples, references=5)
    assert time.process_time() - begun < 20


def test_self_bleu_needs_two_samples():
    with pytest.raises(DataError, match="two"):
        self_bleu([words("alone")])


def test_novelty_is_by_whole_sentences_of_words():
    training = (words(text) for text in ("a small boat .", "a red boat ."))
    samples = [words("a red boat ."), words("a red boat"), words("a small red boat .")]
    assert novelty(samples, training) == pytest.approx(2 / 3)


def test_novelty_of_nothing_is_an_error():
    with pytest.raises(DataError):
        novelty([], [])
