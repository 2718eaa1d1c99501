"""A Hugging Face sequence classifier with a vocabulary of its own, guided by what another model's tokens are to it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlmctl.models.numerics import widened
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.spelling import plain
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer


class BridgedClassifier(nn.Module):
    """Token probabilities ``[B, L, V]`` of a model to logits ``[B, labels]`` of a classifier of texts.

    The likeliest text is tokenised as the classifier wants it, so it reads real tokens, each of which belongs to a
    place of the model's text. To its embedding comes what the model's other choices for that place would change: the
    expectation of their embeddings, each the mean over the tokens that the choice is to the classifier, less that of
    the likeliest one. That soft embedding carries the gradient. Where a place is undecided, a mean of many embeddings
    is like none of them, so the value moves to the hard one: e = soft + stop_gradient(w (hard - soft)), w the entropy
    of the place over that of a uniform choice (EntRGi, arXiv 2602.05000).

    Args:
        network, theirs: the classifier and its tokenizer.
        tokenizer: the model's.
    """

    table: Tensor

    def __init__(self, network: Any, theirs: Any, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.network, self.theirs, self.tokenizer = network, theirs, tokenizer
        if theirs.pad_token is None:  # what fills up is never read, so any token will do
            theirs.pad_token = theirs.eos_token or theirs.convert_ids_to_tokens(0)
        theirs.padding_side = "right"
        self.reads_last = reads_last(network)
        self.labels = [str(network.config.id2label[at]) for at in range(network.config.num_labels)]
        self.register_buffer("table", self._means())
        self.longest = min(int(theirs.model_max_length), int(getattr(network.config, "max_position_embeddings", 10**6)))

    @torch.no_grad()
    def _means(self) -> Tensor:
        """The mean embedding ``[V, H]`` of the tokens that each token of the model is to the classifier; 0 of those
        that are no text."""
        embeddings = self.network.get_input_embeddings().weight.float()
        texts = _texts(self.tokenizer)
        rows = self.theirs([text or "" for text in texts], add_special_tokens=False)["input_ids"]
        owner = torch.tensor([at for at, row in enumerate(rows) for _ in row], dtype=torch.long)
        flat = torch.tensor([index for row in rows for index in row], dtype=torch.long)
        sums = torch.zeros(len(texts), embeddings.shape[1]).index_add(0, owner, embeddings[flat])
        counts = torch.bincount(owner, minlength=len(texts)).clamp(min=1)
        return sums / counts[:, None]

    def forward(self, probabilities: Tensor) -> Tensor:
        likeliest = probabilities.argmax(-1)
        texts, places = zip(*(self._text(row) for row in likeliest.tolist()), strict=True)
        read = self._read(texts, return_offsets_mapping=True)
        offsets = read.pop("offset_mapping").tolist()
        at = torch.tensor(
            [[_place(owners, *span) for span in row] for owners, row in zip(places, offsets, strict=True)],
            device=probabilities.device,
        )
        ids, mask = read["input_ids"], read["attention_mask"]
        return self._logits(self._mixed(probabilities, likeliest, ids, at), mask)

    def _logits(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[B, labels]`` of embeddings ``[B, N, H]``, of which those with ``mask [B, N]`` 0 are none."""
        if not self.reads_last:
            return self.network(inputs_embeds=embeddings, attention_mask=mask).logits
        # Such a network takes the last position for the end of each text: every text is read alone, without the rest.
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        sizes = (mask * places).amax(1).clamp(min=1).tolist()
        rows = [
            self.network(inputs_embeds=embeddings[row : row + 1, :size], attention_mask=mask[row : row + 1, :size])
            for row, size in enumerate(sizes)
        ]
        return torch.cat([row.logits for row in rows])

    def _read(self, texts: Sequence[str], **more: Any) -> Any:
        """The texts as the classifier's tokens, filled up to one length, on its device; one filling token where none of
        them has any, as a draft of spaces has none."""
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt", **more}
        read = self.theirs(list(texts), **options)
        if not read["input_ids"].shape[1]:
            read = self.theirs(list(texts), **{**options, "padding": "max_length", "max_length": 1})
        return read.to(self.table.device)

    def _mixed(self, probabilities: Tensor, likeliest: Tensor, ids: Tensor, at: Tensor) -> Tensor:
        """Embeddings ``[B, N, H]`` of the classifier's tokens ``ids [B, N]``, which belong to the places ``at`` of the
        model's text; -1 for none."""
        hard = self.network.get_input_embeddings()(ids).float()
        other = probabilities.float() @ self.table - self.table[likeliest]
        index = at.clamp(min=0)
        moved = other.gather(1, index[..., None].expand(-1, -1, other.shape[2]))
        soft = hard + moved * (at >= 0)[..., None]
        undecided = entropy_share(probabilities.detach()).gather(1, index)[..., None]
        return soft + (undecided * (hard - soft)).detach()

    def _text(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """The text of a row, and of each of its characters the place that it comes from."""
        if isinstance(self.tokenizer, HuggingFaceTokenizer):
            return _text_of_tokens(self.tokenizer, ids)
        return _text_of_words(self.tokenizer, ids)

    @torch.no_grad()
    def chances(self, texts: Sequence[str]) -> Tensor:
        """Probabilities ``[N, labels]`` of finished texts, by real tokens only."""
        read = self._read(texts)
        ids, mask = read["input_ids"], read["attention_mask"]
        if self.reads_last:
            logits = self._logits(self.network.get_input_embeddings()(ids), mask)
        else:
            logits = self.network(input_ids=ids, attention_mask=mask).logits
        return widened(logits).softmax(-1).cpu()


@torch.no_grad()
def reads_last(network: Any) -> bool:
    """Whether a sequence classifier judges by what stands at the last position, filled up or not, as those made of
    GPT-2 and Llama do where they are given embeddings. Such a network is told that nothing is filled up."""
    table = network.get_input_embeddings().weight
    embeddings = table[torch.arange(3, device=table.device) % len(table)][None]
    mask = torch.ones(1, 3, dtype=torch.long, device=table.device)
    own, network.config.pad_token_id = network.config.pad_token_id, None
    short = network(inputs_embeds=embeddings[:, :2], attention_mask=mask[:, :2]).logits
    mask[:, 2] = 0
    filled = network(inputs_embeds=embeddings, attention_mask=mask).logits
    if torch.allclose(widened(short), widened(filled), rtol=1e-3, atol=1e-5):
        network.config.pad_token_id = own
        return False
    return True


def entropy_share(probabilities: Tensor) -> Tensor:
    """Entropies ``[...]`` of distributions ``[..., V]``, as shares of that of a uniform one."""
    return torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])


