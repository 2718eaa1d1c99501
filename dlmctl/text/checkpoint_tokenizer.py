"""Tokenizers of checkpoints of others, read from their files. No code that lies beside them is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from dlmctl.errors import ModelError, brief
from dlmctl.text.files import read_json, read_object, read_text, require_file
from dlmctl.text.tokenizer import HuggingFaceTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# The largest tokenizers have some 40 MB.
MAX_TOKENIZER = 128 * 2**20
MOST_IDS, MOST_ADDED, MOST_TOKEN = 4_000_000, 100_000, 1000
_ID = re.compile(r"[0-9]{1,7}")
ROLES = ("bos", "eos", "unk", "pad", "mask")
# How Qwen2 splits text before its merges (its tokenizer.json); GPT-2's way is that of ``ByteLevel``.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class CheckpointTokenizer(HuggingFaceTokenizer):
    """The tokenizer of a checkpoint, with the tokens that it has: roles may share one, as END and PAD do in LLaDA.

    Args:
        inner: as read.
        mask_id: the id of MASK.

    Attributes:
        stop_ids: tokens that end a text: END and every other control token, such as the end of a turn.
        unk_id: no text contains MASK, so it stands for what no text contains.
    """

    def __init__(self, inner: PreTrainedTokenizerFast, mask_id: int) -> None:
        self.inner = inner
        self.mask_id = self.unk_id = mask_id
        self.end_id = int(inner.eos_token_id)
        self.start_id = self.end_id if inner.bos_token_id is None else int(inner.bos_token_id)
        self.pad_id = self.end_id if inner.pad_token_id is None else int(inner.pad_token_id)
        added = inner.backend_tokenizer.get_added_tokens_decoder()
        self.stop_ids = {self.end_id, *(index for index, token in added.items() if token.special)}
        self._size = 1 + max(inner.get_vocab().values())

    def __len__(self) -> int:
        return self._size

    def inside(self, ids: Iterable[int]) -> list[int]:
        """The tokens of one sequence: what stands behind START, up to the first token that ends a text."""
        found: list[int] = []
        for place, index in enumerate(map(int, ids)):
            if place == 0 and index == self.start_id:
                continue
            if index in self.stop_ids or index == self.mask_id:
                break
            found.append(index)
        return found

    def prompt_ids(self, text: str) -> list[int]:
        """START and the tokens of a text that another is to go on from."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False)
        return [self.start_id, *ids]

    @property
    def chats(self) -> bool:
        """Whether it says how turns of a conversation are written."""
        return self.inner.chat_template is not None

    def turn_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the answer begins.

        Raises:
            ModelError: the template of the checkpoint fails on it.
        """
        try:
            said = self.inner.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        except Exception as error:  # whatever a template may do
            raise ModelError(f"its chat template fails: {brief(error)}.", remedy="Give `chat: false`.") from None
        ids: list[int] = self.inner.encode(str(said), add_special_tokens=False)
        return ids or [self.start_id]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any(os.path.lexists(folder / name) for name in ("tokenizer.json", "vocab.json"))


def read_tokenizer(folder: Path, splitting: Literal["gpt2", "qwen2"], mask_id: int | None) -> CheckpointTokenizer:
    """The tokenizer in a folder: ``tokenizer.json``, else ``vocab.json`` with ``merges.txt``.

    Args:
        splitting: how text is split before the merges of the latter.
        mask_id: the id of MASK where the configuration of the model says it.

    Raises:
        ModelError: a file is missing or damaged, or there is no END or no MASK.
    """
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer_config.json"
    settings = read_object(path) if os.path.lexists(path) else {}
    more = folder / "special_tokens_map.json"
    special = read_object(more) if os.path.lexists(more) else {}
    try:
        core = _core(folder, splitting, settings)
        roles = {role: _content(settings.get(f"{role}_token", special.get(f"{role}_token"))) for role in ROLES}
        for role, token in roles.items():
            if token is not None and core.token_to_id(token) is None:
                raise ModelError(f"the {role}_token is not among its tokens.", where=str(path))
        inner = PreTrainedTokenizerFast(
            tokenizer_object=core,
            chat_template=_template(folder, settings),
            **{f"{role}_token": token for role, token in roles.items() if token is not None},
        )
    except ModelError:
        raise
    except BaseException as error:
        # A panic of the tokenizers library is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"no tokenizer could be read: {brief(error)}.", where=str(folder)) from None
    if mask_id is None:
        mask_id = inner.mask_token_id
    if mask_id is None or inner.eos_token_id is None:
        lacking = "MASK (mask_token_id)" if mask_id is None else "END (eos_token)"
        raise ModelError(f"neither its configuration nor its tokenizer says which token is {lacking}.", where=str(path))
    return CheckpointTokenizer(inner, mask_id)


def _core(folder: Path, splitting: Literal["gpt2", "qwen2"], settings: dict[str, Any]) -> Tokenizer:
    whole = folder / "tokenizer.json"
    if os.path.lexists(whole):
        content = read_object(whole, limit=MAX_TOKENIZER)
        model = content.get("model")
        _check_ids(model.get("vocab") if isinstance(model, dict) else None, whole)
        _check_ids(content.get("added_tokens"), whole)
        return Tokenizer.from_file(str(whole))
    pieces, merges = folder / "vocab.json", folder / "merges.txt"
    if not os.path.lexists(pieces):
        raise ModelError("has no tokenizer: tokenizer.json is missing.", where=str(folder))
    require_file(merges, MAX_TOKENIZER)
    _check_ids(read_object(pieces, limit=MAX_TOKENIZER), pieces)
    core = Tokenizer(models.BPE.from_file(str(pieces), str(merges)))
    core.decoder = decoders.ByteLevel()
    if splitting == "qwen2":
        core.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _add(core, settings.get("added_tokens_decoder"), folder / "tokenizer_config.json")
    return core


def _check_ids(entries: Any, path: Path) -> None:
    """Check that ids are those of a vocabulary: the library that reads them makes room up to the largest."""
    found = entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else []
    for entry in found:
        index = entry.get("id", 0) if isinstance(entry, dict) else entry
        if isinstance(index, int) and not 0 <= index < MOST_IDS:
            raise ModelError(f"has the id {index}, and no vocabulary is so large.", where=str(path))


def _add(core: Tokenizer, added: Any, path: Path) -> None:
    """Add tokens ``{"id": {"content": ...}}``, which must get the ids that they are to have."""
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
    """How turns are written: a file of its own, or an entry of the settings; of several the one named ``default``."""
    path = folder / "chat_template.jinja"
    if os.path.lexists(path):
        return read_text(path)
    other = folder / "chat_template.json"
    found = read_json(other) if os.path.lexists(other) else settings
    found = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
