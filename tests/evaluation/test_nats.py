"""Fluency under any causal language model: nats a word, whatever its tokens are."""

import math

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.errors import DataError, ModelError
from dlmctl.metrics.nats import PER_TOKEN, PER_WORD, nats_of

LETTERS = sorted(set("The pub is cheap."))


@pytest.fixture(scope="module")
def outside_model(tmp_path_factory):
    """A model whose tokens are letters, all of them equally likely."""
    folder = tmp_path_factory.mktemp("letters")
    inner = Tokenizer(WordLevel({letter: at for at, letter in enumerate(["<s>", *LETTERS])}, unk_token="<s>"))
    inner.pre_tokenizer = Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>").save_pretrained(folder)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=1 + len(LETTERS), n_positions=64, n_embd=8, n_layer=1, n_head=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    return folder


def test_nats_of_all_tokens_are_shared_out_among_the_words(outside_model):
    nats = nats_of(from_pretrained("e2e"), outside_model)
    text = "The pub is cheap ."
    assert nats.unit == PER_WORD
    letters = len("The pub is cheap.")
    assert nats([text.split()]) == pytest.approx(letters * math.log(1 + len(LETTERS)) / 5)
    assert nats([text.split(), ["The"]]) == pytest.approx((letters + 3) * math.log(1 + len(LETTERS)) / 6)


def test_the_scorer_beside_the_model_is_the_default_and_may_be_given():
    pretrained = from_pretrained("e2e")
    own, given = nats_of(pretrained), nats_of(pretrained, pretrained.folder / "scorer")
    texts = ["The Eagle is a cheap pub .".split()]
    assert own.unit == given.unit == PER_TOKEN
    assert own(texts) == given(texts) > 0


def test_what_is_no_model_is_named(tmp_path, outside_model):
    with pytest.raises(ModelError, match="no such model"):
        nats_of(from_pretrained("e2e"), "no-such-folder")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no causal language model"):
        nats_of(from_pretrained("e2e"), tmp_path)
    with pytest.raises(DataError):
        nats_of(from_pretrained("e2e"), outside_model)([])
