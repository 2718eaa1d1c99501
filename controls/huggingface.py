"""A Hugging Face sequence classifier that reads a diffusion model's expected words instead of text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import Tokenizer, loading_fault


class WordClassifier(nn.Module):
    """Word probabilities ``[B, L, V]`` of a model to logits ``[B, labels]``.

    The classifier receives the expectation of its own embeddings, p(word) E_classifier, in place of a word's. So every
    word of the model has to be one token of the classifier.

    Attributes:
        labels: their names, as the classifier's configuration has them.

    Raises:
        ModelError: it cannot be loaded, or its vocabulary lacks words of the model's.
    """

    embeddings: Tensor

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            network = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=False)
            theirs = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # whatever the hub, a file or the library may raise
            raise ModelError(f"no sequence classifier could be loaded: {loading_fault(error)}.", where=source) from None
        self.network = network.eval().requires_grad_(False)
        self.labels = [str(network.config.id2label[at]) for at in range(network.config.num_labels)]
        self.pad_id = tokenizer.pad_id
        table = network.get_input_embeddings().weight
        self.register_buffer("embeddings", table[token_ids(source, tokenizer, theirs)].float())

    def forward(self, probabilities: Tensor) -> Tensor:
        inside = probabilities.argmax(-1) != self.pad_id
        inside[:, 0] = True
        output = self.network(inputs_embeds=probabilities @ self.embeddings, attention_mask=inside.long())
        return output.logits


def token_ids(source: str, tokenizer: Tokenizer, theirs: object) -> Tensor:
    """Of every word of the model the token of the classifier's tokenizer ``theirs``: ``[V]``.

    START and END become the classifier's own tokens for the ends of a text, PAD and UNK theirs.

    Raises:
        ModelError: words are missing there.
    """
    vocabulary: dict[str, int] = theirs.get_vocab()  # type: ignore[attr-defined]
    roles = {
        tokenizer.start_id: ("cls_token_id", "bos_token_id"),
        tokenizer.end_id: ("sep_token_id", "eos_token_id"),
        tokenizer.unk_id: ("unk_token_id",),
        tokenizer.pad_id: ("pad_token_id", "eos_token_id"),
    }
    found, missing = [], []
    for index in range(len(tokenizer)):
        if index in roles:
            ids = [getattr(theirs, role) for role in roles[index]]
            found.append(next((at for at in ids if at is not None), 0))
            continue
        word = tokenizer.words([index])[0]
        found.append(vocabulary.get(word, 0))
        if word not in vocabulary:
            missing.append(word)
    if missing:
        raise ModelError(
            f"{len(missing)} of the model's {len(tokenizer)} words are no tokens here, as {missing[0]!r}.",
            where=source,
            remedy="It must have the model's vocabulary; a model prepared with the classifier's tokenizer "
            "(`dlmctl data prepare --tokenizer`) does.",
        )
    return torch.tensor(found)
