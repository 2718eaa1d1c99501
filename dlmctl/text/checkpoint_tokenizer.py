"""Tokenisers of third-party checkpoints, read from their files. Code that comes with them is never read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from dlmctl.errors import ModelError, readable, short_message
from dlmctl.text.files import read_json, read_object, read_text, require_file
from dlmctl.text.tokenizer import HuggingFaceTokenizer, read_inner
from dlmctl.text.tokens import decoded_token, token_strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# The largest tokenisers have about 40 MB.
MAX_TOKENIZER = 128 * 2**20
MOST_IDS, MOST_ADDED, MOST_TOKEN = 4_000_000, 100_000, 1000
_ID = re.compile(r"[0-9]{1,7}")
# Tokens that their authors reserve: of BERT, of CamemBERT, of fairseq.
_RESERVED = re.compile(rb"\[unused[^\]]{0,20}\]|</?[a-z]+>NOTUSED|madeupword[0-9]{1,5}")
ROLES = ("bos", "eos", "unk", "pad", "mask")
# How Qwen2 splits text before its merges (from its tokenizer.json); GPT-2's splitting is that of ``ByteLevel``.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# In the folder of a saved tokeniser.
ROLES_FILE = "roles.json"


class CheckpointTokenizer(HuggingFaceTokenizer):
    """The tokeniser of a checkpoint with its own special tokens: roles may share one, as END and PAD do in LLaDA.

    Args:
        inner: the tokeniser as read.
        mask_id: the id of MASK.
        unk_id: the id of UNK, if texts may have tokens that it stands for.

    Attributes:
        stop_ids: tokens that end a text: END and every other control token, such as the end of a turn.
        unk_id: the id of MASK, which no text contains, if there is no UNK.
    """

    def __init__(self, inner: PreTrainedTokenizerFast, mask_id: int, unk_id: int | None = None) -> None:
        self.inner = inner
        self.mask_id, self.unk_id = mask_id, mask_id if unk_id is None else unk_id
        self.end_id = int(inner.eos_token_id)
        self.start_id = self.end_id if inner.bos_token_id is None else int(inner.bos_token_id)
        self.pad_id = self.end_id if inner.pad_token_id is None else int(inner.pad_token_id)
        added = inner.backend_tokenizer.get_added_tokens_decoder()
        self.stop_ids = {self.end_id, *(index for index, token in added.items() if token.special)}
        self._size = 1 + max(inner.get_vocab().values())

    def save(self, folder: Path) -> None:
        """As ``Tokenizer.save``, with the roles that the files of Hugging Face do not have."""
        super().save(folder)
        roles = {"mask_id": self.mask_id, "unk_id": None if self.unk_id == self.mask_id else self.unk_id}
        (folder / "tokenizer" / ROLES_FILE).write_text(json.dumps(roles) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> CheckpointTokenizer:
        """Read what ``save`` wrote.

        Raises:
            ModelError: a file is missing or damaged.
        """
        path = folder / "tokenizer" / ROLES_FILE
        roles = read_object(path)
        mask_id, unk_id = roles.get("mask_id"), roles.get("unk_id")
        if type(mask_id) is not int or type(unk_id) not in (int, type(None)):
            raise ModelError("mask_id must be a number, and unk_id one or null.", where=str(path))
        return cls(read_inner(str(folder / "tokenizer")), mask_id, unk_id)

    def __len__(self) -> int:
        return self._size

    @cached_property
    def strings(self) -> list[bytes | None]:
        """As ``HuggingFaceTokenizer.strings``; reserved tokens are as special tokens."""
        strings = token_strings(self.inner, len(self))
        return [None if string and _RESERVED.fullmatch(string.strip()) else string for string in strings]

    @property
    def special_ids(self) -> list[int]:
        """The tokens that have no place within a text: special and reserved ones."""
        return [index for index, string in enumerate(self.strings) if string is None]

    @cached_property
    def _mask_parts(self) -> list[int]:
        """The fewest other tokens that spell MASK, if it is a word of the vocabulary that texts may have (DiffuGPT-S,
        DiffuLLaMA); otherwise empty."""
        name = self.inner.convert_ids_to_tokens(self.mask_id)
        core = self.inner.backend_tokenizer
        if name is None or core.model.token_to_id(name) != self.mask_id:
            return []
        whole, found = decoded_token(core, name), {0: list[int]()}
        others = {string: index for index, string in enumerate(self.strings) if string and index != self.mask_id}
        for end in range(1, len(whole) + 1):
            ways = [[*found[start], others[whole[start:end]]] for start in found if whole[start:end] in others]
            if ways:
                found[end] = min(ways, key=len)
        return found.get(len(whole), [])

    def _ids_of(self, text: str) -> list[int]:
        """The tokens of a text, none of them MASK where it is a word as well."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False)
        if self.mask_id not in ids or not self._mask_parts:
            return ids
        return [part for index in ids for part in (self._mask_parts if index == self.mask_id else [index])]

    def inside(self, ids: Iterable[int]) -> list[int]:
        """The tokens of one sequence: those after START, up to the first token that ends a text."""
        tokens: list[int] = []
        for place, index in enumerate(map(int, ids)):
            if place == 0 and index == self.start_id:
                continue
            if index in self.stop_ids or index == self.mask_id:
                break
            tokens.append(index)
        return tokens

    def prompt_ids(self, text: str) -> list[int]:
        """START and the tokens of a text to be continued."""
        return [self.start_id, *self._ids_of(text)]

    @property
    def chats(self) -> bool:
        """Whether it has a template for the turns of a conversation."""
        return self.inner.chat_template is not None

    def turn_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the answer begins; a template that can ask for reasoning does not,
        because controls are about the answer.

        Raises:
            ModelError: the template of the checkpoint fails on it.
        """
        try:
            text = self.inner.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False, enable_thinking=False
            )
        except Exception as error:  # a template may raise anything
            raise ModelError(f"its chat template fails: {short_message(error)}.", remedy="Set `chat: false`.") from None
        return self._ids_of(str(text)) or [self.start_id]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder contains the files of a tokeniser."""
    return any(os.path.lexists(folder / name) for name in ("tokenizer.json", "vocab.json", "vocab.txt"))


