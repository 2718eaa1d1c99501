"""Ids of two tokenizers have the same meaning only if all of their settings are the same."""

from dlmctl.text.tokenizer import HuggingFaceTokenizer, WordTokenizer, same_encoding
from tests.test_tokenizer import byte_pieces, word_pieces


def test_tokenizers_are_the_same_if_their_contents_are(tmp_path):
    one, again = (HuggingFaceTokenizer(byte_pieces(tmp_path / name)) for name in ("one", "again"))
    other = HuggingFaceTokenizer(word_pieces(tmp_path / "other"))
    assert same_encoding(one, again)
    assert not same_encoding(one, other)
    words = WordTokenizer.from_corpus([["a", "b"]], min_count=1)
    assert not same_encoding(one, words)
    assert not same_encoding(words, WordTokenizer.from_corpus([["a", "c"]], min_count=1))
    assert same_encoding(words, WordTokenizer(dict(words.vocabulary)))
