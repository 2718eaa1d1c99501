"""Damaged or malicious model folders: each gives one short message, and nothing is allocated or run."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load, save_file
from typer.testing import CliRunner

from controls.judged_labels import JudgedLabels
from controls.ngrams import NgramJudge
from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.describe import describe
from dlmctl.checkpoint.original import load_original
from dlmctl.checkpoint.original.save import original_weights
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.scorer import save_scorer
from dlmctl.checkpoint.weights import save_weights
from dlmctl.cli import app
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from dlmctl.training.scorer import ScorerSizes, build_scorer
from tests.conftest import tiny_config
from tests.original.conftest import config as original_config
from tests.original.conftest import write_checkpoint

HUGE = 10**9
DEEP = '{"a":' * 200_000 + "1" + "}" * 200_000


@pytest.fixture(autouse=True)
def _no_hang():
    """Fail tests that wait for a pipe or count to 10^9, instead of blocking the suite."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still at it after 20 seconds"))
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.fixture
def folder(tokenizer, tmp_path):
    torch.manual_seed(1)
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("A model.")
    return tmp_path / "model"


def fault(load, *arguments):
    with pytest.raises(ModelError) as caught:
        load(*arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def edit(path, *keys, value):
    """Set the value under ``keys`` in a JSON file."""
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))


# What can stand in the place of a file.
KINDS = {
    "a pipe": (os.mkfifo, "it is a pipe or a device"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a pipe or a device"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
    "Latin-1": (lambda path: path.write_bytes(b'{"caf\xe9": 1}'), "it is not UTF-8"),
    "a loop of links": (lambda path: path.symlink_to(path), "cannot be read"),
    "a huge file": (lambda path: path.touch() or os.truncate(path, 2**40), "1,048,576 MiB"),
}
JSON_KINDS = KINDS | {
    "nested deep": (lambda path: path.write_text(DEEP), "nested more than 64 deep"),
    "nested 100 deep": (
        lambda path: path.write_text('{"a":' + "[" * 100 + "]" * 100 + "}"),
        "nested more than 64 deep",
    ),
    "a key twice": (lambda path: path.write_text('{"a": 1, "a": 2}'), "the key 'a' appears twice"),
    "a number without end": (lambda path: path.write_text('{"a": ' + "9" * 5000 + "}"), "cannot be read"),
}


@pytest.mark.parametrize("kind", JSON_KINDS)
@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.safetensors.index.json"])
def test_what_is_no_json_file(folder, name, kind):
    make, message = JSON_KINDS[kind]
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    found = fault(from_pretrained, folder)
    assert name in found
    assert message in found


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_that_is_no_text(folder, kind):
    make, message = KINDS[kind]
    (folder / "README.md").unlink()
    make(folder / "README.md")
    assert message in fault(describe, str(folder))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_weights_that_are_no_file(folder, kind):
    make, message = KINDS[kind]
    (folder / "model.safetensors").unlink()
    make(folder / "model.safetensors")
    assert message in fault(from_pretrained, folder)


# Sizes.


@pytest.mark.parametrize(
    "keys",
    [
        ("vocab_size",),
        ("length",),
        ("embed_dim",),
        ("schedule_steps",),
        ("source_vocab_size",),
        ("denoiser", "hidden"),
        ("denoiser", "layers"),
        ("denoiser", "heads"),
        ("denoiser", "feedforward"),
        ("denoiser", "max_length"),
        ("denoiser", "time_channels"),
    ],
)
@pytest.mark.parametrize("value", [HUGE, 10**18, -1, "many", [1], float("inf")])
def test_sizes_that_no_model_has(folder, keys, value):
    edit(folder / "config.json", *keys, value=value)
    assert keys[-1] in fault(from_pretrained, folder)


def test_sizes_within_bounds_that_the_weights_have_not_are_refused_before_memory_is_taken(folder):
    edit(folder / "config.json", "denoiser", "hidden", value=65_536)  # 200 GiB a layer
    edit(folder / "config.json", "denoiser", "layers", value=4)
    assert "has the shape" in fault(from_pretrained, folder)


@pytest.mark.parametrize("architecture", ["1d-unet", "conv-unet", "trans-unet"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("channels", HUGE), ("multipliers", [1] * 10_000), ("multipliers", [HUGE]), ("residual_blocks", HUGE)],
)
def test_sizes_of_the_u_shaped(folder, architecture, key, value):
    edit(folder / "config.json", "architecture", value=architecture)
    edit(folder / "config.json", "denoiser", value={key: value})
    assert key in fault(from_pretrained, folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("denoiser",), 5, "denoiser"),
        (("denoiser",), [[]], "denoiser"),
        (("x" * 100_000,), 1, "Extra inputs"),
        (("\x1b[31mred",), 1, "Extra inputs"),
        (("sentence_lengths",), [1e400], "sentence_lengths"),
        (("digests",), [1], "digests must give the SHA-256"),
        (("digests",), {"../../secret": "0"}, "digests must give the SHA-256"),
        (("digests",), {"gone.txt": "0"}, "gone.txt: is missing"),
    ],
)
def test_other_nonsense_in_a_configuration(folder, keys, value, message):
    edit(folder / "config.json", *keys, value=value)
    assert message in fault(from_pretrained, folder)


