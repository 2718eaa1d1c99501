# Signs of many scripts stand here on purpose.
# ruff: noqa: RUF001
from __future__ import annotations

import json
import re
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dlmctl.errors import DataError, ModelError, UnknownWordError
from dlmctl.text.penn import split_penn
from dlmctl.text.saved_tokenizer import load_tokenizer
from dlmctl.text.spelling import detokenize, spans_in_text, split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer, WordTokenizer
from dlmctl.text.vocabulary import NEAREST, OTHERS, KnownWords, known_ids

CORPUS = [sentence.split() for sentence in ("the red boat sinks .", "the red kite rises .", "the boat rises !")]


def test_special_tokens_come_first_then_words_by_frequency() -> None:
    vocabulary = WordTokenizer.from_corpus(CORPUS, min_count=2).vocabulary
    assert list(vocabulary.items()) == [
        ("START", 0), ("END", 1), ("UNK", 2), ("PAD", 3), ("the", 4), ("red", 5), ("boat", 6), (".", 7), ("rises", 8),
    ]  # fmt: skip


def test_min_count_is_inclusive() -> None:
    assert len(WordTokenizer.from_corpus([["owl"]] * 11)) == 5
    assert len(WordTokenizer.from_corpus([["owl"]] * 10)) == 4


def test_encode_and_words_are_inverse_but_for_unknown_words() -> None:
    tokenizer = WordTokenizer.from_corpus(CORPUS, min_count=2)
    ids = tokenizer.encode(["the", "kite", "rises"])
    assert ids == [0, 4, 2, 8, 1]
    assert tokenizer.words([*ids, 3, 3, 5]) == ["the", "UNK", "rises"]


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("No, no, not now.", "No , no , not now .".split(), ["No", ",", "no", ",", "not", "now", "."]),
        ("A man–dog is", ["A", "man", "￭–￭", "dog", "is"], ["A", "man", "–", "dog", "is"]),
        ("he saw us", ["he", "heard", "us", "saw"], ["he", None, "us", None]),  # in this order
        ("", ["a"], [None]),
    ],
)
def test_words_are_found_in_a_text_in_their_order(text: str, words: list[str], found: list[str | None]) -> None:
    spans = spans_in_text(words, text)
    assert [span and text[slice(*span)] for span in spans] == found
    starts = [span[0] for span in spans if span is not None]
    assert starts == sorted(set(starts))


def test_special_tokens_in_a_text_are_words_outside_the_vocabulary() -> None:
    tokenizer = WordTokenizer.from_corpus([["THE", "END", "PAD"]], min_count=1)
    assert "END" in tokenizer
    assert tokenizer.encode(["THE", "END", "START", "PAD"]) == [0, 4, 2, 2, 2, 1]


