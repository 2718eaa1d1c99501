"""The model that reads another model's texts: which names are followed, and what is said of others."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.describe import describe
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.reader import name_of_reader, named_reader, pass_reader_on, write_reader
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import ModelError
from dlmctl.metrics.acceptability import read_judge, reader_of
from dlmctl.text.tokenizer import WordTokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    words = WordTokenizer.from_corpus([["a", "b"]], 1, "penn")
    sizes = {"hidden": 8, "layers": 1, "heads": 1, "inner": 8, "max_length": 8}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(MaskedLM(MaskedConfig(length=8, denoiser=sizes, vocab_size=len(words))), words, folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return from_pretrained(shutil.copytree(saved, tmp_path / "own"))


def add_weights(folder):
    """Files that pass for acceptability weights as long as nobody loads them."""
    place = folder / "controls" / "acceptability"
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.safetensors").write_bytes(b"")


def test_a_bundled_name_and_an_absolute_path_are_followed(model, saved, tmp_path, monkeypatch):
    assert named_reader(model) is None
    write_reader(model.folder, str(saved))
    assert named_reader(model) == saved
    shutil.copytree(saved, tmp_path / "everyday")  # not the model that was meant
    monkeypatch.chdir(tmp_path)
    write_reader(model.folder, "everyday")
    assert named_reader(model) == bundled_path("models", "everyday")
    assert name_of_reader(bundled_path("models", "everyday")) == "everyday"
    assert name_of_reader(tmp_path / "everyday") == str((tmp_path / "everyday").resolve())


@pytest.mark.parametrize("name", ["someone/model", "tiny", ".", "", "/a\0b", "~/model", 3, None, ["everyday"]])
def test_other_names_are_not_looked_for(model, saved, monkeypatch, name):
    monkeypatch.chdir(saved.parent)  # where `tiny` is a model
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: pytest.fail("uses the network"))
    write_reader(model.folder, name)
    with pytest.raises(ModelError, match=r"reader.json: reader must be a bundled model or the absolute path"):
        reader_of(model, torch.device("cpu"))


@pytest.mark.parametrize("name", ["gone", "x" * 5000])
def test_a_reader_that_was_moved_is_said_with_the_file_that_names_it(model, tmp_path, name):
    write_reader(model.folder, str(tmp_path / name))
    said = r"reader.json: names the model that reads the texts, and it is not there \(any more\): /"
    with pytest.raises(ModelError, match=said):
        named_reader(model)
    facts, _ = describe(str(model.folder))
    assert "names the model that reads the texts" in facts["acceptability"]


def test_info_says_who_reads(model, saved):
    write_reader(model.folder, str(saved))
    assert describe(str(model.folder))[0]["acceptability"] == f"texts are read by {saved.resolve()}"
    add_weights(model.folder)
    assert describe(str(model.folder))[0]["acceptability"] == "learned from readers' verdicts"


def test_a_model_that_has_learned_since_is_the_reader_of_those_made_from_it(model, saved, tmp_path):
    write_reader(model.folder, str(tmp_path / "gone"))
    add_weights(model.folder)
    other = from_pretrained(shutil.copytree(saved, tmp_path / "other"))
    pass_reader_on(model, other.folder)
    assert named_reader(other) == model.folder
    assert reader_of(other, torch.device("cpu")).folder == model.folder


def test_models_that_are_moved_together_find_each_other(model, saved, tmp_path, monkeypatch):
    reader = from_pretrained(shutil.copytree(saved, tmp_path / "runs" / "reader"))
    add_weights(reader.folder)
    tuned = shutil.copytree(saved, tmp_path / "runs" / "tuned" / "model")
    pass_reader_on(reader, tuned)
    monkeypatch.chdir(saved.parent)
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = from_pretrained(tmp_path / "moved" / "tuned" / "model")
    assert named_reader(moved) == tmp_path / "moved" / "reader"
    (tmp_path / "link").symlink_to(moved.folder)
    assert named_reader(from_pretrained(tmp_path / "link")) == tmp_path / "moved" / "reader"
    (tmp_path / "moved" / "reader").rename(tmp_path / "reader")
    with pytest.raises(ModelError, match=r"it is not there \(any more\): .*runs.reader. Put it back, correct the path"):
        named_reader(moved)
    shutil.copytree(tmp_path / "reader", tmp_path / "runs" / "reader")  # the place that was meant comes first
    shutil.copytree(tmp_path / "reader", tmp_path / "moved" / "reader")
    assert named_reader(moved) == tmp_path / "runs" / "reader"


@pytest.mark.parametrize("relative", ["/", "gone", "x" * 5000, "a\0b", 3, None])
def test_a_path_that_leads_to_no_other_model_is_not_followed(model, tmp_path, relative):
    write_reader(model.folder, str(tmp_path / "gone"), relative)
    with pytest.raises(ModelError, match="it is not there"):
        reader_of(model, torch.device("cpu"))


def test_two_models_do_not_read_for_each_other(model, saved, tmp_path):
    other = from_pretrained(shutil.copytree(saved, tmp_path / "other"))
    write_reader(model.folder, str(other.folder))
    write_reader(other.folder, str(model.folder))
    with pytest.raises(ModelError, match="other: is not a masked model that reads texts itself"):
        reader_of(model, torch.device("cpu"))
    write_reader(model.folder, str(model.folder))
    with pytest.raises(ModelError, match="own: is not a masked model that reads texts itself"):
        reader_of(model, torch.device("cpu"))


@pytest.mark.parametrize("contents", ["[]", '{"reader": ', "[" * 5000, "x" * (17 << 20)])
def test_a_damaged_file_is_one_message(model, contents):
    write_reader(model.folder, "everyday")
    (model.folder / "controls" / "acceptability" / "reader.json").write_text(contents)
    with pytest.raises(ModelError, match=r"reader.json: (cannot be read|must hold)"):
        named_reader(model)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_is_not_waited_for(model):
    place = model.folder / "controls" / "acceptability"
    place.mkdir(parents=True)
    os.mkfifo(place / "reader.json")
    assert named_reader(model) is None


def test_another_model_s_weights_are_nothing_to_start_from(model, saved):
    write_reader(model.folder, str(saved))
    with pytest.raises(ModelError, match="has no acceptability weights of its own: another model reads its texts"):
        read_judge(model, model.model)


def test_the_file_is_plain(model, saved):
    write_reader(model.folder, str(saved))
    path = model.folder / "controls" / "acceptability" / "reader.json"
    assert json.loads(path.read_text("utf-8")) == {"reader": str(saved)}
