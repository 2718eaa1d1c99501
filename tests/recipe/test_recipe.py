import pytest

from controls.length import Length
from dlmctl.control.warn_once import _warn
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.build import build_control
from dlmctl.recipe.load import load_recipe, read_recipe
from dlmctl.recipe.recipe import dump_recipe
from dlmctl.recipe.schema import recipe_schema
from dlmctl.recipe.settings import Quota


def fault(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        read_recipe(text, "mine.yaml", overrides)
    return str(caught.value)


def test_a_recipe_reads_back_from_its_dump():
    text = "samples: 3\ncontrols:\n  - pos: {tags: [DET, NOUN]}\n    weight: 0.5\n"
    recipe, _ = read_recipe(text, "mine.yaml")
    again, _ = read_recipe(dump_recipe(recipe), "again.yaml")
    assert again == recipe
    (spec,) = recipe.control_specs()
    assert (spec.name, spec.weight, spec.params) == ("pos", 0.5, [{"tags": ["DET", "NOUN"]}])


def test_nested_controls_are_taken_apart():
    text = """
controls:
  - any:
      - pos: {tags: [DET]}
      - not: {pos: {tags: [NOUN]}}
"""
    (spec,) = read_recipe(text, "mine.yaml")[0].control_specs()
    assert spec.name == "any"
    assert [part.name for part in spec.parts] == ["pos", "not"]
    assert spec.parts[1].parts[0].params == [{"tags": ["NOUN"]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("samples: 3\nsampels: 4\n", "mine.yaml:2: unknown key 'sampels'. Did you mean 'samples'?"),
        ("\nsampler:\n  stepz: 4\n", "mine.yaml:3: unknown key 'stepz'. Did you mean 'steps'?"),
        ("samples: many\n", "mine.yaml:1: samples: input should be a valid integer"),
        ("controls:\n  - poss: {tags: [DET]}\n", "mine.yaml:2: there is no control 'poss'. Did you mean 'pos'?"),
        (
            "controls:\n  - pos:\n      tags: [DET,\n        NUON]\n",
            "mine.yaml:3: controls.0.pos.tags: there is no UPOS tag 'NUON'. Did you mean 'NOUN'?",
        ),
        (
            "controls:\n  - pos:\n      tag: [DET]\n",
            "mine.yaml:3: unknown key 'tag'. Did you mean 'tags'?",
        ),
        (
            "controls:\n  - pos: dte noun\n",
            "mine.yaml:2: controls.0.pos.tags: there is no UPOS tag 'dte'. Did you mean 'DET'?",
        ),
        (
            "controls:\n  - length: 8-10\n",
            "mine.yaml:2: controls.0.length.words: input should be a valid integer, not '8-10'. 8 to 10 is `words: 9, "
            "tolerance: 1`.",
        ),
        (
            "controls:\n  - syllables: {number: 5 to 8}\n",
            "mine.yaml:2: controls.0.syllables.number: input should be a valid integer, not '5 to 8'. 5 to 7 is "
            "`number: 6, tolerance: 1`.",
        ),
        (
            "controls:\n  - surprisal: {word: tea, nats: 1}\n",
            "mine.yaml:2: controls.0.surprisal.nats: should be a list, not 1. For example `nats: [null, 1.5]`.",
        ),
        ("controls:\n  - {pos: {tags: [DET]}, weight: heavy}\n", "mine.yaml:2: weight must be a number"),
        ("controls:\n  - weight: 1\n", "mine.yaml:2: each list item holds one control"),
        ("samples: 3\nsamples: 4\n", "mine.yaml:2: 'samples' appears twice."),
        ("samples: [3\n", "mine.yaml:2: not valid YAML"),
        ("- 3\n", "mine.yaml:1: a recipe is a mapping"),
        ("model: []\n", "mine.yaml:1: model: input should be a valid string, not []."),
        ("preset: []\n", "mine.yaml:1: preset: input should be 'fast', 'balanced', 'quality' or 'paper', not []."),
        ("sampler: {name: {}}\n", "mine.yaml:1: sampler.name: input should be "),
        ("unique: 'yes'\n", "mine.yaml:1: unique: input should be a valid boolean, not 'yes'."),
        ("unique: 0\n", "mine.yaml:1: unique: input should be a valid boolean, not 0."),
        ('label: "\\UFFFFFFFF"\n', "mine.yaml:1: not valid YAML: an escape in double quotes is not a character."),
        ("samples: true\n", "mine.yaml:1: samples: input should be a valid integer, not True."),
        ("samples: '3'\n", "mine.yaml:1: samples: input should be a valid integer, not '3'."),
        ("samples: 3.0\n", "mine.yaml:1: samples: input should be a valid integer, not 3.0."),
        ("sampler: {steps: true}\n", "mine.yaml:1: sampler.steps: input should be a valid integer, not True."),
        ("sampler: {temperature: .inf}\n", "mine.yaml:1: sampler.temperature: input should be a finite number"),
        ("guidance: {scale: .nan}\n", "mine.yaml:1: guidance.scale: input should be a finite number"),
        ("guidance: {until: 0.6, since: 0.5}\n", "mine.yaml:1: guidance: it ends at time 0.6 (until), before it"),
        (
            "until: {satisfied: true}\n",
            "mine.yaml:1: until.satisfied: input should be 'all' or 'any' or a valid number",
        ),
        ("quota: true\nuntil:\n  satisfied: any\n", "mine.yaml:3: until.satisfied: a quota draws until all texts pass"),
        ("quota: {attempts: 9}\nuntil: {satisfied: 0.0}\n", "mine.yaml:2: until.satisfied: a quota draws until all"),
        ("label: {a: b}\n", "mine.yaml:1: label: input should be a valid string or a valid boolean or"),
        ("label: []\n", "mine.yaml:1: label: list should have at least 1 item after validation, not 0."),
        ("source: []\n", "mine.yaml:1: source: list should have at least 1 item after validation, not 0."),
        ("source:\n  - name: x\n  - name: [y]\n", "mine.yaml:3: source.1.name: input should be a valid string or"),
        ("candidates: 1001\n", "mine.yaml:1: candidates: input should be less than or equal to 1000, not 1001."),
        ("guidance: {updates: 1001}\n", "mine.yaml:1: guidance.updates: input should be less than or equal to 1000"),
        ("batch_size: 1000000\n", "mine.yaml:1: batch_size: input should be less than or equal to 65536"),
        ("until: {max_rounds: 1001}\n", "mine.yaml:1: until.max_rounds: input should be less than or equal to 1000"),
        ("device: xla\n", "mine.yaml:1: device: device 'xla' cannot be used; use auto, cpu, cuda, cuda:1 or mps."),
        (
            "controls: {length: {words: 3}}\n",
            "mine.yaml:1: controls: should be a list, not a mapping of 'length'. Each has a dash: `- length:`.",
        ),
        ("controls:\n- length:9\n", "mine.yaml:2: controls.0: a control is written `- name: parameters`, with a space"),
        (
            "samples: 3\nlength: 9\n",
            "mine.yaml:2: `length` is a control. Write it under `controls:`, with a dash: `- length",
        ),
        ("not: [length: 9]\n", "mine.yaml:1: `not` is a control. Write it under `controls:`"),
        (
            "controls:\n- length: 9\n  contains: tea\n",
            "mine.yaml:2: each list item holds one control (and perhaps `weight`), here: 'length', 'contains'. "
            "Each needs a dash",
        ),
        (
            "controls:\n- length: 9\n contains: tea\n",
            "mine.yaml:3: not valid YAML: expected <block end>, but found '<block mapping start>'. Begin the items",
        ),
        ("until: all\n", "mine.yaml:1: until: should be a mapping, not 'all'. Write `until: {satisfied: all}`."),
        ("quota: 20\n", "mine.yaml:1: quota: should be a mapping, not 20. Write `quota: {attempts: 20}`."),
        (
            "controls:\n- lexicon: {where: 2, letters: 3}\n",
            "mine.yaml:2: controls.0.lexicon.where: should be a mapping, not 2. Write `where: {place: 2}`.",
        ),
        ("controls:\n  - length: []\n", "mine.yaml:2: `length` has an empty list of parameter sets."),
        ("controls:\n  - any: []\n", "mine.yaml:2: `any` needs controls inside."),
        (
            "controls:\n  - any: [{length: 3, weight: 0}]\n",
            "mine.yaml:2: `any` needs a control whose weight is above 0.",
        ),
        ("controls:\n  - length: {words: true}\n", "mine.yaml:2: controls.0.length.words: input should be a valid int"),
        ("controls:\n  - length: [{words: 3},\n      {words: x}]\n", "mine.yaml:3: controls.0.length.1.words: input"),
        ("controls:\n  - {length: {words: 3}, weight: .inf}\n", "mine.yaml:2: weight must be a number from 0 to"),
        (
            "controls:\n  - contains: [{words: [pub]}, pub]\n",
            "mine.yaml:2: parameters are written as a mapping, not 'pub'. `dlmctl con",
        ),
        (
            "controls:\n  - infill: {template: '___{1,99999999999}'}\n",
            "mine.yaml:2: controls.0.infill.template: a blank",
        ),
        (
            "controls:\n  - syntax_tree: {tree: '" + "(S " * 5000 + "'}\n",
            "mine.yaml:2: controls.0.syntax_tree.tree: the brackets",
        ),
        (
            "controls:\n  - contains: {words: [pub]}\n  - not: {contains: {words: [pub]}}\n",
            "mine.yaml:3: the controls contradict each other: this `contains` is required at mine.yaml:2.",
        ),
        (
            "controls:\n  - all:\n    - length: [{words: 3}, {words: 4}]\n    - not: {any: [{length: {words: 4}}]}\n",
            "mine.yaml:4: the controls contradict each other",
        ),
        ("controls:\n" + "  - length: {words: 3}\n" * 101, "mine.yaml:1: there are more than 100 controls."),
    ],
)
def test_faults_name_file_and_line(text, said):
    assert fault(text).startswith(said)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("contains: [no]", "as true or false; for the word, write it in quotes: 'no'."),
        ("contains: no", "as true or false; for the word, write it in quotes: 'no'."),
        ("contains: [house, ~]", "YAML reads ~ as nothing; for the word, write it in quotes: '~'."),
        ("contains: [~]", "YAML reads ~ as nothing; for the word, write it in quotes: '~'."),
        ("infill: yes", "input should be a valid string, not True."),  # nor is it a template in quotes
        ("lexicon: no", "as true or false; for the word, write it in quotes: 'no'."),
        ("pattern: no", "as true or false; for the word, write it in quotes: 'no'."),
        ("pattern: [no]", "as true or false; for the word, write it in quotes: 'no'."),
        ("pattern: [a, no]", "as true or false; for the word, write it in quotes: 'no'."),
        ("pos: [NO, NOUN]", "as true or false; for the word, write it in quotes: 'NO'."),
        ("length: [5, ~]", "input should be a valid integer, not None."),
    ],
)
def test_short_forms_are_explained_alike(control, said):
    assert fault(f"controls:\n  - {control}\n").endswith(said)


