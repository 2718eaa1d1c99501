"""What only the model can say of a recipe is said with file and line, by validation and at generation alike."""

import pytest
import yaml
from typer.testing import CliRunner

from dlmctl.checkpoint.pretrained import save_pretrained
from dlmctl.cli import app
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import UserError
from dlmctl.generation.diagnose import examine, validate_recipe
from dlmctl.generation.generate import generate
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import read_recipe
from tests.conftest import tiny_config

FAULTS = [
    ("controls:\n  - length: {words: 99}\n", "mine.yaml:2: sample 0: the target has 99 words, but the model holds"),
    ("controls:\n  - length: [{words: 3},\n      {words: 99}]\n", "mine.yaml:3: sample 1: the target has 99 words"),
    (
        f"samples: 40\ncontrols:\n  - length: [{'5, ' * 38}5,\n      99]\n",
        "mine.yaml:4: sample 39: the target has 99 words",
    ),
    ("controls:\n  - length: {words: 5}\n  - length: {words: 7}\n", "mine.yaml:1: sample 0: the controls contradict"),
    (
        "controls:\n  - length: {words: 5}\n  - contains: {words: [unicorn]}\n",
        "mine.yaml:3: contains: the word 'unicorn'",
    ),
    (
        "controls:\n  - avoid: {words: [bread]}\n  - all:\n      - contains: {words: [bread]}\n",
        "mine.yaml:4: avoid and contains: no text that contains 'bread'",
    ),
    (
        "controls:\n  - length: {words: 5}\n  - any:\n      - length: {words: 4}\n      - semantic: {food: x}\n",
        "mine.yaml:5: ",
    ),
    ("label: x\n", "mine.yaml:1: the model "),
    ("samples: 1\ncandidates: 2\nrank_by: [lm_score]\n", "mine.yaml:3: "),
    ("samples: 1\nsampler:\n  name: random\n", "mine.yaml:3: sampler.name: 'random' is a sampler of masked models"),
    ("samples: 1\nsampler:\n  particles: 2\n", "mine.yaml:2: sampler.reward: the reward 'energy' comes from controls"),
    (
        "samples: 1\nsampler:\n  particles: 2\n  eta: 0\ncontrols: [length: 5]\n",
        "mine.yaml:3: sampler.particles: copies of a text need fresh noise",
    ),
    (
        "samples: 1\nsampler:\n  particles: 2\n  name: dpmpp_2m\ncontrols: [length: 5]\n",
        "mine.yaml:3: sampler.particles: copies of a text need fresh noise",
    ),
    ("samples: 1\nsampler:\n  particles: 2\n  reward: lm_score\n", "mine.yaml:4: "),
    ("samples: 1\ndevice: cuda:77\n", "mine.yaml:2: device 'cuda:77' cannot be used"),
]


@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_validation_asks_the_model(text, said, pretrained):
    recipe, file = read_recipe(text, "mine.yaml")
    with pytest.raises(UserError) as caught:
        examine(recipe, pretrained, file)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_generation_says_the_same(text, said, pretrained):
    recipe, file = read_recipe(text, "mine.yaml", ["sampler.steps=1"])
    with pytest.raises(UserError) as caught:
        run_recipe(recipe, model=pretrained, origin=file)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("controls", ["", "controls: [length: 7]\n", "controls: [any: [length: 7, length: 8]]\n"])
def test_more_blocks_than_steps_are_found_without_drawing(controls, tmp_path, tokenizer):
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    lengths = [0, 0, 0, 0, 0, 0, 1]
    model = MaskedLM(MaskedConfig(length=16, denoiser=sizes, vocab_size=len(tokenizer), sentence_lengths=lengths))
    save_pretrained(model, tokenizer, tmp_path / "masked")
    text = f"model: {tmp_path}/masked\nsamples: 1\n{controls}sampler:\n  block: 2\n  steps: {{steps}}\n"
    line = 4 + bool(controls)
    for act in (validate_recipe, lambda recipe, file: run_recipe(recipe, origin=file)):
        with pytest.raises(
            UserError, match=rf"^mine\.yaml:{line}: sampler\.block: \d blocks need at least as many steps"
        ):
            act(*read_recipe(text.format(steps=2), "mine.yaml"))
    validate_recipe(*read_recipe(text.format(steps=4), "mine.yaml"))


