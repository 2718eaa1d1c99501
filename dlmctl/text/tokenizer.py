"""Tokenisers: a word-level vocabulary with four special tokens, and Hugging Face tokenisers with the same interface."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from dlmctl.errors import DataError, ModelError, short_message
from dlmctl.text.files import read_object, require_file
from dlmctl.text.penn import split_penn
from dlmctl.text.spelling import detokenize, plain, split_words
from dlmctl.text.tokens import join_tokens, plain_words, token_strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Ways to split raw text into words; a vocabulary that uses another than the first says so in a file next to it.
SPLITS = {"e2e": split_words, "penn": split_penn}
SPLIT_FILE = "words.json"
# The complete definition of a Hugging Face tokeniser, without code.
CORE_FILE = "tokenizer.json"

START, END, UNK, PAD = "START", "END", "UNK", "PAD"
SPECIALS = (START, END, UNK, PAD)


class Tokenizer(Protocol):
    """The interface of tokenisers; ids of the special tokens are attributes.

    Texts consist of words for people and controls, and of tokens for models. For a ``WordTokenizer`` they are the same.
    """

    start_id: int
    end_id: int
    unk_id: int
    pad_id: int

    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...
    def encode(self, words: Sequence[str]) -> list[int]: ...
    def words(self, ids: Iterable[int]) -> list[str]: ...
    def text(self, words: Sequence[str]) -> str: ...
    def split(self, text: str) -> list[str]: ...
    def token(self, index: int) -> str: ...
    def encode_text(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def save(self, folder: Path) -> None: ...


class WordTokenizer:
    """A closed vocabulary of whole words.

    Ids follow Diffusion-LM: START 0, END 1, UNK 2, PAD 3, then words.

    Args:
        vocabulary: word to id; the four special tokens must be in it.
        splitting: how raw text becomes words, a name in ``SPLITS``.

    Raises:
        DataError: a special token is missing, or the ids do not run from 0 without gaps.
    """

    def __init__(self, vocabulary: dict[str, int], splitting: str = "e2e") -> None:
        self.splitting = splitting
        missing = [token for token in SPECIALS if token not in vocabulary]
        if missing:
            raise DataError(f"the vocabulary lacks {', '.join(missing)}.")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise DataError(f"vocabulary ids must be 0 to {len(vocabulary) - 1}, each once.")
        self.vocabulary = vocabulary
        self._by_id = [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
        # "END" in a text is a word, not the special token.
        self._words = {word: index for word, index in vocabulary.items() if word not in SPECIALS}
        self.start_id, self.end_id, self.unk_id, self.pad_id = (vocabulary[token] for token in SPECIALS)

    @classmethod
    def from_corpus(
        cls, sentences: Iterable[Sequence[str]], min_count: int = 11, splitting: str = "e2e"
    ) -> WordTokenizer:
        """A vocabulary of the words seen at least ``min_count`` times, most frequent first (ties: first seen).

        The paper keeps words seen more than 10 times, hence the default of 11.
        """
        return cls({word: index for index, word in enumerate(SPECIALS)}, splitting).extended(sentences, min_count)

    def extended(self, sentences: Iterable[Sequence[str]], min_count: int) -> WordTokenizer:
        """The vocabulary with the new words seen at least ``min_count`` times after its own, most frequent first."""
        counts = Counter(word for words in sentences for word in words)
        new = [word for word, count in counts.most_common() if count >= min_count and word not in self.vocabulary]
        return WordTokenizer(
            {**self.vocabulary, **{word: index for index, word in enumerate(new, len(self))}}, self.splitting
        )

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, word: str) -> bool:
        return word in self.vocabulary

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of START, the words (UNK for those outside the vocabulary), END.

        If punctuation with spacing marks is not in the vocabulary, it is encoded without them.
        """
        known, unknown = self._words, self.unk_id
        inner = [known[word] if word in known else known.get(plain(word), unknown) for word in words]
        return [self.start_id, *inner, self.end_id]

    def words(self, ids: Iterable[int]) -> list[str]:
        """The words of one sequence: those between START and the first END, without PAD."""
        words: list[str] = []
        for index in ids:
            if index == self.end_id:
                break
            if index not in (self.start_id, self.pad_id):
                words.append(self._by_id[index])
        return words

    def split(self, text: str) -> list[str]:
        """Split raw text into words; see ``split_words`` and ``split_penn``."""
        return SPLITS[self.splitting](text)

    def token(self, index: int) -> str:
        """The word of an id."""
        return self._by_id[index]

    def encode_text(self, text: str) -> list[int]:
        """Ids of START, the words of raw text, END."""
        return self.encode(self.split(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The natural text of one sequence."""
        return self.text(self.words(ids))

    def text(self, words: Sequence[str]) -> str:
        """Natural text of the words, e.g. ``a family-friendly pub, near Alimentum.``"""
        return detokenize(words)

    def save(self, folder: Path) -> None:
        """Write ``vocab.json`` into ``folder``, and ``words.json`` if words are not split like E2E's."""
        (folder / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False, indent=0) + "\n", "utf-8")
        if self.splitting != "e2e":
            (folder / SPLIT_FILE).write_text(json.dumps({"split": self.splitting}) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordTokenizer:
        """Read ``vocab.json`` of ``folder``.

        Raises:
            ModelError: the file is missing or is not a JSON object of word to id.
            DataError: the ids or the special tokens are wrong.
        """
        path = folder / "vocab.json"
        vocabulary = read_object(path)
        # A boolean is an integer in Python.
        if not all(type(index) is int for index in vocabulary.values()):
            raise ModelError("must hold a JSON object of word to id.", where=str(path))
        try:
            "".join(vocabulary).encode()
        except UnicodeEncodeError:
            raise ModelError("has a word that is not valid Unicode.", where=str(path)) from None
        return cls(vocabulary, _splitting(folder / SPLIT_FILE))


def _splitting(path: Path) -> str:
    if not os.path.lexists(path):
        return "e2e"
    name = read_object(path).get("split")
    if not isinstance(name, str) or name not in SPLITS:
        raise ModelError(f"split must be one of {', '.join(SPLITS)}.", where=str(path))
    return name


class HuggingFaceTokenizer:
    """A Hugging Face tokeniser behind the same interface: its tokens are parts of words.

    Words are those that ``split_words`` finds in the text of the tokens, without spacing marks.

    Args:
        name: a folder or hub name that ``transformers.AutoTokenizer`` understands.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        self.inner = read_inner(name)
        self._separate_special_tokens()
        self.start_id = int(self.inner.bos_token_id)
        self.end_id = int(self.inner.eos_token_id)
        self.unk_id = int(self.inner.unk_token_id)
        self.pad_id = int(self.inner.pad_token_id)

    def _separate_special_tokens(self) -> None:
        """Give each of the four roles its own token: some tokenisers lack one, and GPT-2 has one for three."""
        taken: set[str] = set()
        for role, fallback in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>")):
            token = getattr(self.inner, f"{role}_token")
            if token is None or token in taken:
                token = fallback
                self.inner.add_special_tokens({f"{role}_token": token})
            taken.add(token)

    def __len__(self) -> int:
        return len(self.inner)

    @cached_property
    def strings(self) -> list[bytes | None]:
        """The bytes of every token; see ``tokens.token_strings``."""
        return token_strings(self.inner, len(self))

    def inside(self, ids: Iterable[int]) -> list[int]:
        """The tokens of one sequence: those between START and the first END after them, without PAD."""
        tokens: list[int] = []
        for index in ids:
            if index == self.end_id and tokens:
                break
            if index not in (self.start_id, self.pad_id, self.end_id):
                tokens.append(int(index))
        return tokens

    @cached_property
    def digest(self) -> str:
        """A hash of all that this tokeniser does: its tokens, how it splits and joins them, and its special tokens."""
        settings = json.loads(self.inner.backend_tokenizer.to_str())
        content = {name: value for name, value in settings.items() if name not in ("truncation", "padding")}
        content["roles"] = [self.start_id, self.end_id, self.unk_id, self.pad_id]
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of START, the tokens of the words in natural spelling, END."""
        return self.encode_text(self.text(words))

    def encode_text(self, text: str) -> list[int]:
        """Ids of START, the tokens of the unchanged text, END."""
        return [self.start_id, *self._ids_of(text), self.end_id]

    def _ids_of(self, text: str) -> list[int]:
        """The tokens of a text, without START and END."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of one sequence; see ``inside``."""
        return join_tokens(self.strings[index] for index in self.inside(ids))

    def words(self, ids: Iterable[int]) -> list[str]:
        return plain_words(self.decode(ids))

    def split(self, text: str) -> list[str]:
        """Split raw text into words as the tokens spell them: an uncased tokeniser has no capitals, and BERT's sets
        spaces around an apostrophe. Text with unknown tokens is only normalised."""
        return plain_words(self.respelled(text))

    def respelled(self, text: str) -> str:
        """Raw text as the tokens spell it; see ``split``."""
        ids = self._ids_of(text)
        if self.unk_id not in ids:
            return join_tokens(self.strings[index] for index in ids)
        normalizer = self.inner.backend_tokenizer.normalizer
        return str(text if normalizer is None else normalizer.normalize_str(text))

    def text(self, words: Sequence[str]) -> str:
        return detokenize(words)

    def token(self, index: int) -> str:
        return str(self.inner.convert_ids_to_tokens(int(index)))

    def save(self, folder: Path) -> None:
        self.inner.save_pretrained(folder / "tokenizer")


def read_inner(name: str) -> PreTrainedTokenizerFast:
    """The tokeniser of ``transformers`` in a folder or with a hub name.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    files = {path.name: path for path in Path(name).glob("*") if not path.is_dir()}
    for path in files.values():
        require_file(path)  # reading a pipe would block
    # AutoTokenizer of transformers 4 needs a file that names the class.
    is_bare = CORE_FILE in files and files.keys().isdisjoint({"config.json", "tokenizer_config.json"})
    kind = PreTrainedTokenizerFast if is_bare else AutoTokenizer
    try:
        inner: PreTrainedTokenizerFast = kind.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        has_core = Path(name, CORE_FILE).is_file()
        remedy = f"Copy its {CORE_FILE} into a folder of its own and name that." if has_core else None
        what = f"no tokenizer could be loaded: {loading_fault(error)}."
        raise ModelError(what, where=name, remedy=remedy) from None
    return inner


def unit_of(tokenizer: Tokenizer) -> Literal["word", "token"]:
    """The unit of a vocabulary's entries."""
    return "token" if isinstance(tokenizer, HuggingFaceTokenizer) else "word"


def same_encoding(tokenizer: Tokenizer, other: Tokenizer) -> bool:
    """Whether the ids of two tokenisers mean the same, and both encode texts alike."""
    return _contents(tokenizer) == _contents(other)


def _contents(tokenizer: Tokenizer) -> Mapping[str, int] | str:
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.digest
    assert isinstance(tokenizer, WordTokenizer)
    return tokenizer.vocabulary


def loading_fault(error: Exception) -> str:
    """Why transformers could not load something, without its advice to run the code that comes with it."""
    if "trust_remote_code" in str(error):
        return "it comes with its own code, and such code is never run"
    return short_message(error)
