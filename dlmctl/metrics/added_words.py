"""Reading words that a model was trained on with, but the network that reads its texts was not."""

from __future__ import annotations

import torch
from torch import nn

from dlmctl.models.llama import LlamaDenoiser
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer
from dlmctl.text.word_matching import start_like_similar


def with_added_words(network: LlamaDenoiser, known: Tokenizer, ours: Tokenizer) -> Tokenizer:
    """Give a network embeddings of further words, in place.

    A word that it does not know is embedded as the mean of the known words that end like it, as at the start of
    training on with such words; one without similar words as UNK. Reading all of them as UNK costs sound texts more:
    a reader that learned from texts without UNK takes it for a flaw.

    Args:
        network: one that nothing else uses.
        known: its words.
        ours: the words that it is to know, too.

    Returns:
        Its words with the added ones after them.
    """
    if not (isinstance(known, WordTokenizer) and isinstance(ours, WordTokenizer)):
        return known
    added = [word for word in ours.vocabulary if word not in known.vocabulary]
    if not added:
        return known
    words = known.extended([added], 1)
    table = network.model.embed_tokens.weight.detach()
    rows = torch.cat([table[: len(known)], table[known.unk_id].expand(len(added), -1)])
    start_like_similar(rows, words, torch.arange(len(known)))
    network.model.embed_tokens = nn.Embedding.from_pretrained(rows)
    return words