def test_guidance_of_logits_is_refused_where_the_model_predicts_latents(tmp_path, tokenizer):
    model = DiffusionLM(tiny_config(len(tokenizer), objective="paper", self_conditioning=False))
    save_pretrained(model, tokenizer, tmp_path / "latents")
    text = f"model: {tmp_path}/latents\ncontrols: [length: 5]\nguidance:\n  method: logits\n"
    with pytest.raises(UserError, match=r"^mine\.yaml:4: guidance\.method: `logits` needs a model that predicts words"):
        validate_recipe(*read_recipe(text, "mine.yaml"))


@pytest.mark.parametrize(
    "setting", ["guidance.method: langevin", "sampler.clamp: true", "sampler.rounding: l2", "sampler.top_p: 2.0"]
)
def test_settings_of_latents_are_refused_where_there_are_none(setting, tmp_path, tokenizer):
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    model = MaskedLM(MaskedConfig(length=16, denoiser=sizes, vocab_size=len(tokenizer), sentence_lengths=[0, 0, 1]))
    save_pretrained(model, tokenizer, tmp_path / "masked")
    section, _, written = setting.partition(".")
    name, _, value = written.partition(": ")
    recipe, file = read_recipe(f"model: {tmp_path}/masked\nsamples: 1\n{section}:\n  {written}\n", "mine.yaml")
    said = rf"{section}.{name}: has no meaning for a m"
    for act in (validate_recipe, lambda recipe, file: run_recipe(recipe, origin=file)):
        with pytest.raises(UserError, match=rf"^mine\.yaml:4: {said}"):
            act(recipe, file)
    with pytest.raises(UserError, match=f"^{said}"):
        generate(model=tmp_path / "masked", samples=1, **{section: {name: yaml.safe_load(value)}})


def test_a_model_that_is_not_there_names_the_line_that_asks_for_it(tmp_path):
    text = f"samples: 1\nmodel: {tmp_path}/nowhere\n"
    for act in (validate_recipe, lambda recipe, file: run_recipe(recipe, origin=file)):
        with pytest.raises(UserError, match=r"^mine\.yaml:2: .*nowhere: there is no such model"):
            act(*read_recipe(text, "mine.yaml"))


def test_more_texts_than_memory_holds_need_a_folder(pretrained):
    for text, where in (("samples: 1000000000\n", "mine.yaml:1"), ("candidates: 1000\nsamples: 101\n", "mine.yaml:2")):
        recipe, file = read_recipe(text, "mine.yaml")
        with pytest.raises(UserError, match="--out") as caught:
            run_recipe(recipe, model=pretrained, origin=file)
        assert caught.value.where == where


def test_the_command_says_valid_only_if_the_model_agrees(tmp_path, model_folder):
    (tmp_path / "good.yaml").write_text(f"model: {model_folder}\ncontrols:\n  - length: {{words: 5}}\n")
    (tmp_path / "bad.yaml").write_text(f"model: {model_folder}\ncontrols:\n  - length: {{words: 50}}\n")
    good = CliRunner().invoke(app, ["recipe", "validate", str(tmp_path / "good.yaml")])
    assert (good.exit_code, good.stdout) == (0, f"{tmp_path / 'good.yaml'}: valid\n")
    bad = CliRunner().invoke(app, ["recipe", "validate", str(tmp_path / "bad.yaml")])
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "bad.yaml:3: sample 0: the target has 50 words" in bad.stderr


def test_the_command_checks_a_recipe_with_placeholders_against_a_table(tmp_path, model_folder):
    recipe, table = tmp_path / "mine.yaml", tmp_path / "mine.csv"
    recipe.write_text(f"model: {model_folder}\ncontrols:\n  - length: {{words: '{{n}}'}}\n")
    table.write_text("n\n5\n")
    command = ["recipe", "validate", str(recipe)]
    assert "Pass a table (--targets FILE.csv" in CliRunner().invoke(app, command).stderr
    assert CliRunner().invoke(app, [*command, "--targets", str(table)]).stdout == f"{recipe}: valid\n"
    table.write_text("n\n5\n50\n")
    bad = CliRunner().invoke(app, [*command, "--targets", str(table)])
    assert bad.exit_code == 2
    assert "mine.csv:3: the target has 50 words" in bad.stderr
