"""Hub names: the cache takes precedence, and without a network there is one message, soon."""

import threading

import pytest

from dlmctl.checkpoint import resolve as resolving
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.errors import ModelError


def test_a_model_in_the_cache_needs_no_network(hub_model):
    assert from_pretrained("someone/a-model").folder == hub_model


def test_a_download_that_was_interrupted_goes_on(hub_model):
    next(hub_model.glob("model-00002*")).unlink()
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
