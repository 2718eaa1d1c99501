"""A text as HTML: its words, the labels below them, and what is missing."""

from __future__ import annotations

import re

import pytest

from dlmctl.control.check import Mark
from dlmctl.generation.page.marked import rows_of, text_html

WORDS = ["The", "family", "-", "friendly", "pub", "isn", "'t", "cheap", "."]
TEXT = "The family-friendly pub isn't cheap."


def plain(html: str) -> str:
    """The visible words, without the labels below them."""
    return re.sub("<[^>]+>", "", re.sub(r"<i[^>]*>.*?</i>", "", html)).replace("&#x27;", "'")


def test_a_text_without_marks_is_the_text():
    assert text_html("a < b", ["a", "<", "b"], {"length": []}) == "a &lt; b"


def test_words_keep_their_spelling_under_any_marks():
    tags = [Mark(at, at, "X") for at in range(len(WORDS))]
    for marks in ({"pos": tags}, {"contains": [Mark(1, 3)]}, {"pos": tags, "avoid": [Mark(7, 7, met=False)]}):
        assert plain(text_html(TEXT, WORDS, marks)).strip() == TEXT


def test_phrases_are_underlined_and_faults_are_distinguished():
    html = text_html(TEXT, WORDS, {"contains": [Mark(0, 1)], "avoid": [Mark(7, 7, met=False)]})
    assert html.startswith('<b class="o" title="contains">The </b><b class="o" title="contains">family</b>-friendly')
    assert '<b class="x" title="avoid">cheap</b>.' in html


def test_missing_parts_follow_in_a_box():
    html = text_html("a pub", ["a", "pub"], {"contains": [Mark(None, None, met=False, wanted="<bar>")]})
    assert html == 'a pub <span class="g" title="contains: missing">&lt;bar&gt;</span>'


def test_tags_are_below_words_with_what_was_wanted():
    html = text_html("a pub", ["a", "pub"], {"pos": [Mark(0, 0, "DET"), Mark(1, 1, "NOUN", False, "VERB")]})
    assert html == ('<span class=w>a <i>DET</i></span><span class=w>pub<i class="x">NOUN ≠ VERB</i></span>')


def test_spans_are_brackets_and_missing_ones_are_named():
    html = text_html("one two three", ["one", "two", "three"], {"tree": [Mark(0, 2, met=False, wanted="NP")]})
    assert re.findall(r'class="([^"]+)"', html) == ["x k s", "x k", "x k e"]
    assert "no NP" in html


def test_names_of_several_controls_precede_their_rows():
    html = text_html("one two", ["one", "two"], {"pos": [Mark(0, 0, "A")], "lexicon": [Mark(1, 1, "3")]})
    assert html.startswith('<span class="w h" dir="ltr"> <i>pos</i><i>lexicon</i></span>')
    assert "<span class=w>one <i>A</i><i></i></span><span class=w>two<i></i><i>3</i></span>" in html


def test_spans_are_above_those_that_contain_them():
    spans = [Mark(0, 4, "S"), Mark(0, 1, "NP"), Mark(2, 4, "VP"), Mark(3, 4, "PP"), Mark(2, 2, "V")]
    rows = [{mark.label for mark in row.marks.values()} for row in rows_of("tree", spans)]
    assert rows == [{"V", "NP", "PP"}, {"VP"}, {"S"}]


@pytest.mark.parametrize("mark", [Mark(5, 6, "X"), Mark(1, 0, "X"), Mark(-1, 0), Mark(0, 99)])
def test_marks_beyond_the_text_are_left_out(mark):
    assert text_html("one two", ["one", "two"], {"odd": [mark]}) == "one two"


@pytest.mark.parametrize("words", [["three", "four"], ["one", "three"], ["one", "two"]])
def test_a_text_that_differs_from_its_words_is_shown_unmarked(words):
    assert text_html("one or two", words, {"pos": [Mark(0, 0, "X")]}) == "one or two"


def test_user_text_is_escaped():
    bad = "<script>alert(1)</script>"
    html = text_html(f"{bad} .", [bad, "."], {bad: [Mark(0, 0, bad, False, bad), Mark(1, 1)], "b": [Mark(0, 0)]})
    assert "<script" not in html
