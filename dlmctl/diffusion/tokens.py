"""Third-party masked models over the tokens of any tokenizer: LLaDA, Dream, SDAR, MDLM, SEDD, BERT."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, Unpack

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from torch import Tensor, nn

from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel, NetworkInputs, Scores, Window
from dlmctl.models.prefix import Prefix


class TokenConfig(BaseModel):
    """What a checkpoint declares about itself."""

    model_config = ConfigDict(extra="forbid")

    family: Literal["masked"] = "masked"
    kind: str = Field(description="name of the family, such as LLaDA")
    vocab_size: int = Field(gt=4, le=10_000_000, description="number of ids of the tokenizer")
    length: int = Field(gt=2, le=10_000_000, description="most positions, prompt and text together")
    embed_dim: int = Field(gt=0, description="width of the embeddings")
    mask_id: NonNegativeInt = Field(description="the id of MASK")
    predicts: Literal["same", "next"] = Field(description="which token a position scores: its own or the next")
    sampler: str = Field(description="the sampler of its authors, or the default one")
    block: int | None = Field(
        default=None,
        gt=0,
        description="positions per block: each attends to its own block and those before; None: each attends to all",
    )
    ends: bool = Field(default=True, description="whether the model writes END where a text ends")
    new_tokens: int = Field(default=128, gt=0, description="most tokens of a text, unless others are asked for")
    never: list[NonNegativeInt] = Field(default=[], description="ids beside MASK that no text contains")
    sentence_lengths: list[NonNegativeInt] = []
    tags: list[str] = []
    # For the bound: the number of tokens of a text is given.
    lengths: ClassVar[Literal["data", "model"]] = "data"

    def trained_on(self, sentence_lengths: list[int], special: list[int]) -> TokenConfig:
        """The same after training on texts of which so many have 0, 1, ... tokens: no text is longer than these, and as
        the number of tokens is chosen before, none has ``special`` tokens, such as END."""
        longest = max(1, len(sentence_lengths) - 1)
        learned = {"sentence_lengths": sentence_lengths, "new_tokens": longest}
        return self.model_copy(update={**learned, "ends": False, "never": special})


class Network(Protocol):
    """The interface of a checkpoint's network."""

    @property
    def table(self) -> Tensor: ...

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def head(self, hidden: Tensor) -> Tensor: ...


class BlockNetwork(Network, Protocol):
    """The interface of a network that can attend by blocks."""

    def hidden(
        self, ids: Tensor, mask: Tensor | None = None, block: int | None = None, prefix: Prefix | None = None
    ) -> Tensor: ...


def after_context(canvas: Tensor, read: NetworkInputs) -> tuple[Tensor, Tensor | None, int]:
    """What a network reads: the ids ``[B, S]`` of the context, if there is one, and of a ``canvas [B, L]`` after it;
    which of them are attended to ``[B, S]``, None for all; and the position of the canvas among them."""
    mask, context = read.get("attention_mask"), read.get("context")
    if context is None:
        return canvas, mask, 0
    canvas_mask = torch.ones_like(canvas, dtype=torch.bool) if mask is None else mask
    ids, mask = torch.cat([context.ids, canvas[:, 1:]], 1), torch.cat([context.mask, canvas_mask[:, 1:]], 1)
    return ids, mask, context.ids.shape[1] - 1


