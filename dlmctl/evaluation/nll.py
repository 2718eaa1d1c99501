"""How likely a model finds texts: the variational bound on -log p, per token and per word, with its parts over t.

A text has the fewest positions that hold it, as in sampling. All of them are in the bound, PAD
too: the model reads them, so what they give away must be paid for. The sum is divided by the tokens START to END.
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
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.readers import read_corpus, sniff
from dlmctl.diffusion.bound import likelihood_bound
from dlmctl.diffusion.layout import SPECIAL, positions_for
from dlmctl.diffusion.model import ModelConfig
from dlmctl.diffusion.noise import CONTROL, Draw, SampleNoise
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import DataError
from dlmctl.generation.prompts import prompt_of
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.prompted import Prompt, given_to
from dlmctl.text.tokenizer import Tokenizer, same_words, unit_of

STEPS, BINS = 2000, 20
BATCH_POSITIONS = 4096


class Part(NamedTuple):
    """What the steps that start at times in (since, until] cost, in nats per token."""

    since: float
    until: float
    nats: float


class Picture(NamedTuple):
    """The parts of a bound as they are drawn: what they are ``along``, their ``unit``, and the ``title`` above them."""

    parts: list[Part]
    along: str
    unit: str
    title: str


class Likelihood(NamedTuple):
    """The bound over a corpus. Parts are in nats per token, counting START, the words and END, and sum to ``nats``.

    Attributes:
        nats, standard_error: the bound, and its standard error from the choice of texts and of noise together.
        prior: the latent at t = 1 is not quite noise; diffusion: the steps, by time; words: rounding at the end.
        padding: what of ``nats`` stands on PAD positions: where the text ends, among other things.
        unknown: share of words, or of tokens, outside the model's vocabulary, counted as UNK.
        word_count: of words, also where the model's entries are tokens.
        unit: what the model's entries are.
        steps, draws: of the process, and how many of them are drawn for each text.
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
        """The same sum divided by the words alone."""
        return self.nats * self.token_count / self.word_count

    def figures(self) -> dict[str, Any]:
        """All of it as plain values, in bits too."""
        bits = {"bits": self.nats / math.log(2), "bits_per_word": self.nats_per_word / math.log(2)}
        parts = [part._asdict() for part in self.diffusion]
        return {**self._asdict(), "diffusion": parts, "nats_per_word": self.nats_per_word, **bits}

    def picture(self) -> Picture:
        """The parts over t."""
        title = (
            f"{self.nats:.3f} ± {self.standard_error:.3f} nats per token over {self.sentences} texts; "
            f"prior {self.prior:.4f}, words {self.words:.4f}"
        )
        return Picture(self.diffusion, "time t (0: words, 1: noise)", "nats per token", title)


class Texts(NamedTuple):
    """Rows of word ids, START to END, and what a model that takes a label or a source is given with each."""

    rows: Sequence[Sequence[int]]
    prompt: Prompt | None = None


def read_texts(data: Path, pretrained: Pretrained, split: str = "valid", limit: int | None = None) -> Texts:
    """The texts of a file or a data set, with their labels and sources where the model takes such.

    Args:
        data: a file of texts, or a prepared data set with the model's vocabulary.
        split: of a data set.
        limit: at most so many, spread evenly over all.

    Raises:
        DataError: they cannot be read, there are none, one is too long for the model, the vocabulary is another's, or
            the label or source that the model takes is missing.
    """
    tokenizer = pretrained.tokenizer
    if data.is_dir():
        load_split(data, split)  # says what is no data set at all
        if not same_words(load_vocabulary(data), tokenizer):
            remedy = "Prepare it with the model's vocabulary (`dlmctl data prepare --vocabulary MODEL`)."
            raise DataError("has another vocabulary than the model.", where=str(data), remedy=remedy)
        found = load_split(data, split, tokenizer)
        chosen = _spread(len(found), limit)
        rows = [found.row(row).tolist() for row in chosen]
        config = pretrained.model.config
        prompted = isinstance(config, ModelConfig) and (config.label or config.source)
        fields = found.read_fields() if prompted else [{}] * len(found)
    else:
        records = list(read_corpus(data, sniff(data), split=tokenizer.split))
        chosen = _spread(len(records), limit)
        rows = [tokenizer.encode(records[at].words) for at in chosen]
        fields = [record.fields or {} for record in records]
    if not rows:
        raise DataError("holds no texts.", where=str(data))
    longest, most = max(map(len, rows)), pretrained.model.config.length
    if longest > most:
        what = f"has a text of {longest - SPECIAL} {unit_of(tokenizer)}s; the model holds up to {most - SPECIAL}."
        raise DataError(what, where=str(data), remedy="Shorten it or leave it out.")
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
    """The bound of a ``steps``-step process over texts, estimated from ``draws`` of its steps for each of them.

    The steps are cut into about ``draws`` stretches, and of each stretch one step, drawn for each text anew, stands for
    all: the mean over draws is the bound itself. Each text's noise follows from the seed and its number.

    Args:
        texts: none longer than the model (``read_texts``); without a prompt, of a model that takes one, it is the
            bound given nothing.
        steps: by default those of a discrete schedule, else 2000. Any number gives a bound; more are tighter only as
            far as the x_0 estimate becomes exact near t = 0.
        draws: the more, the smaller the standard error; all steps if not fewer than these.
    """
    model, tokenizer, rows = pretrained.latent, pretrained.tokenizer, texts.rows
    steps = steps or model.schedule.steps or STEPS
    stretches = stretches_of(model.schedule, steps, draws)
    sizes = torch.tensor([len(stretch) for stretch in stretches], dtype=torch.float64)[:, None, None]
    sums, padding, done = np.zeros(len(rows)), 0.0, 0
    prior = words = 0.0
    bins = np.zeros(BINS)
    positions = [positions_for(len(row) - SPECIAL, model.config.length) for row in rows]
    for numbers, ids in batches_of(rows, positions, tokenizer.pad_id, BATCH_POSITIONS):
        ids = ids.to(model.embeddings.device)
        draws_of = [Draw(seed, number) for number in numbers]
        picked = torch.from_numpy(np.stack([_picked(stretches, draw) for draw in draws_of], axis=1))
        given = given_to(model, texts.prompt, numbers)
        bound = likelihood_bound(model, ids, steps, SampleNoise(draws_of), picked, given)
        diffusion = bound.diffusion.double().cpu() * sizes
        before, after = bound.prior.double().cpu(), bound.rounding_nats.double().cpu()
        place = (torch.ceil(bound.times.cpu() * BINS - 1e-9).long() - 1).clamp(0, BINS - 1)
        bins += np.bincount(place.flatten().numpy(), diffusion.sum(2).flatten().numpy(), BINS)
        each = before + diffusion.sum(0) + after
        sums[numbers] = each.sum(1).numpy()
        padding += each[(ids == tokenizer.pad_id).cpu()].sum().item()
        prior, words = prior + before.sum().item(), words + after.sum().item()
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
        draws=len(stretches),
        unit=unit_of(tokenizer),
    )


