"""Hub names: the cache takes precedence, and without a network there is one message, soon."""

import threading

import pytest

from dlmctl.checkpoint import resolve as resolving
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from tests.conftest import tiny_config


def no_network(*_arguments, **_settings):
    raise AssertionError("the network was asked")


@pytest.fixture
def cached(tokenizer, tmp_path, monkeypatch):
    """The folder of a model in the hub's cache."""
    commit = "a" * 40
    repository = tmp_path / "hub" / "models--someone--a-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, folder, max_shard_bytes=10_000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    return folder


def test_a_model_in_the_cache_needs_no_network(cached):
    assert from_pretrained("someone/a-model").folder == cached


def test_a_download_that_was_interrupted_goes_on(cached):
    next(cached.glob("model-00002*")).unlink()
    with pytest.raises(ModelError, match="the network was asked"):
        resolve("someone/a-model")


def test_weights_that_torch_saved_are_asked_for_if_there_are_no_others(monkeypatch, tmp_path):
    asked = []

    def download(name, *, allow_patterns=(), local_files_only=False, **_):
        if local_files_only:
            raise OSError("nothing is cached")
        asked.append("pytorch_model.bin" in allow_patterns)
        (tmp_path / "config.json").write_text("{}")
        if asked[-1]:
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(resolving, "_require_on_hub", lambda name: None)
    assert resolve("someone/an-old-model") == tmp_path
    assert asked == [False, True]


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch, tmp_path):
    answer = threading.Event()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(resolving, "HUB_TIMEOUT", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: answer.wait(60))
    with pytest.raises(ModelError, match="the hub cannot be reached: no answer within") as caught:
        resolve("someone/a-model")
    answer.set()
    assert len(str(caught.value)) < 400
