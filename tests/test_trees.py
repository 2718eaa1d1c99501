import pytest

from dlmctl.annotators.trees import Span, Tree, from_spans, labelled_spans, read_tree, read_trees, simplify

TEXT = "(ROOT (S (NP (PRP It)) (VP (VBZ wants) (S (VP (TO to) (VP (VB rain))))) (. .)))"


def test_text_and_tree_go_both_ways():
    tree = read_tree(TEXT)
    assert str(tree) == TEXT
    assert [leaf.word for leaf in tree.leaves()] == "It wants to rain .".split()


def test_spans_run_over_words_with_both_ends_and_join_unary_chains():
    assert labelled_spans(read_tree(TEXT)) == [
        Span(0, 4, "S"),
        Span(0, 0, "NP"),
        Span(1, 3, "VP"),
        Span(2, 3, "S::VP"),
        Span(3, 3, "VP"),
    ]


def test_spans_make_the_tree_again():
    tree = read_tree(TEXT)
    leaves = list(tree.leaves())
    made = from_spans([leaf.word for leaf in leaves], [leaf.label for leaf in leaves], labelled_spans(tree))
    assert made == tree


def test_no_spans_hang_the_words_on_the_root():
    assert str(from_spans(["Oh", "!"], ["UH", "."], [])) == "(ROOT (UH Oh) (. !))"


def test_leaves_may_be_tags_alone():
    assert labelled_spans(read_tree("(S (NP PRP) (VP VBZ (NP DT NN)))")) == labelled_spans(
        read_tree("(S (NP (PRP It)) (VP (VBZ is) (NP (DT a) (NN pub))))")
    )
    assert str(read_tree("(NP PRP)")) == "(NP PRP)"


def test_a_root_with_several_trees_is_no_span():
    assert labelled_spans(read_tree("(ROOT (NP (NN One)) (NP (NN Two)))")) == [Span(0, 0, "NP"), Span(1, 1, "NP")]
    assert labelled_spans(read_tree("( (NP (NN One)))")) == [Span(0, 0, "NP")]


def test_brackets_among_the_words_are_escaped():
    tree = read_tree("(NP (-LRB- -LRB-) (NN soup) (-RRB- -RRB-))")
    assert [leaf.word for leaf in tree.leaves()] == ["(", "soup", ")"]
    assert str(tree) == "(NP (-LRB- -LRB-) (NN soup) (-RRB- -RRB-))"


def test_function_tags_and_traces_are_taken_off():
    tree = read_tree("(S (NP-SBJ-1 (PRP It)) (VP (VBZ rains) (NP (-NONE- *)) (NP=2 (-LRB- -LRB-))))")
    assert str(simplify(tree)) == "(S (NP (PRP It)) (VP (VBZ rains) (NP (-LRB- -LRB-))))"
    assert simplify(read_tree("(NP (-NONE- *))")) is None


def test_several_trees_of_a_text():
    assert read_trees("(NP (NN a))\n\n(NP (NN b))") == [Tree("NP", (Tree("NN", word=w),)) for w in "ab"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(S (NP (PRP It))", "not closed"),
        ("(S (NP (PRP It))))", "not opened"),
        ("(S ())", "are empty"),
        ("NP", "outside"),
        ("", "one tree"),
        ("(NP (NN a)) (NP (NN b))", "not 2"),
    ],
)
def test_what_is_not_a_tree_is_said(text, message):
    with pytest.raises(ValueError, match=message):
        read_tree(text)