def read_tokenizer(
    folder: Path,
    splitting: Literal["gpt2", "qwen2"],
    mask_id: int | None,
    default_roles: Mapping[str, str] = MappingProxyType({}),
    mask_token: str | None = None,
) -> CheckpointTokenizer:
    """The tokeniser in a folder: from ``tokenizer.json``, from ``vocab.json`` with ``merges.txt``, or from the
    ``vocab.txt`` of a BERT.

    Args:
        splitting: how text is split before the merges.
        mask_id: the id of MASK, if the configuration of the model has it.
        default_roles: the special tokens of an encoder by role. Given, a text begins and ends with its ``cls_token``
            and ``sep_token``, if it names them.
        mask_token: MASK, if nothing says which token it is.

    Raises:
        ModelError: a file is missing or damaged, or there is no END or no MASK.
    """
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer_config.json"
    settings = read_object(path) if os.path.lexists(path) else {}
    special_path = folder / "special_tokens_map.json"
    special = read_object(special_path) if os.path.lexists(special_path) else {}
    try:
        core = _core(folder, splitting, settings)
        named = {**special, **settings}
        if default_roles:
            named |= _around(core, named)
        roles = {role: _content(named.get(f"{role}_token")) or default_roles.get(role) for role in ROLES}
        for role, token in roles.items():
            if token is not None and core.token_to_id(token) is None:
                what = f"the {role}_token {readable(repr(token), 40)} is not among its tokens."
                raise ModelError(what, where=str(folder), remedy="The tokenizer may be of another kind of model.")
        inner = PreTrainedTokenizerFast(
            tokenizer_object=core,
            chat_template=_template(folder, settings),
            **{f"{role}_token": token for role, token in roles.items() if token is not None},
        )
    except ModelError:
        raise
    except BaseException as error:
        # A panic of the tokenizers library is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"no tokenizer could be read: {short_message(error)}.", where=str(folder)) from None
    if mask_id is None:
        mask_id = core.token_to_id(mask_token) if inner.mask_token is None and mask_token else inner.mask_token_id
    if mask_id is None or inner.eos_token_id is None:
        lacking = "MASK (mask_token_id)" if mask_id is None else "END (eos_token)"
        remedy = "A model that writes from left to right has no MASK, and cannot be used." if mask_id is None else None
        what = f"neither its configuration nor its tokenizer says which token is {lacking}."
        raise ModelError(what, where=str(path), remedy=remedy)
    return CheckpointTokenizer(inner, mask_id, inner.unk_token_id if default_roles else None)


