import pytest

from dlmctl.errors import RecipeError
from dlmctl.recipe.yaml_file import line_of, parse


def fault(text):
    with pytest.raises(RecipeError) as caught:
        parse(text, "mine.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_and_item_knows_its_line():
    value, lines = parse("a: 1\nb:\n  - x\n  - c: [1,\n      2]\n", "mine.yaml")
    assert value == {"a": 1, "b": ["x", {"c": [1, 2]}]}
    assert {place: lines[place] for place in [("a",), ("b",), ("b", 0), ("b", 1, "c"), ("b", 1, "c", 1)]} == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1, "c"): 4,
        ("b", 1, "c", 1): 5,
    }


def test_what_has_no_line_takes_that_of_what_is_around_it():
    _, lines = parse("\na:\n  b: 1\n", "mine.yaml")
    assert line_of(("a", "b", "c", 3), lines) == 3
    assert line_of(("a", "x"), lines) == 2
    assert line_of(("x",), lines) == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_nothing_is_none(text):
    assert parse(text, "mine.yaml")[0] is None


def test_aliases_are_values_like_others():
    value, lines = parse("a: &same\n  x: 1\nb: *same\n", "mine.yaml")
    assert value == {"a": {"x": 1}, "b": {"x": 1}}
    assert line_of(("b", "x"), lines) == 3


def test_many_aliases_of_aliases_take_no_time():
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert len(parse("\n".join(["a0: &a0 [x]", *levels]), "mine.yaml")[0]) == 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1\n", "mine.yaml:3: not valid YAML"),
        ("a: 1\na: 2\n", "mine.yaml:2: 'a' stands twice."),
        ("a:\n  b: 1\n  b: 1\n", "mine.yaml:3: 'b' stands twice."),
        ("a: \t1\n", "mine.yaml:1: not valid YAML"),
        ("a: 1\nb: @x\n", "mine.yaml:2: not valid YAML"),
        ("a: 1\nb: x\0y\n", "mine.yaml:2: not valid YAML: the character '\\x00' is not allowed."),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2: not valid YAML"),
        ("a: !!python/object:os.system x\n", "mine.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: 2026-13-45\n", "mine.yaml: not valid YAML: month must be in 1..12"),
        ("a: " + "1" * 5000, "mine.yaml: not valid YAML: Exceeds the limit"),
        ("[" * 1500, "mine.yaml: not valid YAML"),
        ("? [a]\n: 1\n", "mine.yaml:1: not valid YAML: found unhashable key"),
        ("a: 1\nb: &b [*b]\n", "mine.yaml:2: an anchor holds itself."),
        ("b: *nothing\n", "mine.yaml:1: not valid YAML: found undefined alias"),
    ],
)
def test_faults_are_one_line_with_their_place(text, said):
    assert fault(text).startswith(said)
