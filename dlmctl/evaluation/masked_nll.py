"""How likely a masked model finds texts: the any-order bound on -log p, in nats a word, given the length and with it.

Where the length of a text is given, only its words are predicted, and the length costs what the lengths of the training
texts make of it. Words outside the vocabulary are context: they are neither predicted nor counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.layout import SPECIAL, positions_for
from dlmctl.diffusion.masked import attended, length_nats, word_places
from dlmctl.diffusion.masked_base import MaskedModel, TextSettings
from dlmctl.diffusion.noise import NOISE, Draw
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation.nll import BINS, Likelihood, Part, Picture, Texts, batches_of, likelihood, ratio_error, words_in
from dlmctl.sampling.draw import Progress
from dlmctl.text.tokenizer import unit_of

# The scores of a whole vocabulary for half of so many positions are held at once.
BATCH_POSITIONS = 2048


class MaskedLikelihood(NamedTuple):
    """The bound over a corpus in nats a word, or a token where the model has those. Parts sum to the bound that the
    network has a share in.

    Attributes:
        nats_given_length: where lengths are given; None for a model that chooses them.
        nats_with_length: with the length; None if a text has a length that no training text had.
        standard_error: of the estimate, from the choice of texts and of noise together; lengths cost no noise.
        parts: what the words cost, by the share of them that is masked.
        unseen_lengths: texts whose length no training text had.
        unknown: share of words, or of tokens, outside the model's vocabulary.
        word_count: words, or tokens, that are predicted, without the unknown ones.
        repeats: numbers of masked words drawn for each text.
        unit: what the nats are of: words, or tokens of a model over tokens.
        written: where the unit is tokens, the words that they write; else as ``word_count``.
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
        """The bound, with the length where that is known, divided by the words that the texts have."""
        given = self.nats_given_length if self.nats_with_length is None else self.nats_with_length
        assert given is not None  # one of the two always is known
        return given * self.word_count / self.written

    def figures(self) -> dict[str, Any]:
        """All of it as plain values, in bits and per text, too."""
        bits = {
            name.replace("nats", "bits"): None if nats is None else nats / math.log(2)
            for name, nats in (
                ("nats_given_length", self.nats_given_length),
                ("nats_with_length", self.nats_with_length),
            )
        }
        whole = None if self.nats_with_length is None else self.nats_with_length * self.word_count / self.sentences
        parts = [part._asdict() for part in self.parts]
        return {**self._asdict(), "parts": parts, **bits, "nats_per_text": whole, "nats_per_word": self.nats_per_word}

    def picture(self) -> Picture:
        """The parts over the share of words that is masked."""
        nats = sum(part.nats for part in self.parts)
        title = f"{nats:.3f} ± {self.standard_error:.3f} nats per {self.unit} over {self.sentences} texts"
        return Picture(self.parts, f"share of the {self.unit}s that is masked", f"nats per {self.unit}", title)


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
        raise UserError("no bound of such a model is known here.", where=str(pretrained.folder))
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
    """The any-order bound over texts (Uria et al. 2014; Ou et al. 2024), estimated ``repeats`` times for each of them.

    The numbers of masked words are spread evenly over a text's repeats. Its noise follows from the seed and its place
    among the texts alone, whatever else is measured with it.

    Args:
        pretrained: a masked model.
        rows: word ids, START to END, none longer than the model.

    Raises:
        DataError: no word is in the model's vocabulary.
    """
    model, tokenizer = pretrained.masked, pretrained.tokenizer
    config, device, done = model.config, model.embeddings.device, 0
    sums, counts, parts = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(BINS)
    positions = [_positions(row, config) for row in rows]
    for numbers, ids in batches_of(rows, positions, tokenizer.pad_id, BATCH_POSITIONS):
        ids = ids.to(device)
        places = word_places(ids, tokenizer, config.lengths)
        mask = attended(ids, tokenizer) if model.hides_padding else None
        mask = None if mask is None or bool(mask.all()) else mask
        share, nats = _estimates(model, ids, places, [Draw(seed, number) for number in numbers], repeats, mask)
        sums[numbers] = nats.mean(0)
        counts[numbers] = word_places(ids, tokenizer).sum(1).cpu().numpy()
        parts += np.bincount((share * BINS).astype(int).flatten(), nats.flatten() / repeats, BINS)
        done += len(numbers)
        if progress is not None:
            progress(done, len(rows))
    words = int(counts.sum())
    if not words:
        raise DataError("no word of the texts is in the model's vocabulary.", where=str(pretrained.folder))
    lengths = torch.tensor([len(row) - SPECIAL for row in rows])
    given, together, unseen = _with_length(float(sums.sum()), config, lengths, words)
    return MaskedLikelihood(
        nats_given_length=given,
        nats_with_length=together,
        standard_error=ratio_error(sums, counts),
        parts=[Part(at / BINS, (at + 1) / BINS, float(nats) / words) for at, nats in enumerate(parts)],
        unseen_lengths=unseen,
        unknown=1 - words / max(1, int(lengths.sum())),
        sentences=len(rows),
        word_count=words,
        repeats=repeats,
        unit=unit_of(tokenizer),
        written=words if unit_of(tokenizer) == "word" else words_in(rows, tokenizer),
    )


def _with_length(
    nats: float, config: TextSettings, lengths: Tensor, words: int
) -> tuple[float | None, float | None, int]:
    """Nats a word given the length and with it, and how many lengths ``[texts]`` have never been seen."""
    if config.lengths == "model":
        return None, nats / words, 0
    if isinstance(config, TokenConfig):  # which nobody told what lengths its training texts had
        return nats / words, None, 0
    cost = length_nats(config, lengths) if sum(config.sentence_lengths) else torch.full(lengths.shape, torch.inf)
    unseen = int(cost.isinf().sum())
    return nats / words, None if unseen else (nats + float(cost.sum())) / words, unseen


@torch.no_grad()
def _estimates(
    model: MaskedModel, ids: Tensor, places: Tensor, draws: Sequence[Draw], repeats: int, mask: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """``[repeats, B]`` shares of masked words, as drawn, and the weighted nats of the masked words there."""
    generators = [draw.generator(NOISE) for draw in draws]
    offset = torch.stack([torch.rand((), generator=source, dtype=torch.float64) for source in generators])
    shares, found = [], []
    for repeat in range(repeats):
        order = [torch.rand(ids.shape[1], generator=source, dtype=torch.float64) for source in generators]
        share = (repeat + offset) / repeats
        where, order_of = share.to(ids.device), torch.stack(order).to(ids.device)
        found.append(model.bound_nats(ids, places, where, order_of, attention_mask=mask).double().cpu())
        shares.append(share)
    return torch.stack(shares).numpy(), torch.stack(found).numpy()


def _positions(row: Sequence[int], config: TextSettings) -> int:
    """Positions of a text: its own, or as many as END and PAD are predicted at."""
    return len(row) if config.lengths == "data" else positions_for(len(row) - SPECIAL, config.length)