def _texts(tokenizer: Tokenizer) -> list[str | None]:
    """What each token of a model is in a text; None for those that are nothing there."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return [None if string is None else string.decode("utf-8", "ignore") for string in tokenizer.strings]
    structure = {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.unk_id}
    return [None if index in structure else plain(tokenizer.token(index)) for index in range(len(tokenizer))]


def end_ids(tokenizer: Tokenizer) -> set[int]:
    """The tokens that end a text, wherever they stand behind its first place."""
    return tokenizer.stop_ids if isinstance(tokenizer, CheckpointTokenizer) else {tokenizer.end_id}


def _text_of_tokens(tokenizer: HuggingFaceTokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    whole, owners, ends = b"", list[int](), end_ids(tokenizer)
    for place, index in enumerate(ids):
        if index in ends and place:
            break
        string = tokenizer.strings[index] or b""
        whole += string
        owners += [place] * len(string)
    text = whole.decode("utf-8", "replace")
    starts, byte = list[int](), 0
    for sign in text:
        starts.append(owners[min(byte, len(owners) - 1)])
        byte += len(sign.encode()) if sign != "\ufffd" else 1
    return text, starts


def _text_of_words(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    text, owners, at = tokenizer.decode(ids), list[int](), 0
    ends = [place for place, index in enumerate(ids) if index == tokenizer.end_id]
    places = range(1, ends[0] if ends else len(ids))
    shown = [place for place in places if ids[place] not in (tokenizer.pad_id, tokenizer.start_id)]
    for place in shown:
        word = plain(tokenizer.token(ids[place]))
        found = re.compile(re.escape(word)).search(text, at)
        end = found.end() if found is not None else at
        owners += [place] * (end - at)
        at = end
    return text, owners + [shown[-1] if shown else 0] * (len(text) - len(owners))


def _place(owners: Sequence[int], start: int, end: int) -> int:
    """The place that most of some characters come from; -1 of none, as for a special token."""
    found = owners[start:end]
    return max(found, key=found.count) if found else -1