@pytest.mark.parametrize("text", ["until: {satisfied: true}", "until: {satisfied: 2}", "preset: 1", "device: 0"])
def test_quotes_are_no_remedy_where_the_word_may_not_stand_either(text):
    assert "in quotes" not in fault(f"{text}\n")


def test_sections_may_stand_empty():
    recipe, _ = read_recipe("controls:\nsampler:\nguidance:\nuntil:\nquota:\n", "mine.yaml", ["sampler.steps=3"])
    assert (recipe.controls, recipe.sampler.steps, recipe.until) == ([], 3, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("[no]", "YAML reads no as true or false; for the word, write it in quotes: 'no'."),
        ("[pub, 20]", "YAML reads 20 as a number; for the word, write it in quotes: '20'."),
        ("[null]", "YAML reads null as nothing; for the word, write it in quotes: 'null'."),
    ],
)
def test_words_that_yaml_reads_otherwise_are_explained(words, said):
    assert fault(f"controls:\n  - avoid: {{words: {words}}}\n").endswith(said)
    assert fault("controls:\n  - avoid: {words: [x]}\n", f"controls.0.avoid.words={words}").endswith(said)


def test_a_message_is_short_and_printable_whatever_it_quotes():
    long = fault("sampler: {name: " + "x" * 100_000 + "}\n")
    assert len(long) < 600
    assert fault('device: "\\e[31mred\\n"\n').isprintable()
    assert len(str(UserError("w" * 500, where="\x1b" * 500, remedy="\ud800" * 500))) < 600
    assert len(str(UserError("w" * 10_000, where="/" * 10_000, remedy="r" * 10_000))) < 600


