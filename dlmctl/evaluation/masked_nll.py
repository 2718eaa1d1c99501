"""Likelihood of texts under masked models: the any-order bound on -log p, in nats a word, without and with the length.

If the length of a text is given, only its words are predicted, and the length costs -log of its frequency in the
training texts. Words outside the vocabulary are context: they are neither predicted nor counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.layout import SPECIAL, positions_for
from dlmctl.diffusion.masked import attended, length_nats, maskable_places
from dlmctl.diffusion.masked_base import MaskedModel, TextSettings
from dlmctl.diffusion.noise import NOISE, Draw
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation.nll import (
    BINS,
    Likelihood,
    Part,
    PlotData,
    Texts,
    count_words,
    length_batches,
    likelihood,
    ratio_error,
)
from dlmctl.sampling.draw import Progress
from dlmctl.text.tokenizer import unit_of

# On average half of these positions are masked, and logits over the whole vocabulary are held for those.
BATCH_POSITIONS = 2048


class MaskedLikelihood(NamedTuple):
    """The bound over a corpus in nats a word, or a token for models over tokens. Parts sum to the share of the bound
    that the network predicts.

    Attributes:
        nats_given_length: given the lengths; None for a model that chooses them.
        nats_with_length: including the length; None if a text has a length that no training text had.
        standard_error: of the estimate, from sampling both texts and noise; lengths add none.
        parts: the cost of the words, by the share that is masked.
        unseen_lengths: number of texts with a length that no training text had.
        unknown: share of words, or of tokens, outside the model's vocabulary.
        word_count: number of predicted words, or tokens, without the unknown ones.
        repeats: maskings drawn for each text.
        unit: whether nats are per word or per token.
        written: number of words, also if the unit is tokens.
    """

    nats_given_length: float | None
    nats_with_length: float | None
    standard_error: float
    parts: list[Part]
    unseen_lengths: int
    unknown: float
    sentences: int
    word_count: int
    repeats: int
    unit: Literal["word", "token"] = "word"
    written: int = 1

    @property
    def nats_per_word(self) -> float:
        """The bound, with the length if known, divided by the number of words."""
        nats = self.nats_given_length if self.nats_with_length is None else self.nats_with_length
        assert nats is not None  # at least one of the two is known
        return nats * self.word_count / self.written

    def figures(self) -> dict[str, Any]:
        """All figures as JSON values, also in bits and per text."""
        bits = {
            name.replace("nats", "bits"): None if nats is None else nats / math.log(2)
            for name, nats in (
                ("nats_given_length", self.nats_given_length),
                ("nats_with_length", self.nats_with_length),
            )
        }
        per_text = None if self.nats_with_length is None else self.nats_with_length * self.word_count / self.sentences
        parts = [part._asdict() for part in self.parts]
        return {
            **self._asdict(),
            "parts": parts,
            **bits,
            "nats_per_text": per_text,
            "nats_per_word": self.nats_per_word,
        }

    def plot_data(self) -> PlotData:
        """The parts over the masked share of words, for ``plot_parts``."""
        nats = sum(part.nats for part in self.parts)
        title = f"{nats:.3f} ± {self.standard_error:.3f} nats per {self.unit} over {self.sentences} texts"
        return PlotData(self.parts, f"share of the {self.unit}s that is masked", f"nats per {self.unit}", title)


def bound_of_texts(
    pretrained: Pretrained,
    texts: Texts,
    *,
    steps: int | None = None,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Likelihood | MaskedLikelihood:
    """The bound of a model of any family over texts; see ``likelihood`` and ``masked_likelihood``.

    Raises:
        UserError: ``steps`` are given for a masked model, whose bound has its time integrated out.
    """
    if pretrained.model.family == "gaussian":
        return likelihood(pretrained, texts, steps=steps, draws=draws, seed=seed, progress=progress)
    if pretrained.model.family == "canvas":
        raise UserError("dlmctl has no bound for models of this family.", where=model_name(pretrained.folder))
    if steps is not None:
        raise UserError("the bound of a masked model has no steps.", where="--steps", remedy="Leave it out.")
    return masked_likelihood(pretrained, texts.rows, repeats=draws, seed=seed, progress=progress)


def masked_likelihood(
    pretrained: Pretrained,
    rows: Sequence[Sequence[int]],
    *,
    repeats: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> MaskedLikelihood:
    """The any-order bound over texts (Uria et al. 2014; Ou et al. 2024), estimated ``repeats`` times for each text.

    The numbers of masked words are spread evenly over a text's repeats. Its noise depends only on the seed and its
    number, not on the texts measured with it.

    Args:
        pretrained: a masked model.
        rows: token ids, START to END, none longer than the model.

    Raises:
        DataError: no word is in the model's vocabulary.
    """
    model, tokenizer = pretrained.masked, pretrained.tokenizer
    config, device, done = model.config, model.embeddings.device, 0
    sums, counts, parts = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(BINS)
    positions = [_positions(row, config) for row in rows]
    for numbers, ids in length_batches(rows, positions, tokenizer.pad_id, BATCH_POSITIONS):
        ids = ids.to(device)
        places = maskable_places(ids, tokenizer, config.lengths)
        mask = attended(ids, tokenizer) if model.hides_padding else None
        mask = None if mask is None or bool(mask.all()) else mask
        share, nats = _estimates(model, ids, places, [Draw(seed, number) for number in numbers], repeats, mask)
        sums[numbers] = nats.mean(0)
        counts[numbers] = maskable_places(ids, tokenizer).sum(1).cpu().numpy()
        parts += np.bincount((share * BINS).astype(int).flatten(), nats.flatten() / repeats, BINS)
        done += len(numbers)
        if progress is not None:
            progress(done, len(rows))
    word_count = int(counts.sum())
    if not word_count:
        raise DataError("no word of the texts is in the model's vocabulary.", where=model_name(pretrained.folder))
    lengths = torch.tensor([len(row) - SPECIAL for row in rows])
    given_length, with_length, unseen = _per_word(float(sums.sum()), config, lengths, word_count)
    return MaskedLikelihood(
        nats_given_length=given_length,
        nats_with_length=with_length,
        standard_error=ratio_error(sums, counts),
        parts=[Part(at / BINS, (at + 1) / BINS, float(nats) / word_count) for at, nats in enumerate(parts)],
        unseen_lengths=unseen,
        unknown=1 - word_count / max(1, int(lengths.sum())),
        sentences=len(rows),
        word_count=word_count,
        repeats=repeats,
        unit=unit_of(tokenizer),
        written=word_count if unit_of(tokenizer) == "word" else count_words(rows, tokenizer),
    )


def _per_word(
    nats: float, config: TextSettings, lengths: Tensor, word_count: int
) -> tuple[float | None, float | None, int]:
    """Nats a word given the length and including it, and how many of the ``lengths [texts]`` are unseen."""
    if config.lengths == "model":
        return None, nats / word_count, 0
    if isinstance(config, TokenConfig):  # the lengths of its training texts are unknown
        return nats / word_count, None, 0
    cost = length_nats(config, lengths) if sum(config.sentence_lengths) else torch.full(lengths.shape, torch.inf)
    unseen = int(cost.isinf().sum())
    return nats / word_count, None if unseen else (nats + float(cost.sum())) / word_count, unseen


@torch.no_grad()
def _estimates(
    model: MaskedModel, ids: Tensor, places: Tensor, draws: Sequence[Draw], repeats: int, mask: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """The drawn shares of masked words and the weighted nats of those words, both ``[repeats, B]``."""
    generators = [draw.generator(NOISE) for draw in draws]
    offset = torch.stack([torch.rand((), generator=source, dtype=torch.float64) for source in generators])
    shares, estimates = [], []
    for repeat in range(repeats):
        order = [torch.rand(ids.shape[1], generator=source, dtype=torch.float64) for source in generators]
        share = (repeat + offset) / repeats
        device_share, device_order = share.to(ids.device), torch.stack(order).to(ids.device)
        estimates.append(model.bound_nats(ids, places, device_share, device_order, attention_mask=mask).double().cpu())
        shares.append(model.noise_share(places, device_share).cpu())
    return torch.stack(shares).numpy(), torch.stack(estimates).numpy()


def _positions(row: Sequence[int], config: TextSettings) -> int:
    """Number of positions of a text: its own, or for models that choose lengths all those with END and PAD, too."""
    return len(row) if config.lengths == "data" else positions_for(len(row) - SPECIAL, config.length)
