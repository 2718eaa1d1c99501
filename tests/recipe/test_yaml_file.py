import pytest

from dlmctl.errors import RecipeError
from dlmctl.recipe.overrides import override
from dlmctl.recipe.yaml_file import MOST_CHARACTERS, MOST_DEPTH, parse


def fault(text):
    with pytest.raises(RecipeError) as caught:
        parse(text, "mine.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_every_key_and_item_knows_its_line():
    value, file = parse("a: 1\nb:\n  - x\n  - c: [1,\n      2]\n", "mine.yaml")
    assert value == {"a": 1, "b": ["x", {"c": [1, 2]}]}
    assert {place: file.lines[place] for place in [("a",), ("b",), ("b", 0), ("b", 1, "c"), ("b", 1, "c", 1)]} == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1, "c"): 4,
        ("b", 1, "c", 1): 5,
    }


def test_what_has_no_line_takes_that_of_what_is_around_it():
    _, file = parse("\na:\n  b: 1\n", "mine.yaml")
    assert file.line(("a", "b", "c", 3)) == 3
    assert file.line(("a", "x")) == 2
    assert file.line(("x",)) == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_nothing_is_none(text):
    assert parse(text, "mine.yaml")[0] is None


def test_aliases_are_values_like_others():
    value, file = parse("a: &same\n  x: 1\nb: *same\n", "mine.yaml")
    assert value == {"a": {"x": 1}, "b": {"x": 1}}
    assert file.line(("b", "x")) == 3


def test_a_merge_key_fills_in_what_is_not_said():
    value, _ = parse("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 5}\n", "mine.yaml")
    assert value["c"] == {"x": 5, "y": 2, "z": 4}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31", "2026-01-31"),
        ("2026-13-45", "2026-13-45"),  # no date, and none is wanted
        ("7:30", "7:30"),
        ("1e-3", 0.001),
        ("'1e-3'", "1e-3"),
        ("1_000", 1000),
        ("!!int '7'", 7),
        ("!!str 7", "7"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("{no: 1, 5: 2, null: 3}", {"no": 1, "5": 2, "null": 3}),
        ("[=, <<]", ["=", "<<"]),
    ],
)
def test_values_are_what_they_look_like(text, value):
    assert parse(text, "mine.yaml")[0] == value


@pytest.mark.parametrize("level", ["[{}]", "{{a: {}}}"])
def test_aliases_that_multiply_are_refused_before_they_are_written_out(level):
    first, rest = "a0: &a0 [x, x]", []
    for n in range(1, 10):
        inner = ", ".join([f"*a{n - 1}"] * 9) if level == "[{}]" else f"[{', '.join([f'*a{n - 1}'] * 9)}]"
        rest.append(f"a{n}: &a{n} {level.format(inner)}")
    assert "aliases multiply to more than 200,000 values" in fault("\n".join([first, *rest]))


def test_a_long_text_does_not_multiply_either():
    text = "a: &a " + "x" * 10_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]\n"
    assert "4,000,000 characters" in fault(text)


