"""Wordings of values, on sentences made up for this test, with hyphens and currency signs as separate words."""

import json
from functools import partial
from pathlib import Path

import pytest

from controls import wordings
from controls.wordings import FILE, Wordings, plain, read_wordings
from dlmctl.errors import ModelError

E2E = read_wordings(Path(__file__).resolve().parents[2] / "data" / "e2e" / "controls" / "semantic")
statement = partial(wordings.statement, E2E)

STATED = [
    ("name", "Green Fork", "The Green Fork sells soup ."),
    ("name", "The Green Fork", "At Green Fork they sell soup ."),
    ("near", "Café Luna", "It stands beside Cafe Luna ."),
    ("eatType", "coffee shop", "A coffee house by the park ."),
    ("food", "English", "Good British cooking ."),
    ("food", "Fast food", "They serve fast - food all night ."),
    ("area", "riverside", "You find it on the river bank ."),
    ("area", "city centre", "A pub in the centre of the city ."),
    ("area", "city centre", "It is in the city center ."),
    ("priceRange", "cheap", "An inexpensive bar ."),
    ("price", "cheap", "The prices are very low ."),
    ("price", "moderate", "A mid - priced bistro ."),
    ("price", "high", "The food is good but pricey ."),
    ("price", "high", "It has a high price range ."),
    ("price", "high", "Price range : high ."),
    ("price", "£20-25", "Meals cost from 20 to 25 pounds ."),
    ("price", "less than £20", "You eat there for under £ 20 ."),
    ("price", "more than £ 30", "Expect to pay over £ 30 ."),
    ("customer rating", "5 out of 5", "A five - star diner ."),
    ("rating", "5 out of 5", "Guests rate it 5 / 5 ."),
    ("rating", "3 out of 5", "It is rated three out of five ."),
    ("rating", "high", "A highly rated diner ."),
    ("rating", "low", "The customer ratings are poor ."),
    ("rating", "average", "It has average customer reviews ."),
    ("family friendly", "yes", "A kid friendly diner ."),
    ("familyFriendly", True, "Children are always welcome ."),
    ("family_friendly", "yes", "A good place for the whole family ."),
    ("family friendly", "no", "It is not a family - friendly diner ."),
    ("family friendly", False, "Adults only , please ."),
    ("family friendly", "no", "Children are not welcome ."),
    ("family friendly", "no", "They don 't allow kids ."),
]

NOT_STATED = [
    ("food", "Italian", "They serve Greek food ."),
    ("price", "high", "A cheap bar with a high customer rating ."),
    ("rating", "high", "A bar with high prices ."),
    ("rating", "low", "The prices are low and the rating is high ."),
    ("price", "high", "It is not expensive ."),
    ("price", "cheap", "You eat there for under £ 20 ."),
    ("price", "less than £ 20", "A cheap bar ."),
    ("rating", "5 out of 5", "It is rated 1 out of 5 ."),
    ("rating", "1 out of 5", "Open since 1 pm ."),
    ("area", "city centre", "It lies north of the city centre ."),
    ("family friendly", "yes", "It is not a family - friendly diner ."),
    ("family friendly", "yes", "Children are not welcome ."),
    ("family friendly", "no", "A family - friendly diner ."),
    ("family friendly", "no", "It sells soup ."),
    ("family friendly", "yes", "Adults only ."),
]


@pytest.mark.parametrize(("field", "value", "text"), STATED)
def test_natural_wordings(field, value, text):
    assert statement(field, value, text.split(), natural=True)


@pytest.mark.parametrize(("field", "value", "text"), NOT_STATED)
def test_what_does_not_state_it(field, value, text):
    assert statement(field, value, text.split(), natural=True) is None


def test_a_denial_of_one_thing_does_not_deny_the_next():
    words = "It is not kid friendly , cheap and highly rated .".split()
    assert statement("price", "cheap", words, natural=True) == "cheap"
    assert statement("rating", "high", words, natural=True)
    assert statement("food", "Thai", "It is not a family - friendly Thai bar .".split(), natural=True) == "thai"


def test_exact_is_word_for_word_in_any_case():
    words = "fast food for less than £ 20 .".split()
    assert statement("food", "Fast food", words, natural=False)
    assert statement("price", "less than £20", words, natural=False)
    assert statement("price", "cheap", "An inexpensive bar .".split(), natural=False) is None
    assert statement("food", "Thai", "Thailand is far .".split(), natural=False) is None


def test_exact_yes_and_no_are_the_name_of_the_field_affirmed_or_denied():
    yes, no = "A family - friendly bar .".split(), "It is not family friendly .".split()
    assert statement("family friendly", "yes", yes, natural=False)
    assert statement("family friendly", "no", no, natural=False)
    assert statement("family friendly", "yes", no, natural=False) is None
    assert statement("family friendly", "yes", "Children are welcome .".split(), natural=False) is None
    assert statement("dog friendly", "no", "It is not dog friendly .".split(), natural=True)


def test_plain():
    assert plain("Café Luna 's £ 20 - 25 , isn 't it ?".split()) == "cafe luna s £ 20 25 , isn t it ?"


def test_wordings_are_those_beside_the_weights(tmp_path):
    words = "A sturdy oak bench , not a tiny one .".split()
    assert read_wordings(None) == read_wordings(tmp_path) == Wordings()
    assert wordings.statement(Wordings(), "wood", "oak", words, natural=True) == "oak"
    assert wordings.statement(Wordings(), "size", "small", words, natural=True) is None
    own = {"parts": {"little": "tiny|little"}, "values": {"size": {"small": "small|<little>"}}}
    (tmp_path / FILE).write_text(json.dumps(own))
    assert wordings.statement(read_wordings(tmp_path), "size", "small", words, natural=True) == "tiny"
    (tmp_path / FILE).write_text(json.dumps({**own, "denied_by": {"size": {"reach": 3}}}))
    assert wordings.statement(read_wordings(tmp_path), "size", "small", words, natural=True) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"valeus": {}}', "valeus"),
        ('{"values": {"size": {"small": "tiny("}}}', "not a regular expression"),
        (json.dumps({"yes": {"open": "<a>"}, "parts": dict.fromkeys("abcdefghijklmnop", "<a><a>")}), "have more than"),
    ],
)
def test_damaged_wordings_are_said(tmp_path, content, message):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ModelError, match=message):
        read_wordings(tmp_path)
