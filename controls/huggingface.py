"""A Hugging Face sequence classifier that reads a diffusion model's expected words instead of text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl import BatchContext, ControlState, Energy, Prepared
from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.checkpoint.resolve import resolve_outside
from dlmctl.control.text_labels import find_label
from dlmctl.errors import ModelError, brief
from dlmctl.models.numerics import widened
from dlmctl.text.fields import Value
from dlmctl.text.tokenizer import Tokenizer, loading_fault

from .bridge import BridgedClassifier, end_ids


@lru_cache(maxsize=4)
def load_outside(source: str, tokenizer: Tokenizer) -> WordClassifier | BridgedClassifier:
    """A sequence classifier of others, ready to read the probabilities of a model's tokens; loaded once for each.

    Args:
        source: a folder or hub name.
        tokenizer: the model's; where each of its tokens is one of the classifier's, that reads expected embeddings
            directly, else by ``BridgedClassifier``.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or is none.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = resolve_outside(source)
    try:
        with without_progress_bars():
            network = AutoModelForSequenceClassification.from_pretrained(found, trust_remote_code=False)
        theirs = AutoTokenizer.from_pretrained(found, trust_remote_code=False)
    except Exception as error:  # whatever the hub, a file or the library may raise
        raise ModelError(f"no sequence classifier could be loaded: {loading_fault(error)}.", where=source) from None
    if not theirs.is_fast:
        raise ModelError("its tokenizer says not where its tokens stand in a text.", where=source)
    network = network.eval().requires_grad_(False)
    ids = token_ids(tokenizer, theirs)
    try:
        if ids is None:
            return BridgedClassifier(network, theirs, tokenizer)
        return WordClassifier(network, theirs, tokenizer, ids)
    except Exception as error:  # as those made of T5 raise
        raise ModelError(f"the classifier cannot be given embeddings of words: {brief(error)}.", where=source) from None


def guided_by(source: str, batch: BatchContext[Any], wanted: Sequence[Value]) -> Prepared:
    """Guidance of a batch towards wanted labels by a sequence classifier of others.

    Raises:
        ModelError: as of ``load_outside``.
        RecipeError: it has no such label.
    """
    network = load_outside(source, batch.vocabulary).to(batch.device)
    classes = torch.tensor([find_label(label, network.labels) for label in wanted], device=batch.device)

    def energy(state: ControlState) -> Tensor:
        """-log p(label given the expected words)."""
        return F.cross_entropy(widened(network(state.word_log_probs.exp())), classes, reduction="none")

    return Energy(energy, looks=True)


class WordClassifier(BridgedClassifier):
    """As its base, where every word of the model is one token of the classifier.

    It receives the expectation of its own embeddings, p(word) E_classifier, in place of a word's.

    Args:
        ids: of every word of the model the token of the classifier ``[V]``.
    """

    def __init__(self, network: Any, theirs: Any, tokenizer: Tokenizer, ids: Tensor) -> None:
        self.ids = ids
        super().__init__(network, theirs, tokenizer)
        self.pad_id, self.ends = tokenizer.pad_id, sorted(end_ids(tokenizer))

    def _means(self) -> Tensor:
        return self.network.get_input_embeddings().weight.detach()[self.ids].float()

    def forward(self, probabilities: Tensor) -> Tensor:
        likeliest = probabilities.argmax(-1)
        ends = torch.isin(likeliest, torch.tensor(self.ends, device=likeliest.device))
        ends[:, 0] = False
        behind = ends.cumsum(1) > ends.long()  # what stands behind the first END is no part of the text
        inside = (likeliest != self.pad_id) & ~behind
        inside[:, 0] = True
        return self._logits(probabilities @ self.table, inside.long())


def token_ids(tokenizer: Tokenizer, theirs: Any) -> Tensor | None:
    """Of every word of the model the token of the classifier's tokenizer ``theirs``: ``[V]``; None where one lacks.

    START and END become the classifier's own tokens for the ends of a text, PAD and UNK theirs.
    """
    vocabulary: dict[str, int] = theirs.get_vocab()
    roles = {
        tokenizer.start_id: ("cls_token_id", "bos_token_id"),
        tokenizer.end_id: ("sep_token_id", "eos_token_id"),
        tokenizer.unk_id: ("unk_token_id",),
        tokenizer.pad_id: ("pad_token_id", "eos_token_id"),
    }
    found = []
    for index in range(len(tokenizer)):
        if index in roles:
            ids = [getattr(theirs, role) for role in roles[index]]
            found.append(next((at for at in ids if at is not None), 0))
        elif (word := tokenizer.token(index)) in vocabulary:
            found.append(vocabulary[word])
        else:
            return None
    return torch.tensor(found)
