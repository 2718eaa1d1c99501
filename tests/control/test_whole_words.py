"""Controls of word tables refuse a model that writes pieces; ids of two tokenizers mean the same only if equal."""

from dataclasses import replace

import pytest

from controls import Pos, Semantic, SyntaxTree
from dlmctl.errors import ModelError
from dlmctl.generation.generate import generate
from dlmctl.text.tokenizer import HuggingFaceTokenizer, WordTokenizer, same_words
from tests.test_tokenizer import byte_pieces, word_pieces


@pytest.mark.parametrize(
    "control",
    [
        Pos(tags=["NOUN"]),
        Semantic(food="Thai"),
        SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}]),
    ],
)
def test_a_model_of_pieces_is_refused(pretrained, tmp_path, control):
    pieces = replace(pretrained, tokenizer=HuggingFaceTokenizer(byte_pieces(tmp_path)))
    with pytest.raises(ModelError, match="speaks of words, and this model writes pieces of words"):
        generate(control, model=pieces, samples=1)


def test_tokenizers_are_the_same_if_their_contents_are(tmp_path):
    one, again = (HuggingFaceTokenizer(byte_pieces(tmp_path / name)) for name in ("one", "again"))
    other = HuggingFaceTokenizer(word_pieces(tmp_path / "other"))
    assert same_words(one, again)
    assert not same_words(one, other)
    words = WordTokenizer.from_corpus([["a", "b"]], min_count=1)
    assert not same_words(one, words)
    assert not same_words(words, WordTokenizer.from_corpus([["a", "c"]], min_count=1))
    assert same_words(words, WordTokenizer(dict(words.vocabulary)))
