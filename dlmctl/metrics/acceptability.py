"""Acceptability: the probability that a careful reader accepts a text as a sound sentence, learned from verdicts.

A language model scores how likely a text is, but a likely text may be absurd. What distinguishes the two is learned by
``dlmctl train acceptability`` and stored with the model, in ``controls/acceptability``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dlmctl.annotators.scorer import stacked
from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.control_weights import acceptability_folder, check_control_weights, network_digest
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.checkpoint.reader import named_reader
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.scorer import scorer_digest, scorer_lineage
from dlmctl.checkpoint.weights import load_weights, require_fit, without_rng_effects
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError
from dlmctl.metrics.added_words import with_added_words
from dlmctl.metrics.fluency import Fluency, figures_of
from dlmctl.models.acceptability import Acceptability
from dlmctl.models.adapters import MOST_RANK, merge_adapters
from dlmctl.models.llama import LlamaDenoiser
from dlmctl.models.numerics import in_float64
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import WordCounts, load_counts

TRAIN = "Train it: `dlmctl train acceptability` (docs/training.md)."
# The key in a card for the digest of the network that the judge was trained with.
NETWORK = "network"
# The key for the digest of the scorer whose figures the judge learned to weigh.
SCORER_KEY = "scorer"
# Most texts in a batch.
BATCH = 256


@dataclass(frozen=True)
class AcceptabilityScorer:
    """Scores the acceptability of a model's texts.

    Attributes:
        network: the model's network, merged with the adapters of the judge; judge: the learned weights.
        folder: of the learned weights.
        longest: the most positions that it can read, including START and END.
        tokenizer: of the network.
        counts: word frequencies, for the flaws of a text; None if the model has none.
    """

    network: nn.Module
    judge: Acceptability
    folder: Path
    longest: int
    tokenizer: Tokenizer
    counts: WordCounts | None

    @torch.no_grad()
    def score(
        self, texts: Sequence[Sequence[str]], fluencies: Sequence[Fluency | None], *, alone: bool = False
    ) -> list[Fluency | None]:
        """Add ``acceptability`` to the fluencies of texts, given as words; None remains None, and texts longer than
        the network reads get no acceptability.

        Args:
            alone: as for ``fluency_of``.
        """
        rows = [self.tokenizer.encode(words) for words in texts]
        readable = [at for at, row in enumerate(rows) if fluencies[at] is not None and len(row) <= self.longest]
        size = 1 if alone else BATCH
        scored = list(fluencies)
        for batch in (readable[at : at + size] for at in range(0, len(readable), size)):
            for at, probability in zip(
                batch, self._probabilities([rows[at] for at in batch], texts, fluencies, batch), strict=True
            ):
                fluency = fluencies[at]
                scored[at] = fluency and fluency._replace(acceptability=probability)
        return scored

    def _probabilities(
        self,
        rows: Sequence[Sequence[int]],
        texts: Sequence[Sequence[str]],
        fluencies: Sequence[Fluency | None],
        batch: Sequence[int],
    ) -> list[float]:
        device = self.judge.bias.device
        ids = stacked(rows, self.tokenizer.pad_id, device)
        lengths = torch.tensor(list(map(len, rows)), device=device)
        fluency_words = [(fluency, texts[at]) for at in batch if (fluency := fluencies[at]) is not None]
        figures = torch.tensor(
            [figures_of(fluency, words, self.counts) for fluency, words in fluency_words], device=device
        )
        log_odds: Tensor = self.judge(self.network, {}, ids, lengths, figures)
        probabilities: list[float] = in_float64(log_odds).sigmoid().tolist()
        if any(map(math.isnan, probabilities)):
            raise ModelError("the acceptability judge gives no number (NaN).", remedy=TRAIN)
        return probabilities


_LOADED: WeakKeyDictionary[nn.Module, AcceptabilityScorer | ModelError] = WeakKeyDictionary()


def forget_acceptability(model: nn.Module) -> None:
    """Drop the cached scorer of a model, so that it is loaded from disk again at the next use."""
    _LOADED.pop(model, None)


def load_acceptability(pretrained: Pretrained) -> AcceptabilityScorer:
    """Load the acceptability scorer of a model onto the model's device; it is cached per model.

    Raises:
        ModelError: the model has none, another scorer was named, or a file is damaged or belongs to another model.
    """
    model = pretrained.model
    if not isinstance(model, MaskedLM):
        remedy = "Take `fluency` instead: only masked models over words learn it."
        raise ModelError(
            "has not learned which texts readers accept.", where=model_name(pretrained.folder), remedy=remedy
        )
    own = pretrained.folder / SCORER
    if pretrained.scorer is not None and scorer_digest(pretrained.scorer) not in scorer_lineage(own):
        what = f"acceptability weighs the figures of the model's own scorer, not those of {str(pretrained.scorer)!r}."
        raise ModelError(what, remedy="Leave `scorer` out, or take `fluency` instead.")
    cached = _LOADED.get(model)
    if cached is None or (
        isinstance(cached, AcceptabilityScorer) and cached.judge.bias.device != model.embeddings.device
    ):
        try:
            cached = _load_scorer(pretrained, model)
        except ModelError as error:
            cached = error
        _LOADED[model] = cached
    if isinstance(cached, ModelError):
        raise cached
    return cached


def find_acceptability(pretrained: Pretrained) -> AcceptabilityScorer | None:
    """``load_acceptability``, or None if it cannot be loaded."""
    try:
        return load_acceptability(pretrained)
    except ModelError:
        return None


def _load_scorer(pretrained: Pretrained, model: MaskedLM) -> AcceptabilityScorer:
    device = model.embeddings.device
    reader = reader_of(pretrained, device)
    network = model
    if reader is not pretrained:
        assert isinstance(reader.model, MaskedLM)
        network = reader.model
        if scorer_digest(reader.folder / SCORER) not in scorer_lineage(pretrained.folder / SCORER):
            raise _other_scorer(pretrained.folder)
    judge = read_judge(reader, network).to(device).eval()
    folder = acceptability_folder(reader.folder, network)
    assert folder is not None
    longest, counts = network.denoiser.config.max_length, load_counts(reader.folder)
    merged = merge_adapters(network.denoiser, judge)
    assert isinstance(merged, LlamaDenoiser)
    words = with_added_words(merged, reader.tokenizer, pretrained.tokenizer)
    return AcceptabilityScorer(merged, judge, folder, longest, words, counts)


def reader_of(pretrained: Pretrained, device: torch.device) -> Pretrained:
    """The model that reads the texts of a model: itself, or the one that it was trained on from.

    Raises:
        ModelError: that one does not exist any more, is of another kind, or does not read texts itself.
    """
    folder = named_reader(pretrained)
    if folder is None:
        return pretrained
    reader = from_pretrained(folder, device)
    if not isinstance(reader.model, MaskedLM) or named_reader(reader) is not None:
        raise ModelError("is not a masked model that reads texts itself.", where=str(folder), remedy=TRAIN)
    return reader


def read_judge(pretrained: Pretrained, model: MaskedLM, *, any_scorer: bool = False) -> Acceptability:
    """Load the learned judge of a model from disk.

    Args:
        any_scorer: accept that the model's scorer is not the one whose figures the judge learned to weigh.

    Raises:
        ModelError: as ``load_acceptability``.
    """
    folder = acceptability_folder(pretrained.folder, model)
    if folder is None:
        raise ModelError(
            "has not learned which texts readers accept.", where=model_name(pretrained.folder), remedy=TRAIN
        )
    if not any(folder.glob("*.safetensors")):
        what = "has no acceptability weights of its own: another model reads its texts."
        raise ModelError(what, where=model_name(pretrained.folder), remedy=TRAIN)
    card = check_control_weights(folder, model)
    if card.get(NETWORK) not in (None, network_digest(model.denoiser)):
        raise ModelError("was learned beside another network than the model has now.", where=str(folder), remedy=TRAIN)
    if not any_scorer and card.get(SCORER_KEY) not in (None, *scorer_lineage(pretrained.folder / SCORER)):
        raise _other_scorer(folder)
    state = load_weights(folder)
    if "typical" not in state:
        raise ModelError("is of an earlier version.", where=str(folder / "model.safetensors"), remedy=TRAIN)
    with without_rng_effects():
        judge = Acceptability(model.denoiser, model.denoiser.config.hidden, _rank_of(state, folder))
    require_fit(state, judge.state_dict(), folder / "model.safetensors")
    judge.load_state_dict(state)
    return judge


def _other_scorer(where: Path) -> ModelError:
    message = "acceptability was learned with another scorer than the model has now."
    remedy = f"Put that one back beside the model, or one that was trained on from it. {TRAIN}"
    return ModelError(message, where=str(where), remedy=remedy)


def _rank_of(state: Mapping[str, Tensor], folder: Path) -> int:
    first = state.get("up.0")
    rank = first.shape[1] if first is not None and first.ndim == 2 else 0
    if not 0 < rank <= MOST_RANK:
        raise ModelError("holds no adapters.", where=str(folder / "model.safetensors"), remedy=TRAIN)
    return rank
