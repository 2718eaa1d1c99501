"""Guidance by a Hugging Face sequence classifier that reads a diffusion model's expected words instead of text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl import BatchContext, ControlState, Energy, Prepared
from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.checkpoint.resolve import resolve_for_transformers
from dlmctl.control.text_labels import find_label
from dlmctl.errors import ModelError, short_message
from dlmctl.models.numerics import at_least_float32
from dlmctl.text.fields import Value
from dlmctl.text.tokenizer import Tokenizer, loading_fault

from .bridge import BridgedClassifier, end_ids


@lru_cache(maxsize=4)
def load_outside(source: str, tokenizer: Tokenizer) -> WordClassifier | BridgedClassifier:
    """Load a third-party sequence classifier that reads the probabilities of a model's tokens; cached.

    Args:
        source: a folder or hub name.
        tokenizer: the model's. If each of its tokens is a token of the classifier too, the classifier reads expected
            embeddings directly, otherwise through ``BridgedClassifier``.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or it is not a sequence classifier.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = resolve_for_transformers(source)
    try:
        with without_progress_bars():
            network = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
        theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the hub, a file or the library may raise anything
        raise ModelError(f"no sequence classifier could be loaded: {loading_fault(error)}.", where=source) from None
    if not theirs.is_fast:
        raise ModelError("its tokenizer does not report the offsets of its tokens in a text.", where=source)
    network = network.eval().requires_grad_(False)
    ids = classifier_token_ids(tokenizer, theirs)
    try:
        if ids is None:
            return BridgedClassifier(network, theirs, tokenizer)
        return WordClassifier(network, theirs, tokenizer, ids)
    except Exception as error:  # for instance classifiers based on T5
        raise ModelError(
            f"the classifier does not accept embeddings of words: {short_message(error)}.", where=source
        ) from None


def guided_by(source: str, batch: BatchContext[Any], wanted: Sequence[Value]) -> Prepared:
    """Guidance of a batch towards wanted labels by a third-party sequence classifier.

    Raises:
        ModelError: as ``load_outside``.
        RecipeError: the classifier has no such label.
    """
    network = load_outside(source, batch.vocabulary).to(batch.device)
    classes = torch.tensor([find_label(label, network.labels) for label in wanted], device=batch.device)

    def energy(state: ControlState) -> Tensor:
        """-log p(label given the expected words)."""
        return F.cross_entropy(at_least_float32(network(state.word_log_probs.exp())), classes, reduction="none")

    return Energy(energy, looks=True)


class WordClassifier(BridgedClassifier):
    """A ``BridgedClassifier`` for models in which every word is one token of the classifier.

    It receives the expectation of its own embeddings, p(word) E_classifier, in place of a word's embedding.

    Args:
        ids: the token of the classifier for every word of the model ``[V]``.
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
        is_after_end = ends.cumsum(1) > ends.long()  # positions after the first END are not part of the text
        in_text = (likeliest != self.pad_id) & ~is_after_end
        in_text[:, 0] = True
        return self._logits(probabilities @ self.table, in_text.long())


def classifier_token_ids(tokenizer: Tokenizer, theirs: Any) -> Tensor | None:
    """The token of the classifier's tokenizer ``theirs`` for every word of the model ``[V]``; None if one is missing.

    START and END map to the classifier's own tokens for the ends of a text, PAD and UNK to its own.
    """
    vocabulary: dict[str, int] = theirs.get_vocab()
    roles = {
        tokenizer.start_id: ("cls_token_id", "bos_token_id"),
        tokenizer.end_id: ("sep_token_id", "eos_token_id"),
        tokenizer.unk_id: ("unk_token_id",),
        tokenizer.pad_id: ("pad_token_id", "eos_token_id"),
    }
    ids = []
    for index in range(len(tokenizer)):
        if index in roles:
            candidates = [getattr(theirs, role) for role in roles[index]]
            ids.append(next((candidate for candidate in candidates if candidate is not None), 0))
        elif (word := tokenizer.token(index)) in vocabulary:
            ids.append(vocabulary[word])
        else:
            return None
    return torch.tensor(ids)
