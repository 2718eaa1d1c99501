"""Guidance by a Hugging Face sequence classifier whose vocabulary differs from the model's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlmctl.models.numerics import at_least_float32
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.spelling import plain
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer


class BridgedClassifier(nn.Module):
    """Maps token probabilities ``[B, L, V]`` of a model to logits ``[B, labels]`` of a text classifier.

    The likeliest text is tokenised by the classifier's tokenizer, so that it reads real tokens, each of which belongs
    to a position of the model's text. To the embedding of each is added what the model's other choices for that
    position would change: their expected embedding, where each choice has the mean embedding of its classifier tokens,
    minus that of the likeliest choice. This soft embedding carries the gradient. At an undecided position the mean of
    many embeddings resembles none of them, so the value moves to the hard one: e = soft + stop_gradient(w (hard -
    soft)), with w the entropy of the position over that of a uniform choice (EntRGi, arXiv 2602.05000).

    Args:
        network, theirs: the classifier and its tokenizer.
        tokenizer: the model's tokenizer.
    """

    table: Tensor

    def __init__(self, network: Any, theirs: Any, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.network, self.theirs, self.tokenizer = network, theirs, tokenizer
        if theirs.pad_token is None:  # padding is never read, so any token will do
            theirs.pad_token = theirs.eos_token or theirs.convert_ids_to_tokens(0)
        theirs.padding_side = "right"
        self.reads_last = reads_last(network)
        self.labels = [str(network.config.id2label[at]) for at in range(network.config.num_labels)]
        self.register_buffer("table", self._means())
        self.longest = min(int(theirs.model_max_length), int(getattr(network.config, "max_position_embeddings", 10**6)))

    @torch.no_grad()
    def _means(self) -> Tensor:
        """For each token of the model the mean embedding ``[V, H]`` of its classifier tokens; 0 for tokens without
        text."""
        embeddings = self.network.get_input_embeddings().weight.float()
        texts = _token_texts(self.tokenizer)
        rows = self.theirs([text or "" for text in texts], add_special_tokens=False)["input_ids"]
        owner = torch.tensor([at for at, row in enumerate(rows) for _ in row], dtype=torch.long)
        flat = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        sums = torch.zeros(len(texts), embeddings.shape[1]).index_add(0, owner, embeddings[flat])
        counts = torch.bincount(owner, minlength=len(texts)).clamp(min=1)
        return sums / counts[:, None]

    def forward(self, probabilities: Tensor) -> Tensor:
        likeliest = probabilities.argmax(-1)
        texts, owners = zip(*(self._text(row) for row in likeliest.tolist()), strict=True)
        encoded = self._encode(texts, return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping").tolist()
        positions = torch.tensor(
            [
                [_position_of(row_owners, *span) for span in row]
                for row_owners, row in zip(owners, offsets, strict=True)
            ],
            device=probabilities.device,
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        return self._logits(self._embeddings(probabilities, likeliest, ids, positions), mask)

    def _logits(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[B, labels]`` for embeddings ``[B, N, H]`` with the attention mask ``mask [B, N]``."""
        if not self.reads_last:
            return self.network(inputs_embeds=embeddings, attention_mask=mask).logits
        # Such a network takes the last position as the end of each text, so each text is read alone, without padding.
        numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        sizes = (mask * numbers).amax(1).clamp(min=1).tolist()
        rows = [
            self.network(inputs_embeds=embeddings[row : row + 1, :size], attention_mask=mask[row : row + 1, :size])
            for row, size in enumerate(sizes)
        ]
        return torch.cat([row.logits for row in rows])

    def _encode(self, texts: Sequence[str], **more: Any) -> Any:
        """The texts as the classifier's tokens, padded to one length, on its device; a single padding token if no text
        has any tokens, such as drafts of spaces."""
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt", **more}
        encoded = self.theirs(list(texts), **options)
        if not encoded["input_ids"].shape[1]:
            encoded = self.theirs(list(texts), **{**options, "padding": "max_length", "max_length": 1})
        return encoded.to(self.table.device)

    def _embeddings(self, probabilities: Tensor, likeliest: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """Embeddings ``[B, N, H]`` of the classifier's tokens ``ids [B, N]``, which belong to the ``positions`` of the
        model's text; -1 for none."""
        hard = self.network.get_input_embeddings()(ids).float()
        shift = probabilities.float() @ self.table - self.table[likeliest]
        index = positions.clamp(min=0)
        token_shift = shift.gather(1, index[..., None].expand(-1, -1, shift.shape[2]))
        soft = hard + token_shift * (positions >= 0)[..., None]
        entropy = entropy_share(probabilities.detach()).gather(1, index)[..., None]
        return soft + (entropy * (hard - soft)).detach()

    def _text(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """The text of a row, and for each of its characters the position that it comes from."""
        if isinstance(self.tokenizer, HuggingFaceTokenizer):
            return _text_of_tokens(self.tokenizer, ids)
        return _text_of_words(self.tokenizer, ids)

    @torch.no_grad()
    def label_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Probabilities ``[N, labels]`` for finished texts, from real tokens only."""
        encoded = self._encode(texts)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        if self.reads_last:
            logits = self._logits(self.network.get_input_embeddings()(ids), mask)
        else:
            logits = self.network(input_ids=ids, attention_mask=mask).logits
        return at_least_float32(logits).softmax(-1).cpu()


@torch.no_grad()
def reads_last(network: Any) -> bool:
    """Whether a sequence classifier reads the last position, padding or not, as those based on GPT-2 and Llama do when
    they are passed embeddings. For such a network ``pad_token_id`` is set to None."""
    table = network.get_input_embeddings().weight
    embeddings = table[torch.arange(3, device=table.device) % len(table)][None]
    mask = torch.ones(1, 3, dtype=torch.long, device=table.device)
    pad_token_id, network.config.pad_token_id = network.config.pad_token_id, None
    unpadded = network(inputs_embeds=embeddings[:, :2], attention_mask=mask[:, :2]).logits
    mask[:, 2] = 0
    padded = network(inputs_embeds=embeddings, attention_mask=mask).logits
    if torch.allclose(at_least_float32(unpadded), at_least_float32(padded), rtol=1e-3, atol=1e-5):
        network.config.pad_token_id = pad_token_id
        return False
    return True


def entropy_share(probabilities: Tensor) -> Tensor:
    """Entropies ``[...]`` of distributions ``[..., V]``, as a share of that of a uniform distribution."""
    return torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])


def _token_texts(tokenizer: Tokenizer) -> list[str | None]:
    """The text of each token of a model; None for tokens without text."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return [None if string is None else string.decode("utf-8", "ignore") for string in tokenizer.strings]
    structure = {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.unk_id}
    return [None if index in structure else plain(tokenizer.token(index)) for index in range(len(tokenizer))]


def end_ids(tokenizer: Tokenizer) -> set[int]:
    """The tokens that end a text, at any position after the first."""
    return tokenizer.stop_ids if isinstance(tokenizer, CheckpointTokenizer) else {tokenizer.end_id}


def _text_of_tokens(tokenizer: HuggingFaceTokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    data, byte_owners, ends = b"", list[int](), end_ids(tokenizer)
    for position, token in enumerate(ids):
        if token in ends and position:
            break
        string = tokenizer.strings[token] or b""
        data += string
        byte_owners += [position] * len(string)
    text = data.decode("utf-8", "replace")
    owners, byte = list[int](), 0
    for character in text:
        owners.append(byte_owners[min(byte, len(byte_owners) - 1)])
        byte += len(character.encode()) if character != "\ufffd" else 1
    return text, owners


def _text_of_words(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    text, owners, at = tokenizer.decode(ids), list[int](), 0
    ends = [position for position, token in enumerate(ids) if token == tokenizer.end_id]
    positions = range(1, ends[0] if ends else len(ids))
    shown = [position for position in positions if ids[position] not in (tokenizer.pad_id, tokenizer.start_id)]
    for position in shown:
        word = plain(tokenizer.token(ids[position]))
        match = re.compile(re.escape(word)).search(text, at)
        end = match.end() if match is not None else at
        owners += [position] * (end - at)
        at = end
    return text, owners + [shown[-1] if shown else 0] * (len(text) - len(owners))


def _position_of(owners: Sequence[int], start: int, end: int) -> int:
    """The position that most characters of a span come from; -1 for an empty span, such as a special token."""
    span = owners[start:end]
    return max(span, key=span.count) if span else -1