def test_aliases_do_not_hide_depth():
    levels = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, MOST_DEPTH + 2)]
    assert "nested more than" in fault("\n".join(["a0: &a0 [x]", *levels]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1\n", "mine.yaml:3: not valid YAML"),
        ("a: 1\na: 2\n", "mine.yaml:2: 'a' appears twice."),
        ("a:\n  b: 1\n  b: 1\n", "mine.yaml:3: 'b' appears twice."),
        ("a: \t1\n", "mine.yaml:1: not valid YAML"),
        ("a: 1\nb: @x\n", "mine.yaml:2: not valid YAML"),
        ("a: 1\nb: x\0y\n", "mine.yaml:2: not valid YAML: the character '\\x00' is not allowed."),
        ('a: 1\nb: "x\\0y"\n', "mine.yaml:2: text cannot hold the character NUL."),
        ('a: 1\nb: "\\ud800"\n', "mine.yaml:2: '\\ud800' holds half a character"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', "mine.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2: not valid YAML"),
        ("a: !!python/object:os.system x\n", "mine.yaml:1: the tag '!!python/object:os.system' has no meaning here."),
        ("a: !!binary aGk=\n", "mine.yaml:1: the tag '!!binary' has no meaning here."),
        ("a: !!set {x, y}\n", "mine.yaml:1: the tag '!!set' has no meaning here."),
        ("a: !!pairs [x: 1]\n", "mine.yaml:1: the tag '!!pairs' has no meaning here."),
        ("a: !!map x\n", "mine.yaml:1: the tag '!!map' has no meaning here."),
        ("a: !x y\n", "mine.yaml:1: the tag '!x' has no meaning here. Leave it out, or put text with ! in front"),
        ('a: !!int ""\n', "mine.yaml:1: '' is not a valid int."),
        ("a: !!int x\n", "mine.yaml:1: 'x' is not a valid int."),
        ("a: !!float x\n", "mine.yaml:1: 'x' is not a valid float."),
        ("a: !!bool x\n", "mine.yaml:1: 'x' is not a valid bool."),
        ("a: " + "1" * 5000, "mine.yaml:1: '1111"),
        ("a: 0x" + "f" * 5000, "mine.yaml:1: a whole number of more than 64 bits."),
        ("[" * 1500, "mine.yaml:1: not valid YAML: lists and mappings are nested more than 40 deep."),
        ("- " * 1500, "mine.yaml:1: not valid YAML: lists and mappings are nested more than 40 deep."),
        ("x" * (MOST_CHARACTERS + 1), "mine.yaml: holds more than 1,000,000 characters."),
        ("? [a]\n: 1\n", "mine.yaml:1: a key is text, not a list or a mapping."),
        ("a: 1\nb: &b [*b]\n", "mine.yaml:2: an anchor contains itself."),
        ("a: &a {<<: *a}\n", "mine.yaml:1: an anchor contains itself."),
        ("a: &a {x: 1}\nb: {<<: *a, <<: {x: 2}}\n", "mine.yaml:2: '<<' appears twice."),
        ("a: {<<: 3}\n", "mine.yaml:1: `<<` takes a mapping, or a list of mappings."),
        (
            "b: *nothing\n",
            "mine.yaml:1: not valid YAML: found undefined alias 'nothing'. Put a word that begins with *",
        ),
        ("tags: [DET, *, AUX]\n", "mine.yaml:1: not valid YAML: expected alphabetic"),
        (
            "words:\n- “tea”\n",
            "mine.yaml:2: the typographic quotation marks of “tea” are part of the text. Write straight ones;",
        ),
        ("a: „Der ___ .“\n", "mine.yaml:1: the typographic quotation marks of „Der ___ .“"),
        ("a: {letters: 1, zipf: 0,2}\n", "mine.yaml:1: a number has a point: 0.2, not 0,2."),
        (
            "a: b: c\n",
            "mine.yaml:1: not valid YAML: mapping values are not allowed here. Put text that contains a colon",
        ),
    ],
)
def test_faults_are_one_line_with_their_place(text, said):
    assert fault(text).startswith(said)


def test_quotation_marks_that_belong_to_a_text_and_keys_without_a_value_are_kept():
    assert parse('a: "“tea”"\nb: “tea” and “coffee”, he said\n', "mine.yaml")[0] == {
        "a": "“tea”",
        "b": "“tea” and “coffee”, he said",
    }
    assert parse("{a: x, 2}", "mine.yaml")[0] == {"a": "x", "2": None}


def test_a_lone_asterisk_is_explained():
    assert fault("tags: [DET, *, AUX]\n").endswith("Put a word that begins with * in quotes: '*'.")


@pytest.mark.parametrize(
    "setting", ["a." * 100 + "b=1", "a.99999999999999999999=1", "a.0.0=[[[[", "=1", "\ud800=\ud800"]
)
def test_overrides_of_any_shape_are_refused(setting):
    with pytest.raises(RecipeError) as caught:
        override({"a": [1]}, setting)
    assert str(caught.value).isprintable()
