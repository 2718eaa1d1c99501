"""Words that a model was trained on with, as the network that reads its texts sees them."""

from __future__ import annotations

import torch

from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.metrics.added_words import with_added_words
from dlmctl.text.tokenizer import WordTokenizer

KNOWN = WordTokenizer.from_corpus([[f"{stem}ing" for stem in ("walk", "talk", "jump", "look", "cook")], ["Ann"]], 1)


def network():
    torch.manual_seed(0)
    sizes = {"hidden": 8, "layers": 1, "heads": 1, "inner": 8, "max_length": 8}
    return MaskedLM(MaskedConfig(length=8, denoiser=sizes, vocab_size=len(KNOWN))).denoiser


def test_an_added_word_is_read_as_the_known_words_that_end_alike():
    made, ours = network(), WordTokenizer.from_corpus([["walking", "humming", "zzz"]], 1)
    table = made.model.embed_tokens.weight.detach().clone()
    words = with_added_words(made, KNOWN, ours)
    assert list(words.vocabulary) == [*KNOWN.vocabulary, "humming", "zzz"]
    rows = made.model.embed_tokens.weight
    similar = [index for word, index in KNOWN.vocabulary.items() if word.endswith("ing")]
    torch.testing.assert_close(rows[words.vocabulary["humming"]], table[similar].mean(0))
    assert torch.equal(rows[words.vocabulary["zzz"]], table[KNOWN.unk_id])
    assert torch.equal(rows[: len(KNOWN)], table[: len(KNOWN)])


def test_without_added_words_nothing_changes():
    made = network()
    before = made.model.embed_tokens
    assert with_added_words(made, KNOWN, WordTokenizer.from_corpus([["walking"]], 1)) is KNOWN
    assert made.model.embed_tokens is before
