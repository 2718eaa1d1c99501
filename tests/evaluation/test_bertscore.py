"""BERTScore on an untrained encoder of five words: the arithmetic, not the judgement."""

import pytest
import torch

from dlmctl.errors import ModelError
from dlmctl.metrics.bertscore import bert_score


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cats", "sleep", "dogs", "bark", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def test_a_text_is_as_near_as_can_be_to_itself(encoder):
    same, other = bert_score(["cats sleep.", "cats sleep."], [["dogs bark.", "cats sleep."], ["dogs bark."]], encoder)
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < 0.99


def test_the_score_is_the_f1_of_nearest_tokens(encoder):
    """Layer 0 is the word embeddings with their positions, so it can be worked out by hand."""
    from transformers import BertModel

    table = BertModel.from_pretrained(encoder).eval().embeddings(torch.tensor([[2, 5, 6, 3], [2, 7, 6, 3]]))[:, 1:3]
    found, wanted = torch.nn.functional.normalize(table, dim=-1)
    alike = (found @ wanted.T).detach()
    precision, recall = alike.max(1).values.mean(), alike.max(0).values.mean()
    expected = (2 * precision * recall / (precision + recall)).item()
    assert bert_score(["cats sleep"], [["dogs sleep"]], encoder, layer=0) == [pytest.approx(expected, abs=1e-5)]


def test_empty_texts_score_nothing(encoder):
    assert bert_score([""], [["cats"]], encoder) == [0.0]


def test_a_missing_encoder_or_layer_is_said(encoder, tmp_path):
    with pytest.raises(ModelError, match="BERTScore needs one on disk"):
        bert_score(["a"], [["b"]], tmp_path)
    with pytest.raises(ModelError, match="has 2 layers, not 17"):
        bert_score(["a"], [["b"]], encoder, layer=17)
