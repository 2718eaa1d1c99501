"""Words and ids: a word-level vocabulary with four structure tokens, and natural detokenisation."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dlmctl.errors import DataError, ModelError, brief
from dlmctl.text.files import read_object, require_file

START, END, UNK, PAD = "START", "END", "UNK", "PAD"
SPECIALS = (START, END, UNK, PAD)

_CLITICS = ("s", "t", "re", "ll", "m", "ve", "d")
_CLITIC = rf"'(?:{'|'.join(_CLITICS)})\b"
_WORD = re.compile(
    "|".join(
        [
            r"\d+(?:[.,:/]\d+)+",  # 10.50, 1,000, 7:30
            _CLITIC,
            r"(?:[a-z]\.){2,}",  # p.m.
            rf"\w+(?:(?!{_CLITIC})'\w+)*",  # o'clock in one, isn't as isn 't
            r"\.{2,}|-{2,}",
            r"[^\w\s]",
        ]
    ),
    re.IGNORECASE,
)


class Tokenizer(Protocol):
    """What the toolkit asks of a tokeniser; ids of the structure tokens are attributes."""

    start_id: int
    end_id: int
    unk_id: int
    pad_id: int

    def __len__(self) -> int: ...
    def encode(self, words: Sequence[str]) -> list[int]: ...
    def words(self, ids: Iterable[int]) -> list[str]: ...
    def text(self, words: Sequence[str]) -> str: ...
    def split(self, text: str) -> list[str]: ...
    def save(self, folder: Path) -> None: ...


class WordTokenizer:
    """A closed vocabulary of whole words.

    Ids follow Diffusion-LM: START 0, END 1, UNK 2, PAD 3, then words.

    Args:
        vocabulary: word to id; the four structure tokens must be in it.

    Raises:
        DataError: a structure token is missing or ids do not run from 0 without a gap.
    """

    def __init__(self, vocabulary: dict[str, int]) -> None:
        missing = [token for token in SPECIALS if token not in vocabulary]
        if missing:
            raise DataError(f"the vocabulary lacks {', '.join(missing)}.")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise DataError(f"vocabulary ids must be 0 to {len(vocabulary) - 1}, each once.")
        self.vocabulary = vocabulary
        self._by_id = [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
        # A text that says "END" means the word, not the end.
        self._words = {word: index for word, index in vocabulary.items() if word not in SPECIALS}
        self.start_id, self.end_id, self.unk_id, self.pad_id = (vocabulary[token] for token in SPECIALS)

    @classmethod
    def from_corpus(cls, sentences: Iterable[Sequence[str]], min_count: int = 11) -> WordTokenizer:
        """A vocabulary of the words seen at least ``min_count`` times, most frequent first (ties: first seen).

        The paper keeps words seen more than 10 times, hence the default of 11.
        """
        counts = Counter(word for words in sentences for word in words)
        kept = [word for word, count in counts.most_common() if count >= min_count and word not in SPECIALS]
        return cls({word: index for index, word in enumerate([*SPECIALS, *kept])})

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, word: str) -> bool:
        return word in self.vocabulary

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of START, the words (UNK for those outside the vocabulary), END."""
        return [self.start_id, *(self._words.get(word, self.unk_id) for word in words), self.end_id]

    def words(self, ids: Iterable[int]) -> list[str]:
        """The words of one sequence: what stands between START and the first END, without PAD."""
        found: list[str] = []
        for index in ids:
            if index == self.end_id:
                break
            if index not in (self.start_id, self.pad_id):
                found.append(self._by_id[index])
        return found

    def split(self, text: str) -> list[str]:
        """Raw text to words; see ``split_words``."""
        return split_words(text)

    def text(self, words: Sequence[str]) -> str:
        """Natural text of the words, e.g. ``a family-friendly pub, near Alimentum.``"""
        return detokenize(words)

    def save(self, folder: Path) -> None:
        """Write ``vocab.json`` into ``folder``."""
        (folder / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False, indent=0) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordTokenizer:
        """Read ``vocab.json`` of ``folder``.

        Raises:
            ModelError: the file is missing or is not a JSON object of word to id.
            DataError: the ids or the structure tokens are wrong.
        """
        path = folder / "vocab.json"
        vocabulary = read_object(path)
        # A boolean is an integer in Python.
        if not all(type(index) is int for index in vocabulary.values()):
            raise ModelError("must hold a JSON object of word to id.", where=str(path))
        try:
            "".join(vocabulary).encode()
        except UnicodeEncodeError:
            raise ModelError("has a word that is no Unicode text.", where=str(path)) from None
        return cls(vocabulary)


