"""Shapes of sentences: those with given spans, their lengths, and their file."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from controls.syntax_shapes import load_shapes, shapes_of
from dlmctl.annotators.trees import Span, labelled_spans, read_trees
from dlmctl.errors import ModelError

TREES = read_trees("""
(ROOT (S (NP (PRP It)) (VP (VBZ ends)) (. .)))
(ROOT (S (NP (PRP She)) (VP (VBD went)) (. !)))
(ROOT (S (NP (DT the) (NN day)) (VP (VBZ is) (ADJP (JJ long))) (. .)))
(S (S (VP (VB go))) (CC and) (S (NP (NN rain)) (VP (VBZ falls))))
(ROOT (FRAG (NN day)) (. .))
(NN day)
""")
SPANS = [Span(0, 0, "NP"), Span(0, 0, "S::VP"), Span(2, 3, "S"), Span(3, 3, "ADJP"), Span(0, 4, "S"), Span(1, 1, "VP")]


@pytest.mark.parametrize("span", SPANS)
def test_those_that_have_a_span_are_those_whose_tree_has_it(span) -> None:
    shapes = shapes_of(TREES)
    met = [tree for tree in TREES if (span in labelled_spans(tree) and len(tree.children) == 1) or tree.label == "S"]
    wanted = [len(list(tree.leaves())) for tree in met if span in labelled_spans(tree)]
    assert shapes.lengths_with_spans([span], 6) == tuple(map(float, np.bincount(wanted, minlength=7)))


def test_trees_that_differ_in_words_and_tags_alone_are_one_shape() -> None:
    shapes = shapes_of(TREES)
    assert sorted(zip(shapes.lengths.tolist(), shapes.counts.tolist(), strict=True)) == [(3, 2), (4, 1), (5, 1)]
    assert shapes.lengths_with_spans([Span(0, 0, "NP"), Span(1, 1, "VP")], 4) == (0, 0, 0, 2, 0)
    assert not any(shapes.lengths_with_spans([Span(0, 0, "NP"), Span(3, 3, "ADJP")], 9))
    assert not any(shapes.lengths_with_spans([Span(0, 4, "S")], 4))


def test_they_come_back_from_their_file(tmp_path) -> None:
    assert load_shapes(None) is None
    shapes_of(TREES).save(tmp_path / "shapes.safetensors")
    again = load_shapes(tmp_path / "shapes.safetensors")
    assert again is not None
    assert again.constituents.tolist() == shapes_of(TREES).constituents.tolist()


@pytest.mark.parametrize("symbols", [[2, 1], [0, 2, 1], [2, 1, 0, 2, 0], [9, 1, 0]])
def test_damaged_ones_are_found(tmp_path, symbols) -> None:
    path = tmp_path / "shapes.safetensors"
    shapes = shapes_of(TREES[:1])
    object.__setattr__(shapes, "symbols", np.array(symbols, np.uint8))
    shapes.save(path)
    with pytest.raises(ModelError, match="the shapes are damaged"):
        load_shapes(path)
    path.write_bytes(save({}, {"evidence": json.dumps({"format": 1})}))
    with pytest.raises(ModelError, match="the shapes are damaged"):
        load_shapes(path)