def _around(core: Tokenizer, named: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens before and after a text of an encoder: those that the tokenizer itself adds, or CLS and SEP."""
    added = core.encode("").tokens
    first, last = added if len(added) == 2 else (named.get("cls_token"), named.get("sep_token"))
    return {"bos_token": first, "eos_token": last}


def _core(folder: Path, splitting: Literal["gpt2", "qwen2"], settings: dict[str, Any]) -> Tokenizer:
    tokenizer_path = folder / "tokenizer.json"
    if os.path.lexists(tokenizer_path):
        content = read_object(tokenizer_path, limit=MAX_TOKENIZER)
        model = content.get("model")
        _check_ids(model.get("vocab") if isinstance(model, dict) else None, tokenizer_path)
        _check_ids(content.get("added_tokens"), tokenizer_path)
        return Tokenizer.from_file(str(tokenizer_path))
    if os.path.lexists(folder / "vocab.txt"):
        return _word_pieces(folder / "vocab.txt", settings)
    vocab_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    if not os.path.lexists(vocab_path):
        remedy = "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes it."
        raise ModelError("has no tokenizer: tokenizer.json is missing.", where=str(folder), remedy=remedy)
    require_file(merges_path, MAX_TOKENIZER)
    _check_ids(read_object(vocab_path, limit=MAX_TOKENIZER), vocab_path)
    core = Tokenizer(models.BPE.from_file(str(vocab_path), str(merges_path)))
    core.decoder = decoders.ByteLevel()
    if splitting == "qwen2":
        core.normalizer = normalizers.NFC()
        split_words = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.pre_tokenizer = pre_tokenizers.Sequence([split_words, to_bytes])
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _add(core, settings.get("added_tokens_decoder"), folder / "tokenizer_config.json")
    return core


def _word_pieces(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """The tokeniser of a BERT (Devlin et al. 2019) whose pieces are the lines of a file.

    That of a Japanese BERT (``BertJapaneseTokenizer`` of ``transformers``) takes words apart that MeCab has found. Here
    words are what spaces separate, as in its own texts.
    """
    tokens = read_text(path, limit=MAX_TOKENIZER).rstrip("\n").split("\n")  # a token may be another line separator
    unknown = _content(settings.get("unk_token")) or "[UNK]"
    core = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token=unknown))
    core.decoder = decoders.WordPiece()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    accents = settings.get("strip_accents")
    is_japanese = settings.get("word_tokenizer_type") not in (None, "basic")
    core.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False and not is_japanese,
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=settings.get("do_lower_case") is not False,
    )
    if is_japanese:
        core.normalizer = normalizers.Sequence([normalizers.NFKC(), core.normalizer])
    if settings.get("subword_tokenizer_type") == "character":
        to_characters = pre_tokenizers.Split(Regex("."), behavior="isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([core.pre_tokenizer, to_characters])
    return core


def _check_ids(entries: Any, path: Path) -> None:
    """Check that ids are within the size of a vocabulary: the library allocates memory up to the largest."""
    items = entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else []
    for item in items:
        index = item.get("id", 0) if isinstance(item, dict) else item
        if isinstance(index, int) and not 0 <= index < MOST_IDS:
            raise ModelError(f"has the id {index}, but no vocabulary is that large.", where=str(path))


def _add(core: Tokenizer, added: Any, path: Path) -> None:
    """Add tokens ``{"id": {"content": ...}}``, and check that they get these ids."""
    if added is None:
        return
    if not isinstance(added, dict) or len(added) > MOST_ADDED or not all(map(_ID.fullmatch, added)):
        raise ModelError("added_tokens_decoder must be an object of id to token.", where=str(path))
    for key in sorted(added, key=int):
        content = _content(added[key])
        flags = added[key] if isinstance(added[key], dict) else {}
        if content is None:
            raise ModelError(f"the added token {key} has no content.", where=str(path))
        core.add_tokens([AddedToken(content, special=flags.get("special") is True, normalized=False)])
        if core.token_to_id(content) != int(key):
            what = f"the added token {key} would have the id {core.token_to_id(content)}."
            raise ModelError(what, where=str(path), remedy="It belongs to another vocabulary.")


def _content(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and 0 < len(text) <= MOST_TOKEN else None


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The chat template: a file of its own, or an entry of the settings; of several, the one named ``default``."""
    path = folder / "chat_template.jinja"
    if os.path.lexists(path):
        return read_text(path)
    json_path = folder / "chat_template.json"
    content = read_json(json_path) if os.path.lexists(json_path) else settings
    template = content.get("chat_template") if isinstance(content, dict) else None
    if isinstance(template, list):
        templates = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = templates.get("default")
    return template if isinstance(template, str) else None