class HuggingFaceTokenizer:
    """A Hugging Face tokenizer behind the same interface; its pieces take the place of words.

    Args:
        name: a folder or hub name that ``transformers.AutoTokenizer`` understands.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        for path in Path(name).glob("*"):
            if not path.is_dir():
                require_file(path)  # a pipe among them would be waited for
        try:
            self.inner = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:
            raise ModelError(f"no tokenizer could be loaded: {loading_fault(error)}.", where=name) from None
        self._separate_structure_tokens()
        self.start_id = int(self.inner.bos_token_id)
        self.end_id = int(self.inner.eos_token_id)
        self.unk_id = int(self.inner.unk_token_id)
        self.pad_id = int(self.inner.pad_token_id)

    def _separate_structure_tokens(self) -> None:
        """Give each of the four roles a token of its own: some tokenizers lack one, GPT-2 has one for three."""
        taken: set[str] = set()
        for role, fallback in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>")):
            token = getattr(self.inner, f"{role}_token")
            if token is None or token in taken:
                token = fallback
                self.inner.add_special_tokens({f"{role}_token": token})
            taken.add(token)

    def __len__(self) -> int:
        return len(self.inner)

    def encode(self, words: Sequence[str]) -> list[int]:
        return [self.start_id, *self.inner.convert_tokens_to_ids(list(words)), self.end_id]

    def words(self, ids: Iterable[int]) -> list[str]:
        found: list[int] = []
        for index in ids:
            if index == self.end_id and found:
                break
            if index not in (self.start_id, self.pad_id, self.end_id):
                found.append(int(index))
        return list(self.inner.convert_ids_to_tokens(found))

    def split(self, text: str) -> list[str]:
        return list(self.inner.tokenize(text))

    def text(self, words: Sequence[str]) -> str:
        return str(self.inner.convert_tokens_to_string(list(words)))

    def save(self, folder: Path) -> None:
        self.inner.save_pretrained(folder / "tokenizer")


def loading_fault(error: Exception) -> str:
    """Why transformers could not load something, in words that do not advise to run the code that came with it."""
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, and such code is never run"
    return brief(error)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser saved in ``folder``: a Hugging Face one if it has a ``tokenizer`` folder, else words."""
    if (folder / "tokenizer").is_dir():
        return HuggingFaceTokenizer(str(folder / "tokenizer"))
    return WordTokenizer.load(folder)


# Before these a hyphen is a dash, unless another hyphen follows: "the river - a gem", but "up-and-coming".
_AFTER_DASH = r"(?:the|a|an|i|he|she|it|we|they|this|you|his|her|and|but|with|which)\b(?! -)"
_RULES = [
    (re.compile(r"\s+([.,;:!?%)\]…])"), r"\1"),
    (re.compile(r"([(\[£$€#])\s+"), r"\1"),
    (re.compile(rf"(?<=\w) - (?=[\w£$€])(?!{_AFTER_DASH})", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\w)- (?=[£$€\d])|(?<=\d) -(?=\d)"), "-"),
    (re.compile(r"(?<=\w) / (?=\w)"), "/"),
    (re.compile(r"(?<=\w)\s+(['\u2019])\s*(s|t|re|ll|m|ve|d)\b"), r"\1\2"),
    (re.compile(r"(?<=\w) n't\b"), "n't"),
    (re.compile("\\s*\0\\s*"), ""),
]


def split_words(text: str) -> list[str]:
    """Raw text to words as the E2E corpus has them: punctuation and hyphens stand alone, ``isn't`` is ``isn 't``.

    Composed and decomposed accents become one, and so do straight and typographic apostrophes.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).replace("\u2019", "'"))


def detokenize(words: Sequence[str]) -> str:
    """Join words into natural text: no space before commas, inside hyphens and quotes, after a currency sign."""
    text = " ".join(_with_quotes_glued(words))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _with_quotes_glued(words: Sequence[str]) -> list[str]:
    """Quotation marks with a NUL on the side where no space belongs: a lone mark does not say which side that is."""
    glued, inside = list(words), {'"': False, "'": False}
    for at, word in enumerate(words):
        if word not in inside:
            continue
        opens = not inside[word]
        if word == "'":
            # "the kids ' menu" has an apostrophe; a quotation has its closing mark further on.
            after_s = at > 0 and words[at - 1].endswith(("s", "S"))
            opens = opens and not after_s and any(later.endswith("'") for later in words[at + 1 :])
        glued[at] = f"{word}\0" if opens else f"\0{word}"
        if word == "'" and not opens and not inside[word] and words[at + 1 : at + 2] and words[at + 1] in _CLITICS:
            glued[at] += "\0"
        inside[word] = opens
    return glued
