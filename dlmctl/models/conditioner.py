"""What conditions a denoiser: a label beside the time, a source to attend to, and how long a text they call for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlmctl.models.interface import Conditioning
from dlmctl.models.transformer import Block, TransformerConfig
from dlmctl.models.ushape import UShapeConfig

# Ids of the special tokens of sources, as WordTokenizer.from_corpus gives them.
START, END, PAD = 0, 1, 3


def pad_sources(rows: Sequence[Sequence[int]]) -> Tensor:
    """Source ids as one ``[B, S]`` tensor."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


class SourceEncoder(nn.Module):
    """A transformer over the words of the source: ids ``[B, S]`` and their mask to ``[B, S, hidden]``."""

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
    """From numbers of labels and ids of sources to what the denoiser receives, and to the lengths they call for.

    A new label shifts nothing, so that a model may start from the weights of one without labels. The number after
    the last label stands for none (Ho and Salimans 2022); a source of START and END alone stands for no source.

    Args:
        config: sizes of the denoiser; the source encoder has ``source_layers`` of the same blocks.
        labels: how many labels there are; 0 for a model without.
        source_vocab: words of the sources; 0 for a model without.
        source_length: most words of a source.
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
        """Labels ``[B]`` and sources ``[B, 2]`` that say nothing."""
        device = next(self.parameters()).device
        labels = sources = None
        if self.label is not None:
            labels = torch.full((batch,), self.label.num_embeddings - 1, device=device)
        if self.source is not None:
            sources = torch.full((batch, 2), END, device=device)
            sources[:, 0] = START
        return labels, sources

    def forward(self, labels: Tensor | None, sources: Tensor | None) -> Conditioning:
        """Numbers of labels ``[B]``, ids of sources ``[B, S]`` padded with ``PAD``."""
        shift = memory = mask = None
        if self.label is not None and labels is not None:
            shift = self.label(labels)
        if self.source is not None and sources is not None:
            mask = sources != PAD
            memory = self.source(sources, mask)
        return Conditioning(shift, memory, mask)

    def length_logits(self, labels: Tensor | None, conditioning: Conditioning) -> Tensor:
        """Logits ``[B, length]`` of the number of words of the text.

        A text is laid out before it is drawn, so its length has to come from somewhere (compare Ghazvininejad et al.
        2019, section 3.3). The encoder does not learn from it.
        """
        total = torch.zeros((), device=next(self.parameters()).device)
        if self.label_lengths is not None and labels is not None:
            total = total + self.label_lengths(labels)
        if self.source_lengths is not None and conditioning.memory is not None and conditioning.mask is not None:
            weights = conditioning.mask / conditioning.mask.sum(1, keepdim=True)
            total = total + self.source_lengths((conditioning.memory.detach() * weights[..., None]).sum(1))
        return total
