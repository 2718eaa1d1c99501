"""User errors on the command line: one message, the right exit code, no traceback."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.errors import UserError

CORPUS = Path(__file__).resolve().parents[2] / "data" / "restaurants" / "corpus.jsonl"
MAIN = [sys.executable, "-c", "from dlmctl.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def here(tmp_path, monkeypatch, model_folder):
    """A folder with a recipe, a model ``tiny`` and files that users may give by mistake."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "tiny")
    Path("good.yaml").write_text(
        "model: tiny\nsamples: 2\nsampler: {steps: 2}\ncontrols:\n  - pos: {tags: [DET, NOUN, VERB]}\n"
    )
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("list.yaml").write_text("- 1\n")
    Path("void.yaml").touch()
    Path("plain.txt").write_text("hello\n")
    Path("long.yaml").write_text(f"model: tiny\ncontrols:\n  - pos: {{tags: [{', '.join(['NOUN'] * 40)}]}}\n")
    Path("empty").mkdir()
    shutil.copytree("tiny", "cut")
    Path("cut/model.safetensors").write_bytes(Path("tiny/model.safetensors").read_bytes()[:500])
    shutil.copytree("tiny", "unguided")
    shutil.rmtree("unguided/controls")
    return tmp_path


def error_message(*arguments):
    """Run a command and return its message on stderr, which must be one line; the exit code must be 2."""
    run = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert run.exit_code == 2, run.exception
    assert run.stdout == ""
    (line,) = run.stderr.strip().splitlines()
    return line.removeprefix("dlmctl: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe nope.yaml", "nope.yaml: there is no such recipe file. Bundled recipes: "),
        ("--recipe good.yml", "good.yml: there is no such recipe file. Did you mean 'good.yaml'?"),
        ("--recipe good", "good: there is no such recipe file. Did you mean 'good.yaml'?"),
        ("--recipe empty", "empty: there is no such recipe file."),
        ("--recipe " + "x" * 5000, "is not a valid file name."),
        ("-n 1000000000", "command line: samples: more than 100,000 texts"),
        ("--recipe binary.yaml", "binary.yaml: cannot be read"),
        ("--recipe void.yaml", "void.yaml: the recipe is empty. See `dlmctl recipe show pos` for one."),
        ("--recipe list.yaml", "list.yaml:1: a recipe is a mapping of settings."),
        (
            "--recipe long.yaml",
            "long.yaml:3: sample 0: the target has 40 words, but the model holds at most 30. Shorten",
        ),
        ("--set nonsense", "--set: 'nonsense' is not key=value. For example sampler.steps=20."),
        ("--set sampler.stepz=3", "command line: unknown key 'stepz'. Did you mean 'steps'?"),
        ("--set samplr.steps=3", "command line: unknown key 'samplr'. Did you mean 'sampler'?"),
        ("--set sampler.steps=many", "command line: sampler.steps: input should be a valid integer"),
        ("--set sampler=3", "command line: sampler: should be a mapping, not 3."),
        ("--set sampler.steps=[1", "--set sampler.steps: '[1' is not a YAML value."),
        (
            "--set controls.7.pos=1",
            "--set controls.7.pos: 'controls' is a list of 1, numbered from 0, and has no item '7'.",
        ),
        ("--set controls.0.pos.tags.0.x=1", "--set controls.0.pos.tags.0.x: '0' is a value, not settings."),
        ("--set controls.0.pos.tags=[DTE]", "there is no UPOS tag 'DTE'. Did you mean 'DET'?"),
        ("--set controls.0.weight=.inf", "command line: weight must be a number from 0 to 1000000, not inf."),
        ("-n 0", "command line: samples: input should be greater than or equal to 1, not 0."),
        ("-n 18446744073709551616", "--set samples: '18446744073709551616': a whole number of more than 64 bits."),
        ("-n -4", "command line: samples: input should be greater than or equal to 1, not -4."),
        ("--seed -1", "command line: seed: input should be greater than or equal to 0, not -1."),
        ("--steps 0", "command line: sampler.steps: input should be greater than or equal to 1, not 0."),
        ("--device gpu9", "command line: device: device 'gpu9' cannot be used; use auto, cpu, cuda, cuda:1 or mps."),
        ("--device meta", "device 'meta' cannot be used"),
        ("--quota --set until.satisfied=any", "command line: until.satisfied: a quota draws until all texts pass"),
        ("--model " + "x" * 300, "command line: " + "x" * 20),
        ("--model tyni", "command line: tyni: there is no such model. Did you mean 'tiny'?"),
        (
            '--set controls=[{"sentiment":"positive"}]',
            "control 'sentiment'. Did you mean `classifier: {name: sentiment, ",
        ),
        (
            '--model everyday --set controls=[{"classifier":"positive"}]',
            "'positive' is a label of: sentiment. Write `name",
        ),
        ("--model 12", "12: there is no such model."),
        ("--model null", "null: there is no such model."),
        ("--model empty", "empty: is not a model: config.json is missing."),
        ("--model plain.txt", "plain.txt: is a file; a model is a folder."),
        ("--model cut", "cut/model.safetensors: is damaged or cut short"),
        (
            "--model unguided",
            "good.yaml:5: unguided: the control 'pos' has no weights for this model. `model: e2e` has them. Train them",
        ),
        ("--set controls.0.pos.judge=nowhere", "nowhere: no tagger here: tagger.json is missing."),
        ("--out no/folder/x.txt", "no/folder: the folder does not exist. Make it first."),
        ("--shard-rows 8", "--shard-rows: only texts written to files have shards. Give --out."),
        ("--out x.doc", "x.doc: the ending '.doc' is not known. Use .txt, .jsonl, .csv, .tsv, .npz, .parquet."),
    ],
)
def test_generate(here, options, message):
    arguments = options.split()
    recipe = [] if "--recipe" in arguments else ["--recipe", "good.yaml"]
    assert message in error_message("generate", *recipe, *arguments)


