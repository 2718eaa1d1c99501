import pytest

from dlmctl.annotators.brackets import Brackets, compare, corpus_f1
from dlmctl.annotators.trees import read_tree

GOLD = read_tree("(ROOT (S (NP (DT The) (NN cook)) (VP (VBZ tastes) (NP (DT the) (NN soup))) (. .)))")


def test_a_tree_matches_itself():
    assert compare(GOLD, GOLD) == Brackets(4, 4, 4)  # S, NP, VP, NP; ROOT and the tags do not count
    assert compare(GOLD, GOLD).f1 == 1.0


def test_a_wrong_label_and_a_wrong_span_each_cost_one():
    # The VP is called PP, and the last NP has one word too few: S and the first NP are left.
    found = read_tree("(S (NP (DT The) (NN cook)) (PP (VBZ tastes) (DT the) (NP (NN soup))) (. .))")
    score = compare(GOLD, found)
    assert score == Brackets(2, 4, 4)
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)


def test_precision_and_recall_differ_where_one_tree_has_more():
    flat = read_tree("(S (NP (DT The) (NN cook)) (VBZ tastes) (DT the) (NN soup) (. .))")
    score = compare(GOLD, flat)
    assert score == Brackets(2, 4, 2)
    assert (score.precision, score.recall) == (1.0, 0.5)
    assert score.f1 == pytest.approx(2 / 3)


def test_punctuation_is_deleted_by_the_gold_tags_as_collins_prm_does():
    # The full stop inside the VP makes no difference once it is deleted; counted, it moves the VP's end.
    low = read_tree("(S (NP (DT The) (NN cook)) (VP (VBZ tastes) (NP (DT the) (NN soup)) (NFP .)))")
    assert compare(GOLD, low) == Brackets(4, 4, 4)
    assert compare(GOLD, low, ignore=()) == Brackets(3, 4, 4)


def test_a_phrase_of_punctuation_alone_is_deleted_with_it():
    odd = read_tree("(S (NP (DT The) (NN cook)) (VP (VBZ tastes) (NP (DT the) (NN soup))) (PRN (. .)))")
    assert compare(GOLD, odd) == Brackets(4, 4, 4)
    assert compare(GOLD, odd, ignore=()) == Brackets(4, 4, 5)


def test_every_label_of_a_unary_chain_counts_and_repeated_ones_match_once_each():
    chain = read_tree("(S (VP (VB Stop)))")
    assert compare(chain, read_tree("(S (VB Stop))")) == Brackets(1, 2, 1)
    assert compare(read_tree("(NP (NP (NN soup)))"), read_tree("(NP (NP (NP (NN soup))))")) == Brackets(2, 2, 3)


def test_particles_count_as_adverb_phrases():
    gold = read_tree("(VP (VB eat) (PRT (RP up)))")
    assert compare(gold, read_tree("(VP (VB eat) (ADVP (RB up)))")) == Brackets(2, 2, 2)


def test_trees_of_other_lengths_are_compared_by_word_numbers():
    longer = read_tree("(S (NP (DT The) (NN cook)) (VP (VBZ tastes) (NP (DT the) (JJ red) (NN soup))) (. .))")
    assert compare(GOLD, longer, ignore=()) == Brackets(1, 4, 4)


def test_trees_without_phrases_agree_and_an_empty_one_scores_nothing():
    bare = read_tree("(ROOT (UH Yes))")
    assert compare(bare, bare).f1 == 1.0
    assert compare(GOLD, read_tree("(ROOT (UH Yes))")).f1 == 0.0


def test_a_corpus_sums_its_counts():
    flat = read_tree("(S (NP (DT The) (NN cook)) (VBZ tastes) (DT the) (NN soup) (. .))")
    assert corpus_f1([(GOLD, GOLD), (GOLD, flat)]) == Brackets(6, 8, 6)
    assert corpus_f1([]) == Brackets(0, 0, 0)