def test_vocabulary_file_round_trip(tmp_path: Path) -> None:
    tokenizer = WordTokenizer.from_corpus([*CORPUS, ["crème"] * 3], min_count=1)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, WordTokenizer)
    assert loaded.vocabulary == tokenizer.vocabulary
    assert list(loaded.vocabulary) == list(tokenizer.vocabulary)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"START": 0, "END": 1, "UNK": 2, "owl": 3}, "lacks PAD"),
        ({"START": 0, "END": 1, "UNK": 2, "PAD": 3, "owl": 5}, "0 to 4"),
        ({"START": 0, "END": 1, "UNK": 2, "PAD": 3, "owl": 3}, "0 to 4"),
    ],
)
def test_a_vocabulary_with_gaps_is_refused(vocabulary: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        WordTokenizer(vocabulary)


@pytest.mark.parametrize("content", ["[1, 2]", '{"START": "0"}', "not json"])
def test_a_damaged_vocabulary_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(ModelError, match=r"vocab\.json"):
        WordTokenizer.load(tmp_path)


def test_a_missing_vocabulary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vocab\.json: is missing"):
        load_tokenizer(tmp_path)


SPLITS = [
    ("It's a 5-star, family-friendly inn.", "It 's a 5 - star , family - friendly inn ."),
    ("Lunch isn't £20-25; it's £7.50!", "Lunch isn 't £ 20 - 25 ; it 's £ 7.50 !"),
    ("Closed at 7:30 p.m. by Mr O'Hara", "Closed at 7:30 p.m. by Mr O'Hara"),
    ("the cooks' table (outside)", "the cooks ' table ( outside )"),
    ("Wait... no -- 1,000 owls", "Wait ... no -- 1,000 owls"),
    ("the cafe\u0301 we\u2019ve seen", "the caf\u00e9 we 've seen"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "words"), SPLITS)
def test_split(text: str, words: str) -> None:
    assert split_words(text) == words.split()


TEXTS = [
    (
        "city centre , Alimentum , that is not family - friendly .",
        "city centre, Alimentum, that is not family-friendly.",
    ),
    ("lunch costs £ 20 - 25 or £ 20 - £ 25 .", "lunch costs £20-25 or £20-£25."),
    ("lunch costs £ 20- £ 25 or £ 20 -25 .", "lunch costs £20-£25 or £20-25."),
    ("a 5 - star and 3 - 5 - day non - family - friendly inn", "a 5-star and 3-5-day non-family-friendly inn"),
    ("it isn 't far , they don 't say , we do n't", "it isn't far, they don't say, we don't"),
    ("It 's what we 've seen ; it ' s late", "It's what we've seen; it's late"),
    ('they call it " the nest " , and " home " .', 'they call it "the nest", and "home".'),
    ("an inn called ' The Nest ' is here", "an inn called 'The Nest' is here"),
    ("the kids ' menu and the cooks ' table", "the kids' menu and the cooks' table"),
    ("The kids ' menu is ' great ' and it 's ' cheap '", "The kids' menu is 'great' and it's 'cheap'"),
    ("the inn ( by the sea ) is open : 90 % full !", "the inn (by the sea) is open: 90% full!"),
    ("an up - and - coming inn - the best of all", "an up-and-coming inn - the best of all"),
    ("tea and / or soup ... perhaps", "tea and/or soup... perhaps"),
    ("are you gon na see it , or wan na go ? I got ta .", "are you gonna see it, or wanna go? I gotta."),
    ("Gim me that ; lem me see a gong , na , got tan me", "Gimme that; lemme see a gong, na, got tan me"),
    ("' Tis the ' 90s , and they ' got ' em ' then", "'Tis the '90s, and they 'got 'em' then"),
    ("", ""),
]


@pytest.mark.parametrize(("words", "text"), TEXTS)
def test_detokenize(words: str, text: str) -> None:
    assert detokenize(words.split()) == text


@pytest.mark.parametrize(
    "text",
    [
        "The harbour inn, which isn't cheap, has a four-star kitchen.",
        'She said "no" twice; he hadn\'t asked.',
        "Soup is £4.50 (bread 20% off) until 9:15 p.m.!",
        "'Tis the '90s, and 'twas his' in the cooks' book: get 'em.",
        "The students' choice: tea, cakes and o'clock jokes...",
    ],
)
def test_natural_text_survives_splitting_and_joining(text: str) -> None:
    assert detokenize(split_words(text)) == text


@pytest.mark.parametrize(
    "text", ["You're gonna see, I wanna go and gotta.", "Gimme that. Lemme see 'em, 'tis the '80s."]
)
def test_text_split_as_the_penn_treebank_has_it_is_joined_again(text: str) -> None:
    assert detokenize(split_penn(text)) == text


def word_pieces(folder: Path, **special: str) -> str:
    """A Hugging Face tokenizer of whole words, built here and saved in ``folder``."""
    words = ["the", "red", "boat", "sinks", ".", *special.values()]
    inner = Tokenizer(
        models.WordLevel(dict(zip(dict.fromkeys(words), range(9), strict=False)), special.get("unk_token"))
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return str(folder)


def byte_pieces(folder: Path) -> str:
    """As GPT-2 has it: byte pieces, and one token in three roles."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<|endoftext|>", *letters, "re", "red", "Ġred"])}
    inner = Tokenizer(models.BPE(vocabulary, [("r", "e"), ("re", "d"), ("Ġ", "red")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end, unk_token=end).save_pretrained(folder)
    return str(folder)


def test_hugging_face_tokenizer_gives_words_and_text_back(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(byte_pieces(tmp_path))
    text = "a red boat, £5"
    ids = tokenizer.encode_text(text)
    assert (ids[0], ids[-1]) == (tokenizer.start_id, tokenizer.end_id)
    assert [tokenizer.token(index) for index in ids[1:3]] == ["a", "Ġred"]
    assert tokenizer.words([*ids, tokenizer.pad_id, tokenizer.pad_id]) == ["a", "red", "boat", ",", "£", "5"]
    assert tokenizer.decode([*ids, tokenizer.pad_id]) == text
    assert tokenizer.encode(tokenizer.words(ids)) == ids


def test_hugging_face_special_tokens_are_four_different_ones(tmp_path: Path) -> None:
    shared = HuggingFaceTokenizer(byte_pieces(tmp_path / "bytes"))
    bare = HuggingFaceTokenizer(word_pieces(tmp_path / "bare"))
    own = HuggingFaceTokenizer(
        word_pieces(tmp_path / "own", bos_token="[B]", eos_token="[E]", unk_token="[U]", pad_token="[P]")
    )
    for tokenizer in (shared, bare, own):
        roles = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
        assert len(roles) == 4
        assert max(roles) < len(tokenizer)
    assert len(own) == 9
    assert len(bare) == 9


def test_hugging_face_unknown_words_and_empty_texts(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(word_pieces(tmp_path, unk_token="[U]"))
    ids = tokenizer.encode(["the", "owl", "sinks"])
    assert ids[2] == tokenizer.unk_id
    assert tokenizer.words(ids) == ["the", "sinks"]
    assert tokenizer.words(tokenizer.encode([])) == []


def test_hugging_face_tokenizer_round_trip_through_a_model_folder(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(byte_pieces(tmp_path / "source"))
    (tmp_path / "model").mkdir()
    tokenizer.save(tmp_path / "model")
    loaded = load_tokenizer(tmp_path / "model")
    assert isinstance(loaded, HuggingFaceTokenizer)
    assert len(loaded) == len(tokenizer)
    assert loaded.encode(loaded.split("red owls")) == tokenizer.encode(tokenizer.split("red owls"))
    assert (loaded.start_id, loaded.end_id, loaded.unk_id, loaded.pad_id) == (
        tokenizer.start_id,
        tokenizer.end_id,
        tokenizer.unk_id,
        tokenizer.pad_id,
    )


def test_a_folder_without_a_hugging_face_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such model"}))
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        HuggingFaceTokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("लैंटर्न में खाना मिलता है।", 6),
        ("தமிழ் மொழி அழகு.", 4),
        ("שָׁלוֹם עוֹלָם!", 3),
        ("مُحَمَّدٌ كَتَبَ، نعم؟", 5),
        ("the cook 👩\u200d🍳 and 👍🏽 🇩🇪🇫🇷!", 8),
        ("磨坊餐厅提供菜，在河边0。", 4),
        ("She said “it is cheap” today.", 9),
        ("Soup: £20–£25.", 8),
        ("Go to www.mill.co.uk or mail me@mill.co.uk.", 7),
        ("Fish & chips at the B&B.", 9),
        ("The soup is great - really cheap.", 8),
        ("¿Dónde está? ¡Aquí!", 7),
        ("The soup—so cheap—is good, from London–Paris.", 14),
        ("this / that and/or those", 7),
        ("C++ and C# he wrote", 8),
        ("„Wort“ and «mot» and « mot »", 11),
        ("He said ‘no’ at 10.50pm...", 9),
    ],
)
def test_words_keep_their_marks_and_the_text_comes_back_as_it_was(text: str, count: int) -> None:
    words = split_words(text)
    assert detokenize(words) == text
    assert len(words) == count


def test_a_marked_sign_is_known_by_its_bare_form() -> None:
    tokenizer = WordTokenizer.from_corpus([["a", "-", "b"]], min_count=1)
    assert tokenizer.encode(split_words("a - b")) == tokenizer.encode(["a", "-", "b"])


def test_words_that_cannot_be_near_are_passed_over_without_changing_what_is_near() -> None:
    """A table may have thousands of unknown words, and comparing one with every word in full takes long."""
    random = Random(0)
    words = sorted({"".join(random.choices("aeinrst", k=random.randint(2, 9))) for _ in range(300)})
    known = KnownWords(["Café", *words])
    found = 0
    for word in {"".join(random.choices("aeinrstu", k=random.randint(1, 10))) for _ in range(100)} - {*words}:
        close = get_close_matches(word, words, n=3, cutoff=NEAREST)
        near = close[:1] + [other for other in close[1:] if SequenceMatcher(None, other, word).ratio() >= OTHERS]
        assert known.nearest(word) == near
        found += len(near)
    assert found > 100
    assert known.nearest("xxxx") == []
    assert known.nearest("cafe") == ["cafe"]
    assert known.by_fold["cafe"] == "Café"


@pytest.mark.parametrize(
    ("mark", "typed"), [("\u2026", "..."), ("\u2014", "--"), ("\u2013", "-"), ("o\u2019clock", "o'clock")]
)
def test_for_marks_of_word_processors_the_typed_ones_are_named(mark: str, typed: str) -> None:
    tokenizer = WordTokenizer.from_corpus([["...", "--", "-", "o'clock"]], min_count=1)
    with pytest.raises(UnknownWordError, match=rf"Did you mean [\"']{re.escape(typed)}[\"']\?"):
        known_ids([mark], tokenizer, "edit")
