"""Saving and loading models: a round trip is exact, and every invalid folder gives one message."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dlmctl.checkpoint import resolve as resolving
from dlmctl.checkpoint.pretrained import FORMAT, from_pretrained, save_pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.weights import MAX_SHARD_BYTES, load_into, load_weights, save_weights
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError, UserError


@pytest.fixture
def model(pretrained):
    torch.manual_seed(1)
    return DiffusionLM(pretrained.model.config)


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    save_pretrained(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def safetensors_names(path):
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def fault(folder, device="cpu"):
    with pytest.raises(ModelError) as caught:
        from_pretrained(folder, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_model_comes_back(model, folder, tokenizer):
    loaded = from_pretrained(folder)
    assert equal(loaded.model.state_dict(), model.state_dict())
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert loaded.tokenizer.vocabulary == tokenizer.vocabulary
    assert loaded.folder == folder


def test_half_precision_files_are_half_as_large_and_load_as_float32(model, tokenizer, folder, tmp_path):
    save_pretrained(model, tokenizer, tmp_path / "half", dtype=torch.float16)
    sizes = [(place / "model.safetensors").stat().st_size for place in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    state = from_pretrained(tmp_path / "half").model.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert equal(state, {name: tensor.half().float() for name, tensor in model.state_dict().items()})


def test_no_file_reaches_16_mib(tmp_path):
    state = {f"layer{n}": torch.full((1024, 1024), float(n)) for n in range(9)}  # 4 MiB each
    save_weights(state, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 3
    assert all(path.stat().st_size < 16 * 2**20 for path in files)
    assert MAX_SHARD_BYTES < 16 * 2**20
    assert equal(load_weights(tmp_path), state)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for name, place in index["weight_map"].items():
        with safe_open(tmp_path / place, framework="pt") as file:
            assert name in file.keys()  # noqa: SIM118


def test_a_tensor_larger_than_a_shard_has_a_file_of_its_own(tmp_path):
    state = {"small": torch.ones(2), "large": torch.ones(100), "last": torch.ones(3)}
    save_weights(state, tmp_path, max_shard_bytes=40)
    files = [path for path in tmp_path.glob("*.safetensors") if "large" in safetensors_names(path)]
    assert safetensors_names(*files) == ["large"]
    assert equal(load_weights(tmp_path), state)


def test_tied_and_strided_tensors_and_integers_are_kept(tmp_path):
    table = torch.arange(12.0).reshape(3, 4)
    state = {"a": table, "b": table, "turned": table.T, "count": torch.tensor(7)}
    save_weights(state, tmp_path)
    assert equal(load_weights(tmp_path), state)


def test_saving_again_leaves_no_outdated_weights(model, tokenizer, folder):
    (folder / "notes.txt").write_text("mine")
    save_weights({"x": torch.ones(1)}, folder / "controls" / "pos")
    save_pretrained(model, tokenizer, folder, max_shard_bytes=10_000)
    assert not (folder / "model.safetensors").exists()
    assert equal(from_pretrained(folder).model.state_dict(), model.state_dict())
    save_pretrained(model, tokenizer, folder)
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert load_weights(folder / "controls" / "pos")["x"] == 1
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_model_that_was_there(model, tokenizer, folder, monkeypatch, error):
    before = model.state_dict()
    written = 0

    def full(*_arguments):
        nonlocal written
        written += 1
        if written == 2:
            raise error
        return b"{}"

    monkeypatch.setattr("safetensors.torch.save", full)
    other = DiffusionLM(model.config)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        save_pretrained(other, tokenizer, folder, max_shard_bytes=10_000)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert str(folder) in str(caught.value)
    assert equal(from_pretrained(folder).model.state_dict(), before)
    assert not list(folder.glob(".*"))


def test_a_folder_that_cannot_be_made_is_said(model, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_pretrained(model, tokenizer, tmp_path / "file" / "model")


# What can be wrong with a folder.


@pytest.mark.parametrize("inside", ["", "model"])
def test_a_folder_that_may_not_be_entered_is_not_called_missing(tmp_path, monkeypatch, inside):
    lstat, locked = os.lstat, tmp_path / "locked"
    (locked / inside).mkdir(parents=True)

    def denied(path, **options):  # permissions do not bind the superuser, who may run the tests
        if locked in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path, **options)

    monkeypatch.setattr("os.lstat", denied)
    with pytest.raises(ModelError) as caught:
        resolve(locked / inside)
    assert str(caught.value) == f"{locked / inside}: cannot be read: Permission denied."


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"", "config.json: cannot be read"),
        ("config.json", b"{", "config.json: cannot be read"),
        ("config.json", b"\xff\xfe", "config.json: cannot be read"),
        ("config.json", b"[]", "config.json: must hold a JSON object"),
        ("config.json", b'{"hidden": 8}', "config.json: is not the configuration of a dlmctl model"),
        ("vocab.json", b"", "vocab.json: cannot be read"),
        ("vocab.json", b'{"START": "zero"}', "vocab.json: must hold a JSON object"),
        ("vocab.json", b'{"START": 0, "END": 1, "UNK": 2}', "vocab.json: the vocabulary lacks PAD"),
        ("model.safetensors", b"", "model.safetensors: is damaged or cut short"),
        ("model.safetensors", b"\x80\x04pickle", "model.safetensors: is damaged or cut short"),
    ],
)
def test_damaged_files_are_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    assert message in fault(folder)


def test_weights_cut_short_are_found(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "model.safetensors: is damaged or cut short" in fault(folder)


@pytest.mark.parametrize("name", ["vocab.json", "model.safetensors"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    assert name in fault(folder)
    assert "missing" in fault(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dlmctl_format": FORMAT + 1}, "newer dlmctl"),
        ({"vocab_size": 99}, "the tokeniser has 24 entries, config.json says 99"),
        ({"embed_dim": "wide"}, "embed_dim: Input should be a valid integer"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"length": 500}, "config.json: length is 500, but the denoiser has max_length 32"),
        ({"denoiser": {"hidden": 32, "heads": 5}}, "heads (5) must divide hidden (32)"),
        ({"embed_dim": 12}, "'embedding.weight' has the shape [24, 8], not [24, 12]"),
        ({"objective": "paper"}, "'rounding_bias' is missing"),
    ],
)
def test_configurations_that_do_not_fit_are_said(folder, changes, message):
    edit(folder / "config.json", **changes)
    assert message in fault(folder)


def test_a_tensor_without_a_place_is_named(folder, model):
    save_weights({**model.state_dict(), "more": torch.ones(1)}, folder)
    assert "'more' has no place in this model" in fault(folder)


def test_shards_that_do_not_belong_together_are_found(model, tokenizer, folder, tmp_path):
    save_pretrained(model, tokenizer, folder, max_shard_bytes=10_000)
    torch.manual_seed(2)
    save_pretrained(DiffusionLM(model.config), tokenizer, tmp_path / "other", max_shard_bytes=10_000)
    first = min(folder.glob("model-*.safetensors")).name
    (folder / first).rename(tmp_path / "kept")
    assert f"{first}: is missing, though model.safetensors.index.json names it" in fault(folder)
    shutil.copy(tmp_path / "other" / first, folder)
    assert "different saves" in fault(folder)
    shutil.copy(tmp_path / "kept", folder / first)
    index = folder / "model.safetensors.index.json"
    for content, message in (
        ({"weight_map": {"embedding.weight": "../../secret.safetensors"}}, "must name the file"),
        ({"weight_map": {"no.such": first}}, "names 'no.such', which its file does not hold"),
        ({}, "must name the file"),
    ):
        index.write_text(json.dumps(content))
        assert message in fault(folder)


def test_weights_of_a_control_load_into_its_module_only(tmp_path):
    save_weights(torch.nn.Linear(3, 2).state_dict(), tmp_path, "head")
    module = torch.nn.Linear(3, 2)
    load_into(module, tmp_path, "head")
    assert torch.equal(module.weight, load_weights(tmp_path, "head")["weight"])
    with pytest.raises(ModelError, match=r"'bias' has no place"):
        load_into(torch.nn.Linear(3, 2, bias=False), tmp_path, "head")


# Names.


def test_folders_win_over_bundled_names(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(resolving, "bundled_path", lambda _kind, name: tmp_path / "shipped" if name == "mine" else None)
    assert resolve("mine") == tmp_path / "shipped"
    monkeypatch.chdir(tmp_path)
    folder.rename("mine")
    assert resolve("mine").resolve() == tmp_path / "mine"


@pytest.mark.parametrize(
    "name", ["", ".", "model/vocab.json", "modle", "nowhere/at/all", "~no-such-user/model", "a\0b"]
)
def test_what_is_no_model_is_said_with_a_hint(folder, monkeypatch, name):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelError) as caught:
        resolve(name)
    assert "model" in str(caught.value)
    if name == "modle":
        assert "Did you mean 'model'?" in str(caught.value)


def test_a_hub_name_without_a_network_is_one_message(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"the hub cannot be reached.*hf download nobody/no-model") as caught:
        resolve("nobody/no-model")
    assert "\n" not in str(caught.value)
