"""Training what tells texts that readers accept from those they refuse, from texts with readers' verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from torch import Tensor, nn

from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    network_digest,
    new_control_folder,
    save_control_weights,
)
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.datasets.dataset import BatchPlan, Split, load_splits, stream
from dlmctl.datasets.staging import check_writable
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import DataError, ModelError, nearest
from dlmctl.generation.identity import weights_digest
from dlmctl.metrics.acceptability import NETWORK, SCORER, forget_reader, read_judge, scorer_digest
from dlmctl.metrics.fluency import SHARES, figures_of, fluency_of
from dlmctl.metrics.lm_score import load_scorer
from dlmctl.models.acceptability import STRIDE, Acceptability
from dlmctl.models.adapters import MOST_RANK
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import load_counts
from dlmctl.training.config import LoopConfig
from dlmctl.training.counting import require_words_of
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, sent
from dlmctl.training.run_folder import check_apart, check_no_model
from dlmctl.training.state import digest

# A text counts as accepted in figures from this verdict on.
ACCEPTED = 0.5
# Of half precision.
MOST_BITS = 11


class AcceptabilityConfig(BaseModel):
    """A configuration file of ``dlmctl train acceptability``."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(default=2, gt=0, le=MOST_RANK, description="of the adapters")
    init: Literal["model"] | None = Field(
        default=None, description="`model`: start from what the model has learned of acceptability, in place of nothing"
    )
    bits: int = Field(
        default=MOST_BITS,
        ge=2,
        le=MOST_BITS,
        description="significant bits of a saved matrix, of the 11 of half precision",
    )
    loop: LoopConfig


class Judged(NamedTuple):
    """The texts of a split, the scorer's figures of each ``[N, 3]``, and its verdict ``[N]``."""

    split: Split
    figures: np.ndarray
    verdicts: np.ndarray


class Verdicts(NamedTuple):
    """Rows of word ids ``[B, L]``, their lengths ``[B]``, figures ``[B, 3]`` and verdicts ``[B]``."""

    ids: Tensor
    lengths: Tensor
    figures: Tensor
    wanted: Tensor


