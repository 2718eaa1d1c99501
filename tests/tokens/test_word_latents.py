"""Controls with a classifier on models of tokens: latents of words, trained and asked as such."""

import json

import pytest
import torch

from controls import Pos, SyntaxTree
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.word_latents import pool_words
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.text.spelling import split_words
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from dlmctl.training.counting import count_control
from tests.conftest import tiny_config
from tests.tokens.tokenizers_of_all_kinds import TEXTS, model_of, tokenizer_of


def test_words_are_means_over_their_tokens():
    tokenizer = tokenizer_of("bytes")
    ids = tokenizer.encode_text("The cheapest pub.")
    words = tokenizer.words(ids)
    assert words == ["The", "cheapest", "pub", "."]
    assert len(ids) - 2 > len(words)
    x = torch.randn(1, len(ids) + 3, 4)
    table = torch.randn(len(tokenizer), 4)
    row = torch.tensor([[*ids, *[tokenizer.pad_id] * 3]])
    found = pool_words(x, row, tokenizer, table)[0]
    texts = [tokenizer.strings[index] or b"" for index in ids]
    of_word = [at for at, text in enumerate(texts) if text.strip() and text.strip() in b"cheapest"]
    torch.testing.assert_close(found[0], x[0, 0])
    torch.testing.assert_close(found[2], x[0, of_word].mean(0))
    torch.testing.assert_close(found[5], table[tokenizer.end_id])
    torch.testing.assert_close(found[6:], table[tokenizer.pad_id].expand(len(found) - 6, -1))


def test_pos_is_trained_on_a_model_of_tokens_and_guides_it(tmp_path):
    corpus = tmp_path / "texts.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS * 2) + "\n", "utf-8")
    tokenizer = tokenizer_of("bytes")
    prepare(corpus, None, tmp_path / "data", tokenizer=tokenizer, length=32, unique=False)
    torch.manual_seed(0)
    config = tiny_config(len(tokenizer), sentence_lengths=[0] * 6 + [1] * 20)
    save_pretrained(DiffusionLM(config), tokenizer, tmp_path / "model")
    model = from_pretrained(tmp_path / "model")
    train_control(Pos, model, LoopConfig(steps=2, batch_positions=512), tmp_path / "data", tmp_path / "run")
    sampler = SamplerSettings(steps=2)
    (sample,) = generate(Pos(tags=["DET", "NOUN", "VERB"]), model=model, samples=1, sampler=sampler)
    assert len(sample.words) == 3


def test_pos_is_learned_for_a_masked_model_of_tokens_and_guides_it(tmp_path):
    corpus, tokenizer = tmp_path / "texts.jsonl", tokenizer_of("bytes")
    texts = ["The cheapest pub is near.", "Anna agrees!"]
    tags = {text: upos_tagger()([split_words(text)])[0] for text in texts}
    corpus.write_text("\n".join(json.dumps({"text": text, "upos": tags[text]}) for text in tags for _ in range(20)))
    prepare(corpus, corpus, tmp_path / "data", tokenizer=tokenizer, length=32, unique=False)
    model = _saved(model_of("bytes"), tmp_path / "model")
    loop = LoopConfig(steps=30, batch_positions=128, full_share=0.0, optimizer="muon", lr=1e-2, ema=0.5)
    folder = train_control(Pos, model, loop, tmp_path / "data", tmp_path / "run")
    figures = json.loads((folder / "card.json").read_text())["validation"]
    assert figures["accuracy_x0_0"] > 0.7  # of two texts, START and END counted; PAD for all would be 0
    assert figures["accuracy_x0_0"] > figures["accuracy_x0_0.95"]
    (sample,) = generate(Pos(tags=["DET", "NOUN", "VERB"]), model=model, samples=1, sampler=SamplerSettings(steps=2))
    assert len(sample.words) == 3


def test_trees_are_learned_over_the_words_of_a_model_of_tokens(tmp_path):
    corpus, tokenizer = tmp_path / "texts.jsonl", tokenizer_of("bytes")
    trees = {
        "The cheapest pub is near.": "(S (NP (DT The) (JJS cheapest) (NN pub)) (VP (VBZ is) (JJ near)) (. .))",
        "Anna agrees!": "(S (NP (NNP Anna)) (VP (VBZ agrees)) (. !))",
    }
    rows = [{"text": text, "tree": tree} for text, tree in trees.items()]
    corpus.write_text("\n".join(json.dumps(row) for row in rows * 20))
    prepare(corpus, corpus, tmp_path / "data", tokenizer=tokenizer, length=32, unique=False)
    model = _saved(model_of("bytes"), tmp_path / "model")
    folder = train_control(SyntaxTree, model, LoopConfig(steps=2), tmp_path / "data", tmp_path / "run")
    assert json.loads((folder / "labels.json").read_text()) == ["-", "NP", "S", "VP"]
    asked = SyntaxTree(spans=[{"start": 0, "end": 2, "label": "NP"}])  # in words, however many tokens each has
    free, guided = (
        generate(asked, model=model, samples=2, sampler=SamplerSettings(steps=3), guidance=guidance).texts
        for guidance in (Guidance(scale=0.0), Guidance(scale=1000.0, clip=1e6))
    )
    assert free != guided


def _saved(model, folder):
    save_pretrained(model.model, model.tokenizer, folder)
    return from_pretrained(folder)


def test_what_counts_words_is_refused(tmp_path):
    model = model_of("bytes")
    with pytest.raises(ModelError, match="no weights"):
        generate(Pos(tags=["NOUN"]), model=model, samples=1)
    with pytest.raises(ModelError, match="pieces of words"):
        count_control(Pos, Pretrained(model.model, model.tokenizer, tmp_path), tmp_path)
