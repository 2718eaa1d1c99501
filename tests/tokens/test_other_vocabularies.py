"""Data of another tokenizer are refused even where it has as many tokens: its ids would mean other things."""

import json

import pytest

from controls import Classifier
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import DataError
from dlmctl.evaluation.nll import read_texts
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from tests.tokens.test_tokens import of_words
from tests.tokens.tokenizers_of_all_kinds import model_of


@pytest.fixture
def model(tmp_path):
    of_bytes, folder = model_of("bytes"), tmp_path / "model"
    save_pretrained(of_bytes.model, of_bytes.tokenizer, folder)
    return from_pretrained(folder)


@pytest.fixture
def data(model, tmp_path):
    words = [f"w{at}" for at in range(len(model.tokenizer) - 4)]
    other = of_words(words, tmp_path / "other")
    assert len(other) == len(model.tokenizer)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"w{at} w2 w3", "kind": "ab"[at % 2]}) for at in range(20)))
    prepare(texts, texts, tmp_path / "data", tokenizer=other, length=32)
    return tmp_path / "data"


def test_train_control_refuses_them(model, data, tmp_path):
    with pytest.raises(DataError, match="a vocabulary other than the model's"):
        train_control(Classifier, model, LoopConfig(steps=1), data, tmp_path / "run", label="kind")
    assert not (tmp_path / "run" / "state.pt").exists()


def test_nll_refuses_them(model, data):
    with pytest.raises(DataError, match="has a vocabulary other than the model's"):
        read_texts(data, model)
