"""Fluency under any causal language model: nats a word, whatever its tokens are."""

import json
import math
import shutil

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from controls import Length
from dlmctl.annotators.causal import load_causal
from dlmctl.annotators.reader import load_reader, load_word_reader
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.evaluation.control_success import evaluate_control
from dlmctl.generation.diagnose import load_model
from dlmctl.generation.generate import generate
from dlmctl.generation.identity import identity
from dlmctl.generation.scoring import load_scoring
from dlmctl.metrics.fluency import fluency_of
from dlmctl.metrics.nats import PER_TOKEN, PER_WORD, nats_of
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe
from tests.checkpoint.tiny_vendors import write_llada

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
    named, beside = nats_of(pretrained, "e2e"), nats_of(pretrained, pretrained.folder)
    assert {nats.unit for nats in (own, given, named, beside)} == {PER_TOKEN}
    assert own(texts) == given(texts) == named(texts) == beside(texts) > 0


def test_what_is_no_model_is_named(tmp_path, outside_model):
    with pytest.raises(ModelError, match="no such model"):
        nats_of(from_pretrained("e2e"), "no-such-folder")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no causal language model"):
        nats_of(from_pretrained("e2e"), tmp_path)
    with pytest.raises(DataError):
        nats_of(from_pretrained("e2e"), outside_model)([])


def test_texts_read_together_have_the_nats_that_each_has_alone(outside_model):
    other, texts = load_causal(str(outside_model)), ["The pub", "", "The pub is cheap.", "h"]
    together = other.token_nats(texts)
    assert [len(nats) for nats in together] == [len(text) for text in texts]
    assert together == [pytest.approx(nats) for nats in other.token_nats(texts, 1)]


def test_a_text_longer_than_the_model_reads_is_refused_or_cut(outside_model):
    reader = load_causal(str(outside_model))
    with pytest.raises(ModelError, match="a text has 101 tokens; this model reads up to 64"):
        reader.token_nats(["pub", "e" * 100])
    assert [len(nats) for nats in reader.token_nats(["pub", "e" * 100], cut=True)] == [3, 63]


def saved(outside_model, folder, kind=GPT2LMHeadModel, config=None):
    """A model with the tokeniser of letters."""
    config = config or GPT2Config(vocab_size=1 + len(LETTERS), n_positions=64, n_embd=8, n_layer=1, n_head=1)
    kind(config).save_pretrained(folder)
    shutil.copy(outside_model / "tokenizer.json", folder)
    shutil.copy(outside_model / "tokenizer_config.json", folder)
    return load_causal(str(folder))


def test_a_model_that_gives_no_probabilities_is_refused(outside_model, tmp_path, monkeypatch):
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    with pytest.raises(ModelError, match="also reads the words after a word"):
        saved(outside_model, tmp_path / "a", BertLMHeadModel, BertConfig(vocab_size=1 + len(LETTERS), **small))
    with pytest.raises(ModelError, match=f"its tokeniser has {1 + len(LETTERS)} tokens, the model 4"):
        saved(outside_model, tmp_path / "a", config=GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1))
    model, damaged = saved(outside_model, tmp_path / "sound").model, tmp_path / "damaged"
    shutil.copytree(tmp_path / "sound", damaged)
    state = model.state_dict()
    del state["transformer.wpe.weight"]
    model.save_pretrained(damaged, state_dict=state)
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, such as 'transformer.wpe.weight'"):
        load_causal(str(damaged))
    with torch.no_grad():
        model.transformer.wpe.weight.fill_(math.nan)
    model.save_pretrained(damaged)
    with pytest.raises(ModelError, match="computes NaN"):
        load_causal(str(damaged))
    (damaged / "model.safetensors").write_bytes(b"1234")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"^damaged: is no causal language model that can be read"):
        load_causal("damaged")


def test_a_model_is_held_once_however_it_is_named(outside_model, monkeypatch):
    monkeypatch.chdir(outside_model.parent)
    scored = from_pretrained("e2e").scored_by(outside_model)
    scoring = load_scoring(scored, second=outside_model.name)
    assert scoring.judge is scoring.second is load_word_reader(f"{outside_model}/../{outside_model.name}")


def test_texts_may_be_scored_by_another_model_than_their_own(outside_model, tmp_path):
    tokens = write_llada(tmp_path / "m")  # has no scorer
    asked = {"samples": 2, "sampler": {"new_tokens": 8}, "device": "cpu", "seed": 3}
    assert all(sample.fluency is None for sample in generate(Length(4), model=tokens, **asked))
    for sample in generate(Length(4), model=tokens, scorer="everyday", **asked):
        assert sample.fluency == fluency_of(load_reader("everyday"), [sample.words])[0]
    chosen = {"candidates": 4, "rank_by": "fluency"}
    ranked = generate(Length(4), model=tokens, scorer="everyday", **chosen, **asked).samples
    first = generate(Length(4), model=tokens, scorer="everyday", **asked).samples
    assert sum(sample.fluency.lm_score for sample in ranked) < sum(sample.fluency.lm_score for sample in first)