# Files that are whole but not those that were saved.


def flip_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(bytes(content))


def test_every_flipped_bit_of_the_weights_is_found(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for at in range(len(whole) // 2, len(whole), len(whole) // 16):
        flip_a_bit(folder / "model.safetensors", at)
        assert "model.safetensors" in fault(from_pretrained, folder)
        (folder / "model.safetensors").write_bytes(whole)
    from_pretrained(folder)


def test_swapped_words_are_found_and_a_change_that_is_meant_can_be_made(folder):
    words = json.loads((folder / "vocab.json").read_text())
    words["small"], words["warm"] = words["warm"], words["small"]
    (folder / "vocab.json").write_text(json.dumps(words))
    assert "vocab.json: is not the file that was saved here" in fault(from_pretrained, folder)
    digests = json.loads((folder / "config.json").read_text())["digests"]
    del digests["vocab.json"]
    edit(folder / "config.json", "digests", value=digests)
    assert from_pretrained(folder).tokenizer.vocabulary["small"] == words["small"]


def test_a_folder_of_an_earlier_version_loads(folder):
    settings = json.loads((folder / "config.json").read_text())
    del settings["digests"]
    (folder / "config.json").write_text(json.dumps({**settings, "dlmctl_format": 1}))
    from_pretrained(folder)


def not_finite(value):
    def change(state):
        state["embedding.weight"][3, 3] = value

    return change


def all_as(kind):
    def change(state):
        state.update({name: tensor.to(kind) for name, tensor in state.items()})

    return change


def only_zeros(state):
    state.update({name: torch.zeros_like(tensor) for name, tensor in state.items()})


WEIGHTS = {
    "NaN": (not_finite(float("nan")), "holds values that are not finite"),
    "infinity": (not_finite(-float("inf")), "holds values that are not finite"),
    "integers": (all_as(torch.int32), "is int32"),
    "booleans": (all_as(torch.bool), "is bool"),
    "zeros": (only_zeros, "every weight is zero"),
    "complex": (all_as(torch.complex64), "is complex"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.filterwarnings("ignore:.*complex")
def test_weights_that_are_no_weights(folder, kind):
    change, message = WEIGHTS[kind]
    state = load((folder / "model.safetensors").read_bytes())
    change(state)
    try:
        save_file(state, folder / "model.safetensors")
    except KeyError:
        pytest.skip("safetensors before 0.7 has no complex numbers")
    edit(folder / "config.json", "digests", value=None)
    assert message in fault(from_pretrained, folder)


# Checkpoints of the original.


@pytest.fixture
def theirs(tokenizer):
    torch.manual_seed(1)
    return original_weights(DiffusionLM(original_config()))


@pytest.fixture
def original(theirs, tokenizer, tmp_path):
    message = {"diffusion_steps": 2000, "noise_schedule": "sqrt", "predict_xstart": True}
    return write_checkpoint(tmp_path / "run", theirs, tokenizer, **message)


PT = "ema_0.9999_000100.pt"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diffusion_steps", HUGE),
        ("image_size", HUGE),
        ("image_size", float("inf")),
        ("image_size", "wide"),
        ("logits_mode", []),
        ("noise_schedule", []),
        ("model_arch", {}),
        ("dropout", "much"),
    ],
)
def test_arguments_that_no_run_has(original, name, value):
    edit(original / "training_args.json", name, value=value)
    fault(from_pretrained, original)


@pytest.mark.parametrize("kind", JSON_KINDS)
@pytest.mark.parametrize("name", ["training_args.json", "vocab.json"])
def test_a_json_file_of_the_original_that_is_none(original, name, kind):
    make, message = JSON_KINDS[kind]
    (original / name).unlink()
    make(original / name)
    assert message in fault(from_pretrained, original)


@pytest.mark.parametrize("kind", ["NaN", "integers", "booleans", "complex", "zeros"])
def test_weights_of_the_original_that_are_none(original, theirs, kind):
    change, message = WEIGHTS[kind]
    theirs["embedding.weight"] = theirs.pop("word_embedding.weight")  # the name that the changes know
    change(theirs)
    theirs["word_embedding.weight"] = theirs.pop("embedding.weight")
    torch.save(theirs, original / PT)
    assert message in fault(load_original, original)


def test_flipped_bits_of_the_original_are_found(original):
    expected, refused = load_original(original)[0].state_dict(), 0
    whole = (original / PT).read_bytes()
    for at in range(len(whole) // 8, len(whole) * 7 // 8, len(whole) // 32):
        flip_a_bit(original / PT, at)
        try:
            state = load_original(original)[0].state_dict()
        except ModelError as error:
            refused += PT in str(error)
        else:  # between the parts there is padding
            assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
        (original / PT).write_bytes(whole)
    assert refused >= 10


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_weights_of_the_original_that_are_no_file(original, kind):
    make, message = KINDS[kind]
    (original / PT).unlink()
    make(original / PT)
    assert message in fault(load_original, original)


class Opens:
    """An object whose unpickling creates a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_refused_in_our_own_words(original, tmp_path):
    torch.save({"word_embedding.weight": Opens(tmp_path / "opened")}, original / PT)
    message = fault(load_original, original)
    assert "files that would run code on loading are never read" in message
    assert "weights_only" not in message
    assert not (tmp_path / "opened").exists()


def test_a_checkpoint_of_the_original_without_its_arguments_says_what_it_is(original):
    (original / "training_args.json").unlink()
    message = fault(from_pretrained, original)
    assert "training_args.json: is missing: this is a checkpoint of the original Diffusion-LM" in message
    assert message == fault(load_original, original)
    result = CliRunner().invoke(app, ["info", str(original)])
    assert result.exit_code != 0


# Scorers.


@pytest.fixture
def scorer(tokenizer, tmp_path):
    torch.manual_seed(1)
    sizes = ScorerSizes(length=16, hidden=16, layers=1, heads=2)
    save_scorer(build_scorer(sizes, tokenizer), tokenizer, tmp_path / "scorer")
    return tmp_path / "scorer"


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "n_inner"])
@pytest.mark.parametrize("value", [HUGE, 0, "many"])
def test_sizes_that_no_scorer_has(scorer, name, value):
    edit(scorer / "config.json", name, value=value)
    assert f"{name} is {value!r}" in fault(load_scorer, scorer)


def test_sizes_that_the_weights_of_a_scorer_have_not(scorer):
    edit(scorer / "config.json", "n_embd", value=65_536)
    assert "has the shape" in fault(load_scorer, scorer)


@pytest.mark.parametrize("kind", JSON_KINDS)
@pytest.mark.parametrize("name", ["config.json", "vocab.json"])
def test_a_json_file_of_a_scorer_that_is_none(scorer, name, kind):
    make, message = JSON_KINDS[kind]
    (scorer / name).unlink()
    make(scorer / name)
    assert message in fault(load_scorer, scorer)


@pytest.mark.parametrize("change", ["NaN", "a tensor less", "another file", "other words", "other settings"])
def test_a_scorer_that_is_not_the_one_saved(scorer, change):
    state = load((scorer / "model.safetensors").read_bytes())
    if change == "NaN":
        state["transformer.ln_f.weight"][0] = float("nan")
    elif change == "a tensor less":
        del state["transformer.ln_f.weight"]
    elif change == "another file":
        state["transformer.ln_f.weight"][0] += 1
    elif change == "other words":
        words = json.loads((scorer / "vocab.json").read_text())
        words["small"], words["warm"] = words["warm"], words["small"]
        (scorer / "vocab.json").write_text(json.dumps(words))
    else:
        edit(scorer / "config.json", "n_head", value=3)
    save_file(state, scorer / "model.safetensors", {"format": "pt"})
    message = {"NaN": "not finite", "a tensor less": "ln_f.weight' is missing", "other settings": "not a multiple"}
    assert message.get(change, "is not the file that was saved here") in fault(load_scorer, scorer)


# Code that comes with a folder.


@pytest.fixture
def planted(tmp_path):
    """A folder whose files request that its own code be run, which would leave a file behind."""
    folder = tmp_path / "planted"
    folder.mkdir()
    mark = tmp_path / "it ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Theirs: pass\nclass TheirConfig: pass\n"
    (folder / "theirs.py").write_text(code)
    named = {"AutoConfig": "theirs.TheirConfig", "AutoModelForSequenceClassification": "theirs.Theirs"}
    config = {"model_type": "theirs", "auto_map": {**named, "AutoTokenizer": ["theirs.Theirs", None]}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "Theirs"}))
    return folder, mark


def refused(command, *arguments):
    """Run a command with yes to everything on standard input, and return its message for not running code."""
    result = CliRunner().invoke(app, [str(part) for part in (*command.split(), *arguments)], input="y\n" * 20)
    assert result.exit_code != 0
    message = f"{result.output} {result.exception}"
    assert "trust_remote_code" not in message
    return message


def test_code_with_the_tokenizer_of_a_model_never_runs(folder, planted):
    place, mark = planted
    (folder / "vocab.json").unlink()
    place.rename(folder / "tokenizer")
    assert "such code is never run" in refused("info", folder)
    assert not mark.exists()


def test_code_with_a_tokenizer_to_prepare_with_never_runs(planted, tmp_path):
    place, mark = planted
    (tmp_path / "texts.txt").write_text("a small dog\n" * 20)
    message = refused("data prepare", tmp_path / "texts.txt", "--out", tmp_path / "data", "--tokenizer", place)
    assert "such code is never run" in message
    assert not mark.exists()


def test_code_with_a_classifier_never_runs(folder, planted, tmp_path):
    place, mark = planted
    labels = JudgedLabels({"mood": ["glad", "sad"]}, NgramJudge([], {})).to_json()
    save_weights({"unused": torch.ones(1)}, folder / "controls" / "classifier")
    (folder / "controls" / "classifier" / "labels.json").write_text(json.dumps(labels))
    classifier = {"huggingface": str(place), "label": "glad"}
    recipe = {"model": str(folder), "samples": 1, "controls": [{"classifier": classifier}]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert "such code is never run" in refused("generate --recipe", tmp_path / "recipe.yaml")
    assert not mark.exists()


def test_a_pipe_in_the_folder_of_a_tokenizer(folder):
    (folder / "tokenizer").mkdir()
    os.mkfifo(folder / "tokenizer" / "tokenizer_config.json")
    assert "it is a pipe or a device" in fault(from_pretrained, folder)
