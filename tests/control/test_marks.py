"""The marks that each bundled control sets in a text."""

from __future__ import annotations

import pytest

from controls import Avoid, Contains, Infill, Lexicon, Pattern, Pos, SyntaxTree
from controls.ngrams import NgramJudge
from controls.wordings import span_of
from dlmctl.control.base import Control
from dlmctl.control.check import Check, Mark, negated_check

WORDS = "the old baker sells warm bread .".split()


def seen(control: Control, words: list[str] = WORDS) -> list[Mark]:
    return list(control(words).seen)


def test_pos_shows_each_tag_what_was_wanted_and_what_is_missing():
    marks = seen(Pos(tags=["DET", "ADJ", "VERB", "VERB", "ADJ", "NOUN", "PUNCT", "NOUN"]))
    assert [mark.label for mark in marks] == ["DET", "ADJ", "NOUN", "VERB", "ADJ", "NOUN", "PUNCT", ""]
    assert marks[2] == Mark(2, 2, "NOUN", False, "VERB")
    assert marks[-1] == Mark(None, None, "", False, "NOUN")
    assert all(mark.met for at, mark in enumerate(marks) if at not in (2, 7))


@pytest.mark.parametrize(
    ("control", "marks"),
    [
        (Contains("warm bread", "milk"), [Mark(4, 5), Mark(None, None, met=False, wanted="milk")]),
        (Avoid("old baker", "milk"), [Mark(1, 2, met=False)]),
        (~Contains("bread"), [Mark(5, 5, met=False)]),
        (~Avoid("bread"), [Mark(5, 5)]),
        (Contains("milk") | Contains("old"), [Mark(1, 1)]),
        (Infill("the ___{1,3} sells ___{1,3} bread ."), [Mark(at, at) for at in (0, 3, 5, 6)]),
        (Infill("the ___ sells ___ bread ."), [Mark(None, None, met=False, wanted="sells")]),
        (Lexicon(letters=[3, 4], function_words=True), [Mark(1, 1, "3"), Mark(2, 2, "5", False)]),
        (Pattern("the <any> maker <any>*"), [Mark(2, 2, met=False)]),
    ],
    ids=repr,
)
def test_controls_of_words_show_where_they_stand(control, marks):
    assert seen(control)[: len(marks)] == marks


def test_a_tree_shows_the_constituents_that_were_read_and_spans_what_stands_in_their_place():
    tree = str(SyntaxTree.from_words([WORDS])[0].tree)
    read = {mark[:2]: mark.label for mark in seen(SyntaxTree(tree=tree))}
    subject = read[0, 2]
    asked = [{"label": subject, "start": 0, "end": 2}, {"label": "PP", "start": 3, "end": 4}]
    assert seen(SyntaxTree(spans=asked)) == [Mark(0, 2, subject), Mark(3, 4, met=False, wanted="PP")]
    (other,) = seen(SyntaxTree(spans=[{"label": "PP", "start": 0, "end": 2}]))
    assert other == Mark(0, 2, subject, False, "PP")


def test_a_statement_is_found_again_among_the_words():
    words = ["A", "family", "-", "friendly", "pub", ",", "£", "20", "-", "25"]
    assert span_of("family friendly", words) == (1, 3)
    assert span_of("£ 20 25", words) == (6, 9)


def test_a_judge_of_words_names_those_that_told_it():
    judge = NgramJudge([0.0, 0.0], {"warm": [1.0, -1.0], "warm bread": [2.0, 0.0], "old": [-1.0, 0.5]})
    assert judge.spans_for(WORDS, 0) == [(4, 4), (4, 5)]
    assert judge.spans_for(WORDS, 1) == [(1, 1)]


def test_where_stands_in_for_marks_that_a_control_does_not_give():
    check = Check(0.5, False, "two words", (1, 3))
    assert check.to_dict()["marks"] == [[1, 1, "", False], [3, 3, "", False]]
    assert Check(1.0, True, "", marks=(Mark(0, 1, "NP"), Mark(2, 2))).to_dict()["marks"] == [[0, 1, "NP"], [2, 2]]


def test_a_contrary_that_holds_scores_1_and_one_that_does_not_less():
    assert negated_check(Check(0.9, False, "9 of 10")).score == 1.0
    assert negated_check(Check(1.0, True, "all")).score == 0.0
    assert negated_check(Check(0.9, True, "9 of 10")).score == 0.1  # without a tail of digits
    assert negated_check(Check(0.0, True, "none, which is enough")).score < 1