def test_not_not_is_the_control_itself():
    text = "controls:\n  - {not: {not: {length: {words: 3}}, weight: 2}, weight: 3}\n"
    (spec,) = read_recipe(text, "mine.yaml")[0].control_specs()
    assert (spec.name, spec.params, spec.weight) == ("length", [{"words": 3}], 6)
    assert isinstance(build_control([spec]), Length)


def test_an_empty_recipe_says_so(tmp_path):
    for text in ("", "# nothing yet\n", "---\n"):
        (tmp_path / "empty.yaml").write_text(text)
        with pytest.raises(RecipeError, match="the recipe is empty"):
            load_recipe(str(tmp_path / "empty.yaml"), ["samples=3"])


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800", "/dev/null", "."])
def test_names_that_are_no_file_are_one_short_message(name):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_overrides_lie_over_the_file():
    text = "controls:\n  - pos: {tags: [DET]}\n"
    recipe, _ = read_recipe(text, "mine.yaml", ["sampler.steps=7", "controls.0.pos.tags=[NOUN]"])
    assert recipe.sampler.steps == 7
    assert recipe.control_specs()[0].params == [{"tags": ["NOUN"]}]


def test_what_python_takes_short_a_recipe_takes_short():
    recipe, _ = read_recipe("rank_by: mbr\nquota: true\ncontrols:\n  - contains: {words: window}\n", "mine.yaml")
    assert (recipe.rank_by, recipe.quota) == (["mbr"], Quota())
    assert read_recipe("quota: false\n", "mine.yaml")[0].quota is None
    properties = recipe_schema()["properties"]
    assert {"type": "boolean"} in properties["quota"]["anyOf"]
    assert [one["type"] for one in properties["rank_by"]["anyOf"]] == ["array", "string"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "controls.0.contains.words=[door]",
            "--set controls.0.contains.words: 'contains' is a list of 1, numbered from 0, and has no item "
            "'words'. Set all of it: --set controls.0.contains=...",
        ),
        (
            "controls.1.length.words=5",
            "--set controls.1.length.words: 'length' is a value, not settings. Set all of it: "
            "--set controls.1.length=...",
        ),
        (
            "controls.7.length=5",
            "--set controls.7.length: 'controls' is a list of 2, numbered from 0, and has no item '7'.",
        ),
    ],
)
def test_an_override_of_a_short_form_says_what_can_be_set(override, said):
    assert fault("controls:\n  - contains: [window]\n  - length: 4\n", override) == said