class AcceptabilityTask(StatelessTask):
    """Adapters for a frozen masked model, for the training loop.

    Args:
        data: a prepared data set with the model's vocabulary, one text a row, and a field of verdicts.
        label: the field: the share of readers who accept a text, from 0 to 1.
    """

    def __init__(
        self, config: AcceptabilityConfig, pretrained: Pretrained, data: Path, label: str, *, resume: bool = False
    ) -> None:
        model = pretrained.model
        if not isinstance(model, MaskedLM):
            raise ModelError("has no states to read texts off: it is no masked model.", where=str(pretrained.folder))
        self.config, self.network = config, model.denoiser.requires_grad_(False)
        train, valid, vocabulary = load_splits(data)
        require_words_of(pretrained, data)
        self.pad_id = vocabulary.pad_id
        verdicts = [verdicts_of(split, label) for split in (train, valid)]
        require_both(verdicts[0], label, data)
        own = [scorer_figures(data, split, vocabulary, pretrained.folder) for split in (train, valid)]
        self.train, self.valid = map(Judged, (train, valid), own, verdicts)
        torch.manual_seed(config.loop.seed)
        # A checkpoint has all that a run began with.
        self.model: nn.Module = self._fresh(model) if config.init is None or resume else self._known(pretrained, model)

    def _fresh(self, model: MaskedLM) -> Acceptability:
        fresh = Acceptability(self.network, model.denoiser.config.hidden, self.config.rank)
        fresh.typical.copy_(torch.tensor([*self.train.figures.mean(0), self.train.split.lengths.mean()]))
        with torch.no_grad():
            fresh.share[: len(SHARES)] = torch.tensor(SHARES) / STRIDE
        return fresh

    def _known(self, pretrained: Pretrained, model: MaskedLM) -> Acceptability:
        try:
            start = read_judge(pretrained, model, any_scorer=True)
        except ModelError as error:
            raise ModelError(error.what, where=error.where, remedy="Leave out `init` to learn from nothing.") from error
        if (rank := start.up[0].shape[1]) != self.config.rank:
            what = f"was learned with adapters of rank {rank}, not {self.config.rank}."
            raise ModelError(what, where="init: model", remedy=f"Set `rank: {rank}`.")
        return start

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Verdicts]:
        loop = self.config.loop
        plan = BatchPlan(loop.batch_positions, self.network.config.max_length, loop.bucket, 0.0, loop.seed)
        batch_of = self._batches(self.train)
        for rows, width in stream(self.train.split, plan, skip=skip, rank=rank, world=world):
            yield batch_of(rows, width)

    def _batches(self, judged: Judged) -> Callable[[np.ndarray, int], Verdicts]:
        device = next(self.model.parameters()).device
        self.network.to(device)
        texts = Rows(judged.split, self.pad_id, device)

        def batch_of(rows: np.ndarray, width: int) -> Verdicts:
            figures = (judged.split.lengths[rows], judged.figures[rows], judged.verdicts[rows])
            return Verdicts(texts.of(rows, width), *(sent(torch.from_numpy(one), device) for one in figures))

        return batch_of

    def _odds(self, model: nn.Module, batch: Verdicts) -> Tensor:
        assert isinstance(model, Acceptability)
        odds: Tensor = model(self.network, model.weights(self.network), batch.ids, batch.lengths, batch.figures)
        return odds

    def loss(self, model: nn.Module, batch: Verdicts) -> tuple[Tensor, int]:
        """Cross-entropy with the verdicts, in nats a text."""
        odds = self._odds(model, batch)
        return F.binary_cross_entropy_with_logits(odds, batch.wanted), batch.ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Nats a text, and how often an accepted text has greater odds than a refused one (``auc``): of the model, and
        of the flaws alone."""
        split, own, verdicts = self.valid
        batch_of, plan = self._batches(self.valid), BatchPlan(8192, self.network.config.max_length, full_share=0.0)
        odds = torch.zeros(len(split))
        for rows, width in plan.epoch(split.lengths, 0):
            odds[torch.from_numpy(rows)] = self._odds(model, batch_of(rows, width)).cpu()
        wanted, accepted = torch.from_numpy(verdicts), verdicts >= ACCEPTED
        return {
            "loss": float(F.binary_cross_entropy_with_logits(odds, wanted)),
            "auc": auc(odds.numpy(), accepted),
            "auc of flaws": auc(-(own @ np.array(SHARES, np.float32)), accepted),
        }

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["loss"]


def scorer_figures(data: Path, split: Split, vocabulary: Tokenizer, model: Path) -> np.ndarray:
    """``figures_of`` the texts of a split of ``data`` by the scorer in a model's folder, float32 ``[N, 3]``.

    Raises:
        DataError: one is longer than the scorer can read.
        ModelError: the model has no scorer.
    """
    judge, counts = load_scorer(model / "scorer"), load_counts(model)
    texts = [vocabulary.words(split.row(at).tolist()) for at in range(len(split))]
    with Console(stderr=True).status(f"the scorer reads {len(texts):,} texts"):
        found = fluency_of(judge, texts)
    read = [one for one in found if one is not None]
    if len(read) < len(texts):
        most = judge[0].config.n_positions - 1
        raise DataError(f"has texts of more than {most} words, which the scorer cannot read.", where=str(data))
    return np.array([figures_of(one, words, counts) for one, words in zip(read, texts, strict=True)], np.float32)


def verdicts_of(split: Split, label: str) -> np.ndarray:
    """The verdicts of a split, float32.

    Raises:
        DataError: the data has no such field, or a verdict is no number from 0 to 1.
    """
    found = []
    for number, fields in enumerate(split.iter_fields(), start=1):
        if label not in fields:
            raise _without(split, number, label, list(fields))
        try:
            verdict = float(fields[label])
        except (TypeError, ValueError):
            verdict = -1.0
        if not 0 <= verdict <= 1:
            what = f"the {label!r} of text {number} is {fields[label]!r}; a verdict is a number from 0 to 1."
            raise DataError(what[:300], where=str(split.fields))
        found.append(verdict)
    return np.array(found, np.float32)


def require_both(verdicts: np.ndarray, label: str, data: Path) -> None:
    """Refuse verdicts ``[N]`` to learn from that are all alike.

    Raises:
        DataError: they are.
    """
    if verdicts.min() == verdicts.max():
        what = f"the {label!r} of all {len(verdicts):,} texts to learn from is {verdicts[0]:g}."
        remedy = "It takes texts that readers accept and texts that they refuse."
        raise DataError(what, where=str(data), remedy=remedy)


def _without(split: Split, number: int, label: str, known: list[str]) -> DataError:
    """What to say of text ``number``, which has no verdict: no text may have one, or it alone may lack it."""
    if any(label in fields for fields in split.iter_fields()):
        remedy = "Give every text a verdict, or leave such texts out."
        return DataError(f"text {number} has no field {label!r}.", where=str(split.fields), remedy=remedy)
    remedy = nearest(label, known) if known else "A verdict stands beside each text, as in docs/training.md."
    return DataError(f"the data has no field {label!r}.", where="--label", remedy=remedy)


def auc(scores: np.ndarray, accepted: np.ndarray) -> float:
    """How often an accepted text has a greater score than one that is not, ties as half; 0.5 where one kind lacks."""
    yes, no = scores[accepted], np.sort(scores[~accepted])
    if not len(yes) or not len(no):
        return 0.5
    below = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")
    return float(below.mean() / 2 / len(no))


def train_acceptability(
    config: AcceptabilityConfig, pretrained: Pretrained, data: Path, out: Path, *, label: str, resume: bool = False
) -> Path:
    """Train what tells texts that readers accept, and save it beside the model, or in the user's folder for a model
    that is not his; ``out`` gets the run's files.

    Returns:
        The folder of the saved weights and their card.

    Raises:
        DataError: ``data`` is no prepared data set of the model's vocabulary with verdicts, or those are all alike.
        ModelError: the model is no masked one, or has no scorer.
        UserError: ``out`` is the model's folder, holds an earlier run and ``resume`` is off, or none and it is on.
    """
    check_apart(out, data)
    check_no_model(out, pretrained.folder)
    folder = new_control_folder(pretrained.folder, pretrained.model, ACCEPTABILITY)
    check_writable(folder.parent)
    task = AcceptabilityTask(config, pretrained, data, label, resume=resume)
    asked = {"label": label, "weights of the model": weights_digest(pretrained), SCORER: scorer_digest(pretrained)}
    judge = fit(task, config.loop, out, identity={**config.model_dump(), **asked, **digest(data)}, resume=resume)
    if PartialState().is_main_process:
        state = {
            name: rounded(weight, config.bits if weight.ndim > 1 else MOST_BITS)
            for name, weight in judge.state_dict().items()
        }
        judge.load_state_dict(state)
        card = {"texts": len(task.train.split), "training": config.model_dump(), "validation": task.validate(judge)}
        card |= {NETWORK: network_digest(task.network), SCORER: scorer_digest(pretrained)}
        save_control_weights(state, folder, pretrained.model, card)
        forget_reader(pretrained.model)
    return folder


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight in half precision with so many significant bits: the fewer, the smaller it is packed."""
    mantissa, exponent = torch.frexp(weight.cpu().float())
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent).half()
