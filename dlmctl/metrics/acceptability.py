"""Acceptability: how likely a careful reader takes a text for a sound sentence, as learned from readers' verdicts.

A language model says how likely a text is, and a likely text may be absurd. What tells the two apart is learned by
``dlmctl train acceptability`` and lies beside the model, in ``controls/acceptability``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlmctl.checkpoint.control_weights import ACCEPTABILITY, check_control_weights, find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import load_weights, require_fit
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError
from dlmctl.metrics.fluency import Fluency, flaws
from dlmctl.models.acceptability import Acceptability
from dlmctl.models.llama import LlamaDenoiser
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import WordCounts, load_counts

TRAIN = "Train it: `dlmctl train acceptability` (docs/training.md)."
# Most texts that are read at once.
TOGETHER = 256
# More than any adapter needs.
MOST_RANK = 1024


@dataclass(frozen=True)
class Reader:
    """What has learned from readers which texts of a model they accept.

    Attributes:
        network: the model's own; weights: the matrices that it computes with here.
        counts: how often words occur, for the flaws of a text; None where the model does not say.
    """

    network: LlamaDenoiser
    judge: Acceptability
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    counts: WordCounts | None

    @torch.no_grad()
    def read(
        self, texts: Sequence[Sequence[str]], found: Sequence[Fluency | None], *, alone: bool = False
    ) -> list[Fluency | None]:
        """The fluency of texts, given as words, with their ``acceptability``; None of those without a fluency, and
        no acceptability of those that are longer than the network reads.

        Args:
            alone: as of ``fluency_of``.
        """
        rows = [self.tokenizer.encode(words) for words in texts]
        most = self.network.config.max_length
        readable = [at for at, row in enumerate(rows) if found[at] is not None and len(row) <= most]
        size = 1 if alone else TOGETHER
        read = list(found)
        for some in (readable[at : at + size] for at in range(0, len(readable), size)):
            for at, one in zip(some, self._log_odds([rows[at] for at in some], texts, found, some), strict=True):
                fluency = found[at]
                read[at] = fluency and fluency._replace(acceptability=1 / (1 + math.exp(-one)))
        return read

    def _log_odds(
        self,
        rows: Sequence[Sequence[int]],
        texts: Sequence[Sequence[str]],
        found: Sequence[Fluency | None],
        some: Sequence[int],
    ) -> list[float]:
        device, width = self.judge.bias.device, max(map(len, rows))
        ids = torch.tensor([[*row, *[self.tokenizer.pad_id] * (width - len(row))] for row in rows], device=device)
        lengths = torch.tensor(list(map(len, rows)), device=device)
        own = torch.tensor([flaws(found[at], texts[at], self.counts) for at in some], device=device)
        odds: Tensor = self.judge(self.network, self.weights, ids, lengths, own)
        return odds.double().tolist()


def load_reader(pretrained: Pretrained) -> Reader:
    """What has learned which texts of a model are sound.

    Raises:
        ModelError: the model has none, or a file of it is damaged or of another model.
    """
    model = pretrained.model
    folder = find_control_folder(pretrained.folder, model, ACCEPTABILITY)
    if folder is None or not isinstance(model, MaskedLM):
        raise ModelError("has not learned which texts readers accept.", where=str(pretrained.folder), remedy=TRAIN)
    check_control_weights(folder, model)
    state = load_weights(folder)
    judge = Acceptability(model.denoiser, model.denoiser.config.hidden, _rank_of(state, folder))
    require_fit(state, judge.state_dict(), folder / "model.safetensors")
    judge.load_state_dict(state)
    judge.to(model.embeddings.device).eval()
    with torch.no_grad():
        weights = judge.weights(model.denoiser)
    return Reader(model.denoiser, judge, weights, pretrained.tokenizer, load_counts(pretrained.folder))


def has_reader(pretrained: Pretrained) -> bool:
    """Whether ``load_reader`` finds one."""
    return find_control_folder(pretrained.folder, pretrained.model, ACCEPTABILITY) is not None


def _rank_of(state: Mapping[str, Tensor], folder: Path) -> int:
    first = state.get("up.0")
    rank = first.shape[1] if first is not None and first.ndim == 2 else 0
    if not 0 < rank <= MOST_RANK:
        raise ModelError("holds no adapters.", where=str(folder / "model.safetensors"), remedy=TRAIN)
    return rank