class TokenLM(MaskedModel):
    """A masked model over tokens, with the weights of a checkpoint in their stored precision.

    Rows of the embedding table beyond the tokenizer's ids are unused and left out.

    Args:
        network: a module that implements ``Network``.
    """

    family: ClassVar[MaskedFamily] = "tokens"
    settles_tokens = True
    config: TokenConfig
    never: Tensor

    def __init__(self, config: TokenConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network
        never = {index for index in (*config.never, config.mask_id) if index < config.vocab_size}
        self.register_buffer("never", torch.tensor(sorted(never), dtype=torch.long), persistent=False)

    @property
    def hides_padding(self) -> bool:
        """A model that does not end its texts was not trained on what follows them."""
        return not self.config.ends

    @property
    def _reader(self) -> Network:
        network: Network = self.network  # type: ignore[assignment]  # a module cannot be typed as a protocol
        return network

    @property
    def _block_reader(self) -> BlockNetwork:
        network: BlockNetwork = self.network  # type: ignore[assignment]
        return network

    @property
    def mask_id(self) -> int:
        """The id of MASK."""
        return self.config.mask_id

    @property
    def embeddings(self) -> Tensor:
        """The embeddings ``[V, H]`` of all tokens."""
        return self._reader.table[: self.config.vocab_size]

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings ``[..., H]`` of ids of any shape."""
        return self._reader.table[ids]

    def scores_of(self, canvas: Tensor, **read: Unpack[NetworkInputs]) -> Scores:
        """As ``MaskedModel.scores_of``; MASK has probability 0 (Sahoo et al. 2024, section 3.2.3), and ``never`` too.

        If the network scores the next token, its outputs are shifted right by one; the first position has no
        predecessor and uses its own output, as Dream's authors do.
        """
        ids, mask, first = after_context(canvas, read)
        if self.config.block is None:
            hidden = self._reader.hidden(ids, mask)
        else:
            hidden = self._hidden_by_blocks(ids, mask, first, read.get("window"))
        if self.config.predicts == "next":
            hidden = torch.cat([hidden[:, :1], hidden[:, :-1]], 1)
        hidden = hidden[:, first:]
        return lambda positions: self._scores(hidden, positions).to(canvas.device)

    def _hidden_by_blocks(self, ids: Tensor, mask: Tensor | None, prompt: int, window: Window | None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``, the first ``prompt`` of them before the canvas; 0 outside the
        window."""
        reader, block = self._block_reader, self.config.block
        if window is None:
            return reader.hidden(ids, mask, block)
        length, end = ids.shape[1], prompt + window.end
        ids, mask = ids[:, :end], None if mask is None else mask[:, :end]
        kept = window.prefix.kept(ids)
        hidden = reader.hidden(ids, mask, block, window.prefix)
        # If a position scores the next token, the first place of the window needs the one before it.
        window.prefix.keep(ids[:, : max(0, prompt + window.first - (self.config.predicts == "next"))])
        return F.pad(hidden, (0, 0, kept, length - end))

    def bound_nats(
        self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[NetworkInputs]
    ) -> Tensor:
        """As ``MaskedModel.bound_nats``; for models that attend by blocks, the sum of the bounds of all blocks, each
        given those before it (Arriola et al. 2025, section 3.1), estimated from one block of each row at random."""
        if self.config.block is None:
            return super().bound_nats(ids, places, share, order, **read)
        in_block, counts, share_in_block = self._drawn_block(places, share, self.config.block)
        return super().bound_nats(ids, in_block, share_in_block, order, **read) * counts

    def noise_share(self, places: Tensor, share: Tensor) -> Tensor:
        """As ``MaskedModel.noise_share``; for models that attend by blocks, of the block that is drawn."""
        return share if self.config.block is None else self._drawn_block(places, share, self.config.block)[-1]

    @staticmethod
    def _drawn_block(places: Tensor, share: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Those of ``places [B, L]`` that are in one block of each row, drawn by ``share [B]``; the number of blocks
        ``[B]`` that have any; and what is left of the share, again uniform in [0, 1) ``[B]``."""
        block = torch.arange(places.shape[1], device=places.device) // size
        sizes = torch.zeros(len(places), int(block[-1]) + 1, device=places.device).index_add(1, block, places.float())
        has_places = sizes > 0
        counts = has_places.sum(1)
        drawn = (share * counts).long()
        number = (has_places.cumsum(1) <= drawn[:, None]).sum(1)
        return places & (block == number[:, None]), counts, share * counts - drawn

    def _scores(self, hidden: Tensor, positions: Tensor | None) -> Tensor:
        """As ``Scores``, on the device of ``hidden [B, L, H]``: if the network spans several devices, the last one."""
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions.to(hidden.device)]
        scores = self._reader.head(hidden)[..., : self.config.vocab_size]
        return scores.index_fill_(-1, self.never.to(scores.device), -torch.inf)
