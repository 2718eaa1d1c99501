"""Where the weights of controls are stored, and that they are refused for models that they were not trained on."""

import json

import pytest
import torch

from controls.pos import Pos
from dlmctl.checkpoint import bundled, control_weights
from dlmctl.checkpoint.control_weights import (
    check_control_weights,
    control_folders,
    embedding_digest,
    find_control_folder,
    new_control_folder,
    save_control_weights,
)
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.weights import load_into
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError, UserError
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's data folder."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, **_: tmp_path / "home" / name)
    return tmp_path / "home" / "dlmctl"


@pytest.fixture
def pretrained(tokenizer, tmp_path):
    torch.manual_seed(1)
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, tmp_path / "data" / "tiny")
    return from_pretrained(tmp_path / "data" / "tiny")


def save(pretrained, folder):
    classifier = Pos.Labels().build_classifier(pretrained.model.config, pretrained.tokenizer)
    save_control_weights(classifier.state_dict(), folder, pretrained.model, {"control": "pos"}, {"labels.json": ["x"]})
    return classifier


def test_weights_come_back_with_their_labels_and_card(pretrained):
    folder = new_control_folder(pretrained.folder, pretrained.model, "pos")
    assert folder == pretrained.folder / "controls" / "pos"
    assert find_control_folder(pretrained.folder, pretrained.model, "pos") is None
    saved = save(pretrained, folder)
    assert find_control_folder(pretrained.folder, pretrained.model, "pos") == folder
    loaded = Pos.Labels().build_classifier(pretrained.model.config, pretrained.tokenizer)
    load_into(loaded, folder)
    check_control_weights(folder, pretrained.model)
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))
    assert json.loads((folder / "labels.json").read_text()) == ["x"]
    assert json.loads((folder / "card.json").read_text())["control"] == "pos"


@pytest.mark.parametrize("name", ["model.safetensors", "labels.json"])
def test_files_of_two_trainings_do_not_mix(pretrained, name, tmp_path):
    save(pretrained, tmp_path / "pos")
    save(pretrained, tmp_path / "other")
    content = (tmp_path / "other" / name).read_bytes()
    (tmp_path / "pos" / name).write_bytes(content if name == "model.safetensors" else content + b" ")
    with pytest.raises(ModelError, match=rf"{name}: is not the file that was saved here.*card\.json"):
        check_control_weights(tmp_path / "pos", pretrained.model)


def test_weights_of_an_earlier_state_of_the_model_are_refused(pretrained, tmp_path):
    save(pretrained, tmp_path / "pos")
    check_control_weights(tmp_path / "pos", pretrained.model)
    pretrained.model.embedding.weight.data += 0.1
    with pytest.raises(ModelError, match="trained on word embeddings other than the model"):
        check_control_weights(tmp_path / "pos", pretrained.model)


def test_a_model_in_half_precision_keeps_its_controls(pretrained, tmp_path):
    save_pretrained(pretrained.model, pretrained.tokenizer, tmp_path / "half", dtype=torch.float16)
    assert embedding_digest(from_pretrained(tmp_path / "half").model) == embedding_digest(pretrained.model)


def test_embeddings_are_read_again_only_if_they_have_changed(pretrained, monkeypatch):
    """Those of a large model take seconds, and every batch asks for their digest."""
    read = []
    of_table = control_weights._half_precision_digest
    monkeypatch.setattr(control_weights, "_half_precision_digest", lambda table: (read.append(1), of_table(table))[1])
    model = pretrained.model.requires_grad_(False)
    digests = [embedding_digest(model), embedding_digest(model)]
    model.embedding_table.add_(1)
    digests += [embedding_digest(model), embedding_digest(model)]
    assert digests == [digests[0]] * 2 + [of_table(model.embedding_table)] * 2
    assert digests[0] != digests[2]
    assert len(read) == 2


def test_a_card_of_an_earlier_version_passes(pretrained, tmp_path):
    save(pretrained, tmp_path / "pos")
    (tmp_path / "pos" / "card.json").write_text('{"control": "pos"}')
    check_control_weights(tmp_path / "pos", pretrained.model)
    (tmp_path / "pos" / "card.json").unlink()
    check_control_weights(tmp_path / "pos", pretrained.model)


def test_weights_for_a_bundled_model_go_to_the_user_and_are_found_again(pretrained, home, monkeypatch):
    monkeypatch.setattr(bundled, "PACKAGE", pretrained.folder.parents[1] / "dlmctl")  # a checkout with this model
    folder = new_control_folder(pretrained.folder, pretrained.model, "pos", "mine")
    assert folder.is_relative_to(home / "controls")
    assert folder.parts[-2:] == ("pos", "mine")
    save(pretrained, folder)
    assert not (pretrained.folder / "controls").exists()
    assert find_control_folder(pretrained.folder, pretrained.model, "pos", "mine") == folder
    save(pretrained, pretrained.folder / "controls" / "pos" / "mine")  # what ships with a model goes first
    weights_folder = find_control_folder(pretrained.folder, pretrained.model, "pos", "mine")
    assert weights_folder == pretrained.folder / "controls" / "pos" / "mine"
    # A model of the same name with other words has a folder of its own.
    other = DiffusionLM(pretrained.model.config)
    assert control_folders(pretrained.folder, other, "pos", "mine")[1] != folder


def test_a_model_that_cannot_be_written_to_leaves_its_weights_with_the_user(pretrained, home, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert new_control_folder(pretrained.folder, pretrained.model, "pos").is_relative_to(home)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_a_name_is_not_a_path(pretrained, name):
    with pytest.raises(UserError, match="cannot be the name of weights"):
        new_control_folder(pretrained.folder, pretrained.model, "pos", name)