def test_a_recipe_without_a_name_is_not_the_default_one(here):
    """As with a shell variable that is not set."""
    assert error_message("generate", "--recipe", "").startswith("'': there is no such recipe file.")


def test_standard_input_is_read_once(here):
    command = ["generate", "--recipe", "-", "--targets", "-"]
    run = CliRunner().invoke(app, command, input="controls: [{length: {words: '{n}'}}]\n")
    assert run.exit_code == 2
    assert run.stderr.startswith("dlmctl: standard input: holds the recipe, so it cannot hold the targets too.")


def test_a_judge_and_a_page_are_found_wanting_before_anything_is_drawn(here, monkeypatch):
    monkeypatch.setattr("dlmctl.generation.rounds.draw_batches", lambda *_, **__: pytest.fail("it draws"))
    error_message("generate", "--recipe", "good.yaml", "--set", "controls.0.pos.judge=nowhere")
    if Path("/proc/self").exists():
        assert "/proc/x.html: cannot be written" in error_message(
            "generate", "--recipe", "good.yaml", "--report", "/proc/x.html"
        )
        assert "/proc/x.csv: cannot be written" in error_message(
            "matched", "--recipe", "matched", "--out", "/proc/x.csv"
        )
        assert "/proc/set: cannot lock the data set" in error_message("data", "prepare", CORPUS, "--out", "/proc/set")


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_recipe_behind_a_loop_of_links_is_not_called_missing(here):
    Path("loop.yaml").symlink_to("loop.yaml")
    assert error_message("generate", "--recipe", "loop.yaml").startswith("loop.yaml: cannot be read: Too many")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("info tyni", "Did you mean 'tiny'?"),
        (f"info {'x' * 5000}", "there is no such model."),
        ("info cut", "cut/model.safetensors: is damaged"),
        ("recipe validate pos --set samples=0", "command line: samples"),
        ("recipe validate pos --model tyni", "command line: tyni: there is no such model."),
        ("recipe validate binary.yaml", "binary.yaml: cannot be read"),
        ("recipe show nope", "there is no such recipe file"),
        ("data prepare plain.tx --out set", "plain.tx: no such file. Did you mean 'plain.txt'?"),
        ("data prepare .hiddn --out set", ".hiddn: no such file. Known: "),
        (f"data prepare {'x' * 300}.txt --out set", "x.txt: cannot be read: File name too long."),
        ("data prepare binary.yaml --out set", "binary.yaml: .yaml is not a known format of texts"),
        ("data prepare plain.txt --out plain.txt", "plain.txt: is a file. Name a folder."),
        ("data prepare plain.txt --out set --min-count 0", "--min-count"),
        ("train lm --data nope --out run", "nope: no such folder. Make it with `dlmctl data prepare`."),
        ("train lm --data empty --out run", "empty: holds no 'train' split."),
        ("train lm --data empty --out run --config e2", "no such configuration 'e2'. Did you mean 'e2e'?"),
        ("train lm --data empty --out run --config binary.yaml", "binary.yaml: cannot be read"),
        ("train lm --data empty --out run --config /dev/zero", "/dev/zero: holds more than 1,000,000 characters."),
        ("train parser --train empty --dev empty --conllu empty --out run", "empty: cannot be read: it is a folder"),
        ("train lm --data empty --out run --set loop.stepz=1", "command line: unknown key 'stepz'."),
        ("train lm --data empty --out run --set model.denoiser.heads=7", "heads (7) must divide hidden (256)"),
        ("train control pso --data empty --out run", "there is no control 'pso'. Did you mean 'pos'?"),
        ("train control pos --data empty --out run --model tiny", "empty: holds no 'train' split."),
        ("train tagger --train nope --dev nope --out run", "nope: no such file"),
        ("evaluate samples --data empty --model tiny", "tiny/scorer: no scorer here."),
        ("evaluate control pos --targets nope --model tiny", "nope: no such file"),
        (
            "evaluate samples --data empty --model tiny --set sampler.steps=2 --set candidates=4",
            "--set candidates: has no effect here. Settings here: preset, sampler.",
        ),
        ("evaluate source tiny --data empty --set guidance.scale=2", "--set guidance: has no effect here."),
        (
            "evaluate control pos --targets nope --set device=cpu",
            "--set device: has no effect here. Settings here: preset",
        ),
        ("bench --model tiny --set until.max_rounds=2", "--set until: has no effect here."),
        ("bench --model tiny --set sampler.stepz=2", "unknown key 'stepz'"),
    ],
)
def test_other_commands(here, command, message):
    before = sorted(here.rglob("*"))
    assert message in error_message(*command.split())
    assert sorted(here.rglob("*")) == before  # nothing half-made


