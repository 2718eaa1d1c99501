import json
import math

import pytest
import torch

from dlmctl.annotators.scorer import load_scorer, sequence_nats
from dlmctl.checkpoint.scorer import save_scorer
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.metrics.lm_score import lm_score, mean_nats
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.scorer import ScorerSizes, build_scorer

CORPUS = ["a grey heron stands still .".split(), "two herons fly .".split()]


@pytest.fixture
def tokenizer():
    return WordTokenizer.from_corpus(CORPUS, min_count=1)


@pytest.fixture
def scorer(tokenizer):
    torch.manual_seed(0)
    return build_scorer(ScorerSizes(length=10, hidden=16, layers=1, heads=2, dropout=0.5), tokenizer)


def test_is_minus_log_p_of_words_and_end_by_hand(scorer, tokenizer):
    scorer.eval()
    ids = tokenizer.encode(CORPUS[1])
    with torch.no_grad():
        log_p = scorer(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(log_p[at, ids[at + 1]].item() for at in range(len(ids) - 1)) / (len(ids) - 1)
    assert lm_score(scorer, tokenizer, CORPUS[1:]) == pytest.approx([by_hand], abs=1e-5)


def test_a_model_that_knows_nothing_scores_log_of_the_vocabulary(scorer, tokenizer):
    for parameter in scorer.parameters():
        parameter.data.zero_()
    assert lm_score(scorer, tokenizer, [*CORPUS, []]) == pytest.approx([math.log(len(tokenizer))] * 3)


def test_scores_do_not_depend_on_company_or_dropout(scorer, tokenizer):
    scorer.train()
    together = lm_score(scorer, tokenizer, CORPUS)
    alone = [lm_score(scorer, tokenizer, [words])[0] for words in CORPUS]
    assert together == pytest.approx(alone, abs=1e-5)


def test_many_sentences_come_back_in_their_order(scorer, tokenizer, monkeypatch):
    monkeypatch.setattr("dlmctl.annotators.scorer.BATCH_POSITIONS", 16)
    sentences = [CORPUS[0][:n] for n in (3, 6, 0, 1, 5, 2)]
    expected = [lm_score(scorer, tokenizer, [words])[0] for words in sentences]
    assert lm_score(scorer, tokenizer, sentences) == pytest.approx(expected, abs=1e-5)


def test_words_outside_the_vocabulary_count_as_unk(scorer, tokenizer):
    assert lm_score(scorer, tokenizer, [["zebra"]]) == lm_score(scorer, tokenizer, [["quagga"]])


def test_padding_costs_nothing(scorer, tokenizer):
    ids = tokenizer.encode(CORPUS[1])
    padded = torch.tensor([[*ids, tokenizer.pad_id, tokenizer.pad_id]])
    nats = sequence_nats(scorer.eval(), padded, tokenizer.pad_id)
    assert nats[0, -2:].tolist() == [0.0, 0.0]
    assert (nats[0, :-2] > 0).all()


def test_the_longest_readable_sentence_is_read_and_a_longer_one_refused(scorer, tokenizer):
    assert len(lm_score(scorer, tokenizer, [["a"] * 8])) == 1
    with pytest.raises(DataError, match="sentence 2 has 9 words"):
        lm_score(scorer, tokenizer, [["a"], ["a"] * 9])


def test_mean_weighs_by_tokens_with_end():
    assert mean_nats([1.0, 2.0], [["a"], ["a", "b", "c"]]) == pytest.approx((1.0 * 2 + 2.0 * 4) / 6)
    with pytest.raises(DataError):
        mean_nats([], [])


def test_saved_and_loaded_scores_differ_by_less_than_a_thousandth(scorer, tokenizer, tmp_path):
    before = lm_score(scorer, tokenizer, CORPUS)
    save_scorer(scorer, tokenizer, tmp_path / "scorer")
    loaded, words = load_scorer(tmp_path / "scorer")
    assert next(loaded.parameters()).dtype == scorer.dtype == torch.float32
    assert lm_score(loaded, words, CORPUS) == pytest.approx(before, abs=1e-3)
    assert not list((tmp_path / "scorer").glob("*.bin"))


def test_a_full_disk_leaves_the_scorer_that_was_there(scorer, tokenizer, tmp_path, monkeypatch):
    save_scorer(scorer, tokenizer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WordTokenizer, "save", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\. Existing files are unchanged"):
        save_scorer(build_scorer(ScorerSizes(length=8, hidden=8, layers=1, heads=2), tokenizer), tokenizer, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_loaded_scorer_computes_what_transformers_does(scorer, tokenizer, tmp_path):
    with torch.no_grad():
        for weight in scorer.parameters():
            weight.copy_(weight.half())  # as it is saved
    save_scorer(scorer, tokenizer, tmp_path)
    ids = torch.tensor([[0, 5, 4, 6, 5], [0, 4, 4, 4, 1]])
    with torch.no_grad():
        found, expected = load_scorer(tmp_path)[0](ids).logits, scorer.eval()(input_ids=ids).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_missing_damaged_and_mismatched_folders_are_said(scorer, tokenizer, tmp_path):
    with pytest.raises(ModelError, match="no scorer"):
        load_scorer(tmp_path / "nowhere")
    save_scorer(scorer, tokenizer, tmp_path)
    WordTokenizer.from_corpus(CORPUS[1:], min_count=1).save(tmp_path)
    with pytest.raises(ModelError, match=r"vocab\.json"):
        load_scorer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="damaged"):
        load_scorer(tmp_path)


def test_a_scorer_without_words_has_those_of_the_model_around_it(scorer, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    save_scorer(scorer, tokenizer, tmp_path / "scorer")
    own = load_scorer(tmp_path / "scorer")
    load_scorer.cache_clear()
    (tmp_path / "scorer" / "vocab.json").unlink()
    config = tmp_path / "scorer" / "config.json"
    settings = json.loads(config.read_text("utf-8"))
    del settings["digests"]["vocab.json"]
    config.write_text(json.dumps(settings), "utf-8")
    assert lm_score(*load_scorer(tmp_path / "scorer"), CORPUS) == lm_score(*own, CORPUS)
    load_scorer.cache_clear()
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"vocab\.json"):
        load_scorer(tmp_path / "scorer")
