"""Conditioning of a denoiser: a label added to the time, a source to attend to, and the text length they imply."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlmctl.models.interface import Conditioning
from dlmctl.models.transformer import Block, TransformerConfig
from dlmctl.models.ushape import UShapeConfig

# Ids of the special tokens of sources, as WordTokenizer.from_corpus assigns them.
START, END, PAD = 0, 1, 3


def pad_sources(rows: Sequence[Sequence[int]]) -> Tensor:
    """Source ids as a tensor ``[B, S]``, padded with PAD."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


class SourceEncoder(nn.Module):
    """A transformer over the words of the source, from ids ``[B, S]`` and their mask to ``[B, S, hidden]``."""

    def __init__(self, config: TransformerConfig, vocab_size: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, config.hidden)
        self.positions = nn.Embedding(length, config.hidden)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.input_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.hidden) if config.norm_first else nn.Identity()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.input_norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        for block in self.blocks:
            h = block(h, mask)
        return self.final_norm(h)


class Conditioner(nn.Module):
    """Maps label indices and source ids to the denoiser's ``Conditioning``, and to logits of the text length.

    Label embeddings are initialised to zero, so that a model can start from the weights of one without labels. The
    index after the last label means no label (Ho and Salimans 2022); a source of only START and END means no source.

    Args:
        config: sizes of the denoiser; the source encoder has ``source_layers`` blocks of the same sizes.
        labels: number of labels; 0 for a model without labels.
        source_vocab: number of words of the sources; 0 for a model without sources.
        source_length: most words of a source.
        source_layers: blocks of the source encoder.
        length: most positions of a text.
    """

    def __init__(
        self,
        config: TransformerConfig | UShapeConfig,
        *,
        labels: int,
        source_vocab: int,
        source_length: int,
        source_layers: int,
        length: int,
    ) -> None:
        super().__init__()
        self.label = self.label_lengths = self.source = self.source_lengths = None
        if labels:
            self.label, self.label_lengths = (
                nn.Embedding(labels + 1, config.time_width),
                nn.Embedding(labels + 1, length),
            )
            nn.init.zeros_(self.label.weight)
            nn.init.zeros_(self.label_lengths.weight)
        if source_vocab:
            assert isinstance(config, TransformerConfig)
            sizes = config.model_copy(update={"layers": source_layers})
            self.source = SourceEncoder(sizes, source_vocab, source_length)
            self.source_lengths = nn.Linear(config.hidden, length)

    def nothing(self, batch: int) -> tuple[Tensor | None, Tensor | None]:
        """Labels ``[B]`` and sources ``[B, 2]`` that mean no label and no source."""
        device = next(self.parameters()).device
        labels = sources = None
        if self.label is not None:
            labels = torch.full((batch,), self.label.num_embeddings - 1, device=device)
        if self.source is not None:
            sources = torch.full((batch, 2), END, device=device)
            sources[:, 0] = START
        return labels, sources

    def forward(self, labels: Tensor | None, sources: Tensor | None) -> Conditioning:
        """The conditioning for label indices ``[B]`` and source ids ``[B, S]``, padded with ``PAD``."""
        shift = memory = mask = None
        if self.label is not None and labels is not None:
            shift = self.label(labels)
        if self.source is not None and sources is not None:
            mask = sources != PAD
            memory = self.source(sources, mask)
        return Conditioning(shift, memory, mask)

    def length_logits(self, labels: Tensor | None, conditioning: Conditioning) -> Tensor:
        """Logits ``[B, length]`` of the number of words of the text.

        The layout of a text is fixed before sampling, so its length must be predicted (compare Ghazvininejad et al.
        2019, section 3.3). No gradient flows into the encoder.
        """
        logits = torch.zeros((), device=next(self.parameters()).device)
        if self.label_lengths is not None and labels is not None:
            logits = logits + self.label_lengths(labels)
        if self.source_lengths is not None and conditioning.memory is not None and conditioning.mask is not None:
            weights = conditioning.mask / conditioning.mask.sum(1, keepdim=True)
            logits = logits + self.source_lengths((conditioning.memory.detach() * weights[..., None]).sum(1))
        return logits