def _counts(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> dict[str, Any]:
    """How many texts, tokens and words there are, and which share of the model's entries in them is unknown."""
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id}
    entries = max(1, sum(index not in special for row in rows for index in row))
    unknown = sum(index == tokenizer.unk_id for row in rows for index in row)
    return {
        "unknown": unknown / entries,
        "sentences": len(rows),
        "token_count": sum(map(len, rows)),
        "word_count": entries if unit_of(tokenizer) == "word" else words_in(rows, tokenizer),
    }


def words_in(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> int:
    """How many words the texts of rows of ids have, at least 1; a row of several texts has END behind each."""
    texts = list[list[int]]()
    for row in rows:
        texts.append([])
        for index in row:
            texts[-1].append(index)
            if index == tokenizer.end_id and len(texts[-1]) > 1:
                texts.append([])
    return max(1, sum(len(tokenizer.words(text)) for text in texts))


def stretches_of(schedule: Schedule, steps: int, draws: int) -> list[np.ndarray]:
    """The numbers of all steps but the last, in at most ``draws`` stretches of equal share in time and in log SNR.

    Near t = 0 the SNR grows so fast that a few of many steps decide; stretches of equal time would hide them.
    """
    alphabar = schedule.alphabar(schedule.times(steps)[:-1])
    # Where the SNR is beyond this, words are certain or nothing is known of them, whatever it is.
    log_snr = torch.logit(alphabar).clamp(-5, 7).numpy()
    spread = max(log_snr[-1] - log_snr[0], 1e-9)
    share = (np.arange(steps - 1) / steps + (log_snr[:-1] - log_snr[0]) / spread) / 2
    return [found for number in range(draws) if len(found := np.flatnonzero(np.floor(share * draws) == number))]


def batches_of(
    rows: Sequence[Sequence[int]], positions: Sequence[int], pad_id: int, most: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Numbers and ids ``[B, L]`` of rows with as many ``positions``, about ``most`` of these at once."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(positions):
        by_length[length].append(number)
    for length, numbers in sorted(by_length.items()):
        size = max(1, most // length)
        for at in range(0, len(numbers), size):
            chosen = numbers[at : at + size]
            yield chosen, torch.tensor([[*rows[one], *[pad_id] * (length - len(rows[one]))] for one in chosen])


def _picked(stretches: Sequence[np.ndarray], text: Draw) -> np.ndarray:
    """One step of each stretch, for one text."""
    shares = torch.rand(len(stretches), generator=text.generator(CONTROL)).numpy()
    return np.array(
        [stretch[int(share * len(stretch))] for stretch, share in zip(stretches, shares, strict=True)], np.int64
    )


def ratio_error(sums: np.ndarray, lengths: np.ndarray) -> float:
    """Standard error of a ratio of sums (Cochran 1977, eq. 6.9); not a number for a single text."""
    count = len(sums)
    if count < 2:
        return math.nan
    residuals = sums - sums.sum() / lengths.sum() * lengths
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / lengths.sum())