@pytest.mark.parametrize(
    "command", ["nonsense", "generate --sampler euler", "generate -n many", "evaluate samples -n 0"]
)
def test_usage_errors_look_like_all_others(command):
    message = error_message(*command.split())
    assert re.search(r"\. See `.* --help`\.$", message)


def test_a_group_without_a_command_shows_its_help():
    run = CliRunner().invoke(app, ["controls"])
    assert run.exit_code == 2
    assert "Usage" in run.output


def test_a_model_may_have_a_name_that_yaml_would_read_otherwise(here):
    for name in ("12", "null", "1e3"):
        shutil.copytree("tiny", name)
        run = CliRunner().invoke(app, ["generate", "--recipe", "good.yaml", "--model", name])
        assert run.exit_code == 0, run.stderr


def test_a_failing_disk_is_one_message(here, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device", "out/metrics.jsonl")

    monkeypatch.setattr("dlmctl.checkpoint.describe.describe", full)
    assert error_message("info", "tiny") == "out/metrics.jsonl: No space left on device."


def test_what_is_no_fault_of_the_user_keeps_its_traceback(here, monkeypatch):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("dlmctl.checkpoint.describe.describe", broken)
    assert isinstance(CliRunner().invoke(app, ["info", "tiny"]).exception, ZeroDivisionError)


def test_markup_in_texts_and_errors_is_printed_as_it_stands(capsys, monkeypatch):
    import numpy as np

    from dlmctl.cli.render_texts import print_generation
    from dlmctl.generation.results import Generation, Sample

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_generation(
        Generation([Sample(0, ["x"], "an [/odd] [bold]text", {}, np.zeros((1, 1)), problem="a[0] [/x]")], 1)
    )
    printed = "".join(capsys.readouterr())
    assert "an [/odd] [bold]text" in printed
    assert "a[0] [/x]" in printed


# Says by a file that sampling has begun.
WORKING = """
import pathlib
import dlmctl.generation.rounds
from dlmctl.cli import main

draw = dlmctl.generation.rounds.draw_batches

def working(*arguments, **options):
    pathlib.Path("working").touch()
    yield from draw(*arguments, **options)

dlmctl.generation.rounds.draw_batches = working
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_is_one_line_and_leaves_nothing_behind(here, number, code):
    before = {path.name for path in here.iterdir()}
    run = subprocess.Popen(
        [sys.executable, "-c", WORKING, "generate", "-r", "good.yaml", "--steps", "100000", "--out", "x.txt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # Whoever runs the tests may have been started with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not Path("working").exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(number)
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out, err) == (code, "", "dlmctl: interrupted.\n")
    assert {path.name for path in here.iterdir()} == before | {"working"}


def test_a_reader_that_has_gone_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([*MAIN, "recipe", "schema"], stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_is_full_is_one_message():
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*MAIN, "recipe", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert (run.returncode, run.stderr) == (2, "dlmctl: output: No space left on device.\n")


def test_errors_name_place_fault_and_remedy():
    assert str(UserError("is empty.", where="a.txt", remedy="Fill it.")) == "a.txt: is empty. Fill it."
    assert str(UserError("is empty.")) == "is empty."


def test_a_recipe_that_stands_in_no_file_has_no_lines(here):
    Path("tiny/scorer").mkdir(exist_ok=True)
    where = "command line: tiny/scorer: no scorer here."
    assert error_message("generate", "--model", "tiny", "-n", "1", "--steps", "2").startswith(where)