def test_a_causal_language_model_scores_words_but_the_first(outside_model):
    asked = {"model": "e2e", "samples": 3, "device": "cpu", "preset": "fast"}
    for sample in generate(Length(5), scorer=outside_model, **asked):
        letters = len(sample.text.replace(" ", "")) - len(sample.words[0])  # a space belongs to no word
        assert sample.fluency.lm_score == pytest.approx(letters * math.log(1 + len(LETTERS)) / 4)
        assert sample.fluency.worst_word == max(sample.words[1:], key=len)
    alone, beside = fluency_of(load_reader(outside_model), [["The"], ["is", "The"]], ["The", "is The"])
    assert alone.lm_score == pytest.approx(3 * math.log(1 + len(LETTERS))) == beside.lm_score
    for wrong in (5, ["everyday"], from_pretrained("e2e")):
        with pytest.raises(UserError, match="scorer: must be a folder or a name"):
            generate(model="e2e", samples=1, scorer=wrong)
    with pytest.raises(ModelError, match=r"acceptability weighs the figures of the model's own scorer.*`fluency`"):
        generate(model="everyday", samples=1, candidates=2, rank_by="acceptability", scorer=outside_model)


def test_targets_are_evaluated_with_the_scorer_of_the_recipe(tmp_path):
    model = from_pretrained(write_llada(tmp_path / "m"))
    recipe = Recipe(scorer="everyday", candidates=2, rank_by=["fluency"], sampler={"new_tokens": 6}, device="cpu")
    control = Length.each([{"words": 3}] * 2)
    assert evaluate_control(control, model, 2, settings=recipe)["lm_score"] > 0


def test_a_run_whose_draws_another_scorer_chooses_is_told_from_others(outside_model):
    text = "model: e2e\ncandidates: 2\nrank_by: [fluency]\n"
    digests = []
    for more in ([], ["scorer=e2e"], ["scorer=everyday"], [f"scorer={outside_model}"]):
        recipe, file = read_recipe(text, "mine.yaml", more)
        digests.append(json.dumps(identity(recipe, load_model(recipe, file))["scorer"]))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    reward = "model: e2e\nscorer: everyday\nsampler: {particles: 2, reward: lm_score}\n"
    recipe, file = read_recipe(reward, "mine.yaml")
    assert identity(recipe, load_model(recipe, file))["scorer"] is not None
    recipe, file = read_recipe(text + "scorer: no-such-model\n", "mine.yaml")
    with pytest.raises(UserError, match=r"mine.yaml:4.*no such model"):
        load_model(recipe, file)


def test_a_second_scorer_chooses_among_the_drafts(outside_model):
    """Letters are equally likely under it, so the nats that it gives count them: a text of fewer is preferred."""
    asked = {"model": "everyday", "samples": 4, "candidates": 6, "rank_by": ["fluency"], "seed": 5, "device": "cpu"}
    alone, both = (generate(Length(words=5), **asked, second_scorer=second).samples for second in (None, outside_model))
    for sample in both:
        letters = (len(sample.text) - 1) * math.log(1 + len(LETTERS))
        assert sample.fluency.second_nats == pytest.approx(letters / 6, rel=1e-5)
    assert [sample.text for sample in alone] != [sample.text for sample in both]
    assert sum(len(sample.text) for sample in both) < sum(len(sample.text) for sample in alone)
    assert all(sample.fluency.second_nats is None for sample in alone)


def test_a_run_whose_draws_the_scorer_chooses_among_is_not_continued_with_another():
    for text, depends in (("unique: true\nrank_by: [lm_score]", True), ("rank_by: [lm_score]", False)):
        recipe, _ = read_recipe(text, "mine.yaml", ["model=e2e"])
        assert (identity(recipe, from_pretrained("e2e"))["scorer"] is not None) == depends


def test_a_second_scorer_that_nothing_asks_is_refused(outside_model):
    with pytest.raises(UserError, match=r"second_scorer.*`fluency` only"):
        generate(model="e2e", samples=1, second_scorer=outside_model)
    with pytest.raises(UserError, match=r"mine.yaml.*second_scorer.*`fluency` only"):
        read_recipe("second_scorer: some/model\n", "mine.yaml")


def test_a_run_is_told_from_one_with_another_second_scorer(outside_model):
    text = "model: e2e\ncandidates: 2\nrank_by: [fluency]\n"
    scorers = [
        identity(read_recipe(text, "mine.yaml", more)[0], from_pretrained("e2e"))["files"]
        for more in ([], [f"second_scorer={outside_model}"], [f"second_scorer={outside_model}", "candidates=1"])
    ]
    assert [list(files) for files in scorers] == [[], [str(outside_model)], []]
