"""Likelihood of texts: the variational bound on -log p, per token and per word, with its parts over t.

A text has the fewest positions that hold it, as in sampling. All of them count in the bound, including PAD: the model
reads them, so the information they carry must be paid for. The sum is divided by the tokens from START to END.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.datasets.dataset import load_split, load_vocabulary, require_split
from dlmctl.datasets.readers import read_corpus, sniff
from dlmctl.diffusion.bound import likelihood_bound
from dlmctl.diffusion.layout import SPECIAL, positions_for
from dlmctl.diffusion.model import ModelConfig
from dlmctl.diffusion.noise import CONTROL, Draw, SampleNoise
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import DataError
from dlmctl.generation.prompts import prompt_of
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.prompted import Prompt, conditioning_for
from dlmctl.text.tokenizer import Tokenizer, same_encoding, unit_of

STEPS, BINS = 2000, 20
BATCH_POSITIONS = 4096


class Part(NamedTuple):
    """The nats per token of the steps that start at times in (since, until]."""

    since: float
    until: float
    nats: float


class PlotData(NamedTuple):
    """The parts of a bound for a bar chart, with the labels of its axes and its title."""

    parts: list[Part]
    xlabel: str
    ylabel: str
    title: str


class Likelihood(NamedTuple):
    """The bound over a corpus. Parts are in nats per token, counting START, the words and END, and sum to ``nats``.

    Attributes:
        nats, standard_error: the bound, and its standard error from sampling both texts and noise.
        prior: cost of the latent at t = 1, which is not pure noise; diffusion: of the steps, by time; words: of the
            final rounding.
        padding: the share of ``nats`` on PAD positions, which encode where the text ends, among other things.
        unknown: share of words, or of tokens, outside the model's vocabulary, counted as UNK.
        word_count: number of words, also if the vocabulary has tokens.
        unit: whether the vocabulary has words or tokens.
        steps, draws: of the process, and the number of steps drawn for each text.
    """

    nats: float
    standard_error: float
    prior: float
    diffusion: list[Part]
    words: float
    padding: float
    unknown: float
    sentences: int
    token_count: int
    word_count: int
    steps: int
    draws: int
    unit: Literal["word", "token"] = "word"

    @property
    def nats_per_word(self) -> float:
        """The same sum divided by the number of words."""
        return self.nats * self.token_count / self.word_count

    def figures(self) -> dict[str, Any]:
        """All figures as JSON values, also in bits."""
        bits = {"bits": self.nats / math.log(2), "bits_per_word": self.nats_per_word / math.log(2)}
        parts = [part._asdict() for part in self.diffusion]
        return {**self._asdict(), "diffusion": parts, "nats_per_word": self.nats_per_word, **bits}

    def plot_data(self) -> PlotData:
        """The parts over t, for ``plot_parts``."""
        title = (
            f"{self.nats:.3f} ± {self.standard_error:.3f} nats per token over {self.sentences} texts; "
            f"prior {self.prior:.4f}, words {self.words:.4f}"
        )
        return PlotData(self.diffusion, "time t (0: words, 1: noise)", "nats per token", title)


class Texts(NamedTuple):
    """Rows of token ids, START to END, and the label and source of each for models that take them."""

    rows: Sequence[Sequence[int]]
    prompt: Prompt | None = None


def read_texts(data: Path, pretrained: Pretrained, split: str = "valid", limit: int | None = None) -> Texts:
    """The texts of a file or a data set, with their labels and sources if the model takes them.

    Args:
        data: a file of texts, or a prepared data set with the model's vocabulary.
        split: of a data set.
        limit: the most texts to use, spread evenly over all.

    Raises:
        DataError: the texts cannot be read, there are none, one is too long for the model, the vocabulary differs from
            the model's, or a label or source that the model takes is missing.
    """
    tokenizer = pretrained.tokenizer
    if data.is_dir():
        require_split(data, split)
        if not same_encoding(load_vocabulary(data), tokenizer):
            remedy = "Prepare it with the model's vocabulary (`dlmctl data prepare --vocabulary MODEL`)."
            raise DataError("has a vocabulary other than the model's.", where=str(data), remedy=remedy)
        data_split = load_split(data, split, tokenizer)
        chosen = _spread(len(data_split), limit)
        rows = [data_split.row(row).tolist() for row in chosen]
        config = pretrained.model.config
        is_conditional = isinstance(config, ModelConfig) and (config.label or config.source)
        fields = data_split.read_fields() if is_conditional else [{}] * len(data_split)
    else:
        records = list(read_corpus(data, sniff(data), split=tokenizer.split))
        chosen = _spread(len(records), limit)
        rows = [tokenizer.encode(records[at].words) for at in chosen]
        fields = [record.fields or {} for record in records]
    if not rows:
        raise DataError("holds no texts.", where=str(data))
    longest, longest_allowed = max(map(len, rows)) - SPECIAL, pretrained.model.config.length - SPECIAL
    if longest > longest_allowed:
        message = f"has a text of {longest} {unit_of(tokenizer)}s; the model holds up to {longest_allowed}."
        raise DataError(message, where=str(data), remedy="Shorten it or leave it out.")
    try:
        return Texts(rows, prompt_of(pretrained, [fields[at] for at in chosen]))
    except DataError as error:
        raise DataError(error.what, where=error.where or str(data), remedy=error.remedy) from None


def _spread(count: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return [at * count // limit for at in range(limit)]


def likelihood(
    pretrained: Pretrained,
    texts: Texts,
    *,
    steps: int | None = None,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Likelihood:
    """The bound of a ``steps``-step process over texts, estimated from ``draws`` of its steps for each text.

    The steps are divided into about ``draws`` strata, and one random step per text stands for all steps of a stratum:
    the expectation over draws is the bound itself. Each text's noise follows from the seed and its number.

    Args:
        texts: none longer than the model (``read_texts``). Without a prompt, a conditional model is evaluated
            unconditionally.
        steps: by default those of a discrete schedule, else 2000. Any number gives a bound; more steps tighten it only
            as far as the x_0 estimate becomes exact near t = 0.
        draws: more draws give a smaller standard error; all steps are used if there are no more than this.
    """
    model, tokenizer, rows = pretrained.latent, pretrained.tokenizer, texts.rows
    steps = steps or model.schedule.steps or STEPS
    strata = step_strata(model.schedule, steps, draws)
    sizes = torch.tensor([len(stratum) for stratum in strata], dtype=torch.float64)[:, None, None]
    sums, padding, done = np.zeros(len(rows)), 0.0, 0
    prior = words = 0.0
    bins = np.zeros(BINS)
    positions = [positions_for(len(row) - SPECIAL, model.config.length) for row in rows]
    for numbers, ids in length_batches(rows, positions, tokenizer.pad_id, BATCH_POSITIONS):
        ids = ids.to(model.embeddings.device)
        draws_of = [Draw(seed, number) for number in numbers]
        sampled_steps = torch.from_numpy(np.stack([_sampled_steps(strata, draw) for draw in draws_of], axis=1))
        conditioning = conditioning_for(model, texts.prompt, numbers)
        bound = likelihood_bound(model, ids, steps, SampleNoise(draws_of), sampled_steps, conditioning)
        diffusion = bound.diffusion.double().cpu() * sizes
        prior_nats, rounding_nats = bound.prior.double().cpu(), bound.rounding_nats.double().cpu()
        bin_ids = (torch.ceil(bound.times.cpu() * BINS - 1e-9).long() - 1).clamp(0, BINS - 1)
        bins += np.bincount(bin_ids.flatten().numpy(), diffusion.sum(2).flatten().numpy(), BINS)
        position_nats = prior_nats + diffusion.sum(0) + rounding_nats
        sums[numbers] = position_nats.sum(1).numpy()
        padding += position_nats[(ids == tokenizer.pad_id).cpu()].sum().item()
        prior, words = prior + prior_nats.sum().item(), words + rounding_nats.sum().item()
        done += len(numbers)
        if progress is not None:
            progress(done, len(rows))
    lengths = np.array([len(row) for row in rows])
    tokens = int(lengths.sum())
    return Likelihood(
        nats=float(sums.sum()) / tokens,
        standard_error=ratio_error(sums, lengths),
        prior=prior / tokens,
        diffusion=[Part(at / BINS, (at + 1) / BINS, float(nats) / tokens) for at, nats in enumerate(bins)],
        words=words / tokens,
        padding=padding / tokens,
        **_counts(rows, tokenizer),
        steps=steps,
        draws=len(strata),
        unit=unit_of(tokenizer),
    )


def _counts(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> dict[str, Any]:
    """The numbers of texts, tokens and words, and the share of unknown words (or tokens)."""
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id}
    entries = max(1, sum(index not in special for row in rows for index in row))
    unknown = sum(index == tokenizer.unk_id for row in rows for index in row)
    return {
        "unknown": unknown / entries,
        "sentences": len(rows),
        "token_count": sum(map(len, rows)),
        "word_count": entries if unit_of(tokenizer) == "word" else count_words(rows, tokenizer),
    }


def count_words(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> int:
    """The number of words in rows of ids, at least 1; in a row of several texts, each ends with END."""
    texts = list[list[int]]()
    for row in rows:
        texts.append([])
        for index in row:
            texts[-1].append(index)
            if index == tokenizer.end_id and len(texts[-1]) > 1:
                texts.append([])
    return max(1, sum(len(tokenizer.words(text)) for text in texts))


def step_strata(schedule: Schedule, steps: int, draws: int) -> list[np.ndarray]:
    """The numbers of all steps except the last, in at most ``draws`` strata of equal share in time and in log SNR.

    Near t = 0 the SNR grows so fast that a few of many steps dominate; strata of equal time would miss them.
    """
    alphabar = schedule.alphabar(schedule.times(steps)[:-1])
    # Beyond these limits words are either certain or completely unknown, whatever the exact SNR.
    log_snr = torch.logit(alphabar).clamp(-5, 7).numpy()
    spread = max(log_snr[-1] - log_snr[0], 1e-9)
    share = (np.arange(steps - 1) / steps + (log_snr[:-1] - log_snr[0]) / spread) / 2
    strata = (np.flatnonzero(np.floor(share * draws) == number) for number in range(draws))
    return [stratum for stratum in strata if len(stratum)]


def length_batches(
    rows: Sequence[Sequence[int]], positions: Sequence[int], pad_id: int, max_positions: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Row numbers and ids ``[B, L]`` of rows of equal ``positions``, about ``max_positions`` in a batch."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(positions):
        by_length[length].append(number)
    for length, numbers in sorted(by_length.items()):
        size = max(1, max_positions // length)
        for start in range(0, len(numbers), size):
            chosen = numbers[start : start + size]
            yield chosen, torch.tensor([[*rows[row], *[pad_id] * (length - len(rows[row]))] for row in chosen])


def _sampled_steps(strata: Sequence[np.ndarray], draw: Draw) -> np.ndarray:
    """One random step of each stratum, for one text."""
    shares = torch.rand(len(strata), generator=draw.generator(CONTROL)).numpy()
    return np.array(
        [stratum[int(share * len(stratum))] for stratum, share in zip(strata, shares, strict=True)], np.int64
    )


def ratio_error(sums: np.ndarray, lengths: np.ndarray) -> float:
    """Standard error of a ratio of sums (Cochran 1977, eq. 6.9); NaN for a single text."""
    count = len(sums)
    if count < 2:
        return math.nan
    residuals = sums - sums.sum() / lengths.sum() * lengths
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / lengths.sum())