def test_settings_do_not_reach_controls_of_the_command_line():
    with pytest.raises(
        RecipeError, match=r"cannot change the controls of --control, .* Write the change in --control itself"
    ):
        read_recipe("", "command line", ["controls.0.length.words=5"], controls=["length: 4"])


@pytest.mark.parametrize("override", ["steps", "controls.5.pos=1", "sampler.steps.more=1", "nothing=1"])
def test_bad_overrides_are_refused(override):
    assert fault("sampler: {steps: 4}\ncontrols:\n  - pos: {tags: [DET]}\n", override)


def test_a_missing_recipe_lists_the_bundled_ones():
    with pytest.raises(RecipeError, match="pos"):
        load_recipe("no-such-recipe.yaml")


def test_bundled_recipes_load_by_name_and_by_file_name():
    assert load_recipe("pos")[0] == load_recipe("pos.yaml")[0]


def test_the_schema_knows_the_controls():
    schema = recipe_schema()
    assert "tags" in schema["$defs"]["control_pos"]["properties"]
    assert set(schema["$defs"]["control"]["properties"]) >= {"pos", "any", "all", "not", "weight"}


ALL_PATHS = """
model: mine
scorer: third
second_scorer: other
rank_by: [satisfaction, fluency]
source: "@rows.csv"
controls:
  - lexicon: {file: unit.txt}
  - any:
      - lexicon: [{table: norms.csv, level: A1}, {file: /far/away.txt}, {file: "{list}"}]
      - pos: {tags: [NOUN], judge: tagger}
      - syntax_tree: {tree: "(TOP (S (NP *) (VP *)))", judge: "stanza:en"}
      - classifier: {label: good, model: judges/one}
      - classifier: {label: good, huggingface: me/model}
targets: rows.csv
"""


