"""Acceptability: how likely a careful reader takes a text for a sound sentence, as learned from readers' verdicts.

A language model says how likely a text is, and a likely text may be absurd. What tells the two apart is learned by
``dlmctl train acceptability`` and lies beside the model, in ``controls/acceptability``.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dlmctl.checkpoint.control_weights import acceptability_folder, check_control_weights, network_digest
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import load_weights, require_fit, without_draws
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError
from dlmctl.metrics.fluency import Fluency, figures_of
from dlmctl.metrics.lm_score import stacked
from dlmctl.models.acceptability import Acceptability
from dlmctl.models.adapters import MOST_RANK, merged
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import WordCounts, load_counts

TRAIN = "Train it: `dlmctl train acceptability` (docs/training.md)."
# The key in a card for the digest of the network that it was learned beside.
NETWORK = "network"
# The key for the digest of the scorer whose figures it learned to weigh.
SCORER = "scorer"
TOLD_BY = 1 << 18
"""Bytes of its weights that tell one from another."""
# Most texts that are read at once.
TOGETHER = 256


@dataclass(frozen=True)
class Reader:
    """What has learned from readers which texts of a model they accept.

    Attributes:
        network: the model's own, with the matrices of the judge; judge: what was learned.
        longest: positions that it can read, START and END among them.
        tokenizer: of the model.
        counts: how often words occur, for the flaws of a text; None where the model does not say.
    """

    network: nn.Module
    judge: Acceptability
    longest: int
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
        readable = [at for at, row in enumerate(rows) if found[at] is not None and len(row) <= self.longest]
        size = 1 if alone else TOGETHER
        read = list(found)
        for some in (readable[at : at + size] for at in range(0, len(readable), size)):
            for at, one in zip(some, self._chances([rows[at] for at in some], texts, found, some), strict=True):
                fluency = found[at]
                read[at] = fluency and fluency._replace(acceptability=one)
        return read

    def _chances(
        self,
        rows: Sequence[Sequence[int]],
        texts: Sequence[Sequence[str]],
        found: Sequence[Fluency | None],
        some: Sequence[int],
    ) -> list[float]:
        device = self.judge.bias.device
        ids = stacked(rows, self.tokenizer.pad_id, device)
        lengths = torch.tensor(list(map(len, rows)), device=device)
        judged = [(fluency, texts[at]) for at in some if (fluency := found[at]) is not None]
        own = torch.tensor([figures_of(fluency, words, self.counts) for fluency, words in judged], device=device)
        odds: Tensor = self.judge(self.network, {}, ids, lengths, own)
        chances: list[float] = odds.double().sigmoid().tolist()
        if any(map(math.isnan, chances)):
            raise ModelError("what was learned of acceptability gives no number.", remedy=TRAIN)
        return chances


_LOADED: WeakKeyDictionary[nn.Module, Reader | ModelError] = WeakKeyDictionary()


def forget_reader(model: nn.Module) -> None:
    """Read what was learned for a model from disk again when it is next asked for."""
    _LOADED.pop(model, None)


def load_reader(pretrained: Pretrained) -> Reader:
    """What has learned which texts of a model are sound, on the model's device; read once a model.

    Raises:
        ModelError: the model has none, or a file of it is damaged or of another model.
    """
    model = pretrained.model
    if not isinstance(model, MaskedLM):
        remedy = "Take `fluency` instead: only masked models over words learn it."
        raise ModelError("has not learned which texts readers accept.", where=str(pretrained.folder), remedy=remedy)
    known = _LOADED.get(model)
    if known is None or (isinstance(known, Reader) and known.judge.bias.device != model.embeddings.device):
        try:
            known = _read(pretrained, model)
        except ModelError as error:
            known = error
        _LOADED[model] = known
    if isinstance(known, ModelError):
        raise known
    return known


def find_reader(pretrained: Pretrained) -> Reader | None:
    """``load_reader``, or None where it cannot be had."""
    try:
        return load_reader(pretrained)
    except ModelError:
        return None


def scorer_digest(pretrained: Pretrained) -> str | None:
    """What tells the scorer beside a model from others, None where its weights are not in one file: the SHA-256 of the
    last of them, as all change when one is trained, and a whole file would take time at every start."""
    weights = pretrained.folder / "scorer" / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        file.seek(-min(TOLD_BY, weights.stat().st_size), os.SEEK_END)
        return hashlib.sha256(file.read()).hexdigest()


def _read(pretrained: Pretrained, model: MaskedLM) -> Reader:
    judge = read_judge(pretrained, model).to(model.embeddings.device).eval()
    longest, counts = model.denoiser.config.max_length, load_counts(pretrained.folder)
    return Reader(merged(model.denoiser, judge), judge, longest, pretrained.tokenizer, counts)


def read_judge(pretrained: Pretrained, model: MaskedLM, *, any_scorer: bool = False) -> Acceptability:
    """What was learned for a model, as it lies on disk.

    Args:
        any_scorer: the model may have another scorer now than the one whose figures it learned to weigh.

    Raises:
        ModelError: as ``load_reader``.
    """
    folder = acceptability_folder(pretrained.folder, model)
    if folder is None:
        raise ModelError("has not learned which texts readers accept.", where=str(pretrained.folder), remedy=TRAIN)
    card = check_control_weights(folder, model)
    if card.get(NETWORK) not in (None, network_digest(model.denoiser)):
        raise ModelError("was learned beside another network than the model has now.", where=str(folder), remedy=TRAIN)
    if not any_scorer and card.get(SCORER) not in (None, scorer_digest(pretrained)):
        what = "was learned with another scorer than the model has now."
        raise ModelError(what, where=str(folder), remedy=f"Put that one back beside the model. {TRAIN}")
    state = load_weights(folder)
    if "typical" not in state:
        raise ModelError("is of an earlier version.", where=str(folder / "model.safetensors"), remedy=TRAIN)
    with without_draws():
        judge = Acceptability(model.denoiser, model.denoiser.config.hidden, _rank_of(state, folder))
    require_fit(state, judge.state_dict(), folder / "model.safetensors")
    judge.load_state_dict(state)
    return judge


def _rank_of(state: Mapping[str, Tensor], folder: Path) -> int:
    first = state.get("up.0")
    rank = first.shape[1] if first is not None and first.ndim == 2 else 0
    if not 0 < rank <= MOST_RANK:
        raise ModelError("holds no adapters.", where=str(folder / "model.safetensors"), remedy=TRAIN)
    return rank
