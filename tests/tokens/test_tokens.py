"""What tokens stand for, and which make which word."""

# ruff: noqa: RUF001 (signs of many kinds stand here on purpose)

import itertools

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dlmctl.text.tokenizer import HuggingFaceTokenizer, same_encoding
from dlmctl.text.tokens import token_strings, word_spans
from tests.tokens.tokenizers_of_all_kinds import END, KINDS, PAD, SPECIAL, START, TEXTS, UNK, tokenizer_of


def wrapped(inner, folder):
    roles = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": UNK}
    PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained(folder)
    return HuggingFaceTokenizer(str(folder))


def of_words(words, folder, decoder=None, normalizer=None):
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*SPECIAL, *words])}, unk_token=UNK))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.normalizer, inner.decoder = normalizer, decoder
    return wrapped(inner, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_tokens_is_that_of_the_tokenizer(kind):
    tokenizer = tokenizer_of(kind)
    for text in TEXTS:
        ids = tokenizer.encode_text(text)
        assert (ids[0], ids[-1]) == (tokenizer.start_id, tokenizer.end_id)
        theirs = tokenizer.inner.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids) == theirs
        assert kind == "word pieces" or tokenizer.decode(ids) == text
        assert tokenizer.words(ids) == tokenizer.split(text)


def test_every_form_of_token_is_known(tmp_path):
    known = of_words(["##ing", "the", ".", "n't"], tmp_path / "a", decoders.WordPiece("##", cleanup=True))
    assert token_strings(known.inner, len(known))[4:] == [b"ing", b" the", b".", b" n't"[1:]]
    suffixed = of_words(["the</w>", "in"], tmp_path / "b", decoders.BPEDecoder("</w>"))
    assert token_strings(suffixed.inner, len(suffixed))[4:] == [b"the ", b"in"]
    pieces = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fallback = of_words(["▁the", "<0xC3>", "<0xZZ>"], tmp_path / "c", pieces)
    assert token_strings(fallback.inner, len(fallback)) == [None] * 4 + [b" the", b"\xc3", b"<0xZZ>"]
    space = of_words(["▁the▁"], tmp_path / "d", decoders.Metaspace())
    assert token_strings(space.inner, len(space))[4:] == [b" the "]
    none = of_words(["the"], tmp_path / "e")
    assert token_strings(none.inner, len(none))[4:] == [b" the"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_word_has_its_tokens(kind):
    tokenizer = tokenizer_of(kind)
    for text in [*TEXTS, "It’s riversides", "", "  x  "]:
        ids = tokenizer.encode_text(text)[1:-1]
        words, spans = tokenizer.words(ids), word_spans([tokenizer.strings[index] for index in ids])
        assert len(words) == len(spans)
        for word, (start, end) in zip(words, spans, strict=True):
            assert word in tokenizer.decode(ids[start:end]).replace("’", "'")
            assert start < end
        assert all(before[1] <= after[0] + 1 for before, after in itertools.pairwise(spans))


def test_a_word_of_many_tokens_and_a_token_of_two_words():
    strings = [b"river", b"si", b"de", None, b". The"]
    assert word_spans(strings) == [(0, 3), (4, 5), (4, 5)]
    assert word_spans([b"\xf0\x9f", b"\x8e\x89", b" x"]) == [(0, 2), (2, 3)]


def test_tokenizers_that_split_differently_are_not_the_same(tmp_path):
    words = ["the", "boat"]
    one, again = (of_words(words, tmp_path / name) for name in ("one", "again"))
    lower = of_words(words, tmp_path / "lower", normalizer=normalizers.Lowercase())
    assert same_encoding(one, again)
    one.inner.encode("the boat", truncation=True, max_length=1, padding="max_length")
    one.__dict__.pop("digest", None)
    assert same_encoding(one, again)
    assert not same_encoding(one, lower)
    assert lower.split("The Boat") == ["the", "boat"]