def paths_in(file):
    recipe, _ = load_recipe(str(file))
    lexicon, both = recipe.control_specs()
    inner = [params for part in both.parts for params in part.params]
    keys = ("file", "table", "judge", "model", "huggingface")
    named = [params[key] for params in [*lexicon.params, *inner] for key in keys if key in params]
    return [recipe.model, recipe.scorer, recipe.second_scorer, recipe.targets, *named], recipe.source


AS_WRITTEN = ["mine", "third", "other", "rows.csv", "unit.txt", "norms.csv", "/far/away.txt", "{list}", "tagger"]
AS_WRITTEN += ["stanza:en", "judges/one", "me/model"]


def test_paths_are_seen_from_the_recipe_and_else_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sub = tmp_path / "sub"
    sub.mkdir()
    (sub / "mine.yaml").write_text(ALL_PATHS)
    files, folders = ("rows.csv", "unit.txt", "norms.csv"), ("mine", "other", "tagger", "judges/one")
    for name in files:
        (tmp_path / name).write_text("list,from\nunit.txt,here\n")
    assert paths_in(sub / "mine.yaml") == (AS_WRITTEN, [{"list": "unit.txt", "from": "here"}])
    for name in files:
        (sub / name).write_text("list,from\nunit.txt,there\n")
    for name in folders:
        (sub / name).mkdir(parents=True)
    paths = [str(sub / name) if name in (*files, *folders) else name for name in AS_WRITTEN]
    assert paths_in(sub / "mine.yaml") == (paths, [{"list": "unit.txt", "from": "there"}])


def test_the_name_of_a_bundled_model_is_no_path(tmp_path):
    (tmp_path / "e2e").mkdir()
    (tmp_path / "mine.yaml").write_text("model: e2e\ntargets: nowhere.csv\n")
    recipe, _ = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.model == "e2e"
    assert recipe.targets == str(tmp_path / "nowhere.csv")  # a file that is missing is missed there


@pytest.mark.parametrize(
    ("entry", "warns"),
    [
        ("contains: tea, milk", True),
        ("avoid: tea; milk", True),
        ("contains: green tea", False),
        ("contains: [tea, milk]", False),
        ('contains: ["Well, I"]', False),
        ("pos: DET,NOUN", False),
        ("infill: Well, I ___ .", False),
    ],
)
def test_commas_in_a_single_phrase_are_pointed_out(entry, warns, caplog):
    _warn.cache_clear()
    read_recipe(f"controls:\n- {entry}\n", "mine.yaml")
    said = [record.getMessage() for record in caplog.records]
    assert said == (
        [f"dlmctl: {entry.split(': ')[1]!r} is taken as one phrase, with its punctuation; several are [tea, milk]."]
        if warns
        else []
    )
