"""Training a classifier of acceptability: it tells texts that readers accept from those they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    network_digest,
    new_control_folder,
    save_control_weights,
)
from dlmctl.checkpoint.precision import MAX_BITS, round_matrices
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.scorer import scorer_digest
from dlmctl.datasets.dataset import BatchPlan, Split, batch_stream, load_splits
from dlmctl.datasets.staging import check_writable
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import DataError, ModelError, did_you_mean
from dlmctl.generation.identity import weights_digest
from dlmctl.metrics.acceptability import NETWORK, SCORER_KEY, forget_acceptability, read_judge
from dlmctl.metrics.fluency import SHARES, figures_of, fluency_of
from dlmctl.models.acceptability import STRIDE, Acceptability
from dlmctl.models.adapters import MOST_RANK
from dlmctl.text.terminal import spinning
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_counts import load_counts
from dlmctl.training.config import LoopConfig
from dlmctl.training.counting import require_words_of
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows, to_device
from dlmctl.training.run_folder import check_no_model, check_run_folder
from dlmctl.training.state import digest

# A text counts as accepted in figures from this verdict on.
ACCEPTED = 0.5


class AcceptabilityConfig(BaseModel):
    """A configuration file of ``dlmctl train acceptability``."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(default=2, gt=0, le=MOST_RANK, description="of the adapters")
    init: Literal["model"] | None = Field(
        default=None, description="`model`: start from the model's learned acceptability, rather than from scratch"
    )
    bits: int = Field(
        default=MAX_BITS,
        ge=2,
        le=MAX_BITS,
        description="significant bits of a saved matrix, of the 11 of half precision",
    )
    loop: LoopConfig


class JudgedSplit(NamedTuple):
    """The texts of a split, their scorer figures ``[N, 3]`` and verdicts ``[N]``."""

    split: Split
    figures: np.ndarray
    verdicts: np.ndarray


class VerdictBatch(NamedTuple):
    """Rows of token ids ``[B, L]``, their lengths ``[B]``, scorer figures ``[B, 3]`` and verdicts ``[B]``."""

    ids: Tensor
    lengths: Tensor
    figures: Tensor
    verdicts: Tensor


class AcceptabilityTask(StatelessTask):
    """Adapters for a frozen masked model, for the training loop.

    Args:
        data: a prepared data set with the model's vocabulary, one text a row, and a field of verdicts.
        label: that field, the share of readers who accept a text, from 0 to 1.
    """

    def __init__(
        self, config: AcceptabilityConfig, pretrained: Pretrained, data: Path, label: str, *, resume: bool = False
    ) -> None:
        model = pretrained.model
        if not isinstance(model, MaskedLM):
            raise ModelError(
                "cannot learn acceptability: it is not a masked model.", where=model_name(pretrained.folder)
            )
        self.config, self.network = config, model.denoiser.requires_grad_(False)
        train, valid, vocabulary = load_splits(data)
        require_words_of(pretrained, data)
        self.pad_id = vocabulary.pad_id
        verdicts = [verdicts_of(split, label) for split in (train, valid)]
        require_both(verdicts[0], label, data)
        figures = [scorer_figures(data, split, vocabulary, pretrained.folder) for split in (train, valid)]
        self.train, self.valid = map(JudgedSplit, (train, valid), figures, verdicts)
        torch.manual_seed(config.loop.seed)
        # A resumed run reads all its weights from the checkpoint.
        use_fresh = config.init is None or resume
        self.model: nn.Module = self._fresh(model) if use_fresh else self._learned(pretrained, model)

    def _fresh(self, model: MaskedLM) -> Acceptability:
        fresh = Acceptability(self.network, model.denoiser.config.hidden, self.config.rank)
        fresh.typical.copy_(torch.tensor([*self.train.figures.mean(0), self.train.split.lengths.mean()]))
        with torch.no_grad():
            fresh.share[: len(SHARES)] = torch.tensor(SHARES) / STRIDE
        return fresh

    def _learned(self, pretrained: Pretrained, model: MaskedLM) -> Acceptability:
        try:
            learned = read_judge(pretrained, model, any_scorer=True)
        except ModelError as error:
            remedy = "Leave out `init` to learn from scratch."
            raise ModelError(error.what, where=error.where, remedy=remedy) from error
        if (rank := learned.up[0].shape[1]) != self.config.rank:
            message = f"was learned with adapters of rank {rank}, not {self.config.rank}."
            raise ModelError(message, where="init: model", remedy=f"Set `rank: {rank}`.")
        return learned

    def batches(self, skip: int, rank: int, world: int) -> Iterator[VerdictBatch]:
        loop = self.config.loop
        plan = BatchPlan(loop.batch_positions, self.network.config.max_length, loop.bucket, 0.0, loop.seed)
        batch_of = self._batches(self.train)
        for rows, width in batch_stream(self.train.split, plan, skip=skip, rank=rank, world=world):
            yield batch_of(rows, width)

    def _batches(self, judged: JudgedSplit) -> Callable[[np.ndarray, int], VerdictBatch]:
        device = next(self.model.parameters()).device
        self.network.to(device)
        texts = Rows(judged.split, self.pad_id, device)

        def batch_of(rows: np.ndarray, width: int) -> VerdictBatch:
            columns = (judged.split.lengths[rows], judged.figures[rows], judged.verdicts[rows])
            return VerdictBatch(
                texts.batch(rows, width), *(to_device(torch.from_numpy(values), device) for values in columns)
            )

        return batch_of

    def _log_odds(self, model: nn.Module, batch: VerdictBatch) -> Tensor:
        assert isinstance(model, Acceptability)
        odds: Tensor = model(self.network, model.weights(self.network), batch.ids, batch.lengths, batch.figures)
        return odds

    def loss(self, model: nn.Module, batch: VerdictBatch) -> tuple[Tensor, int]:
        """Cross-entropy with the verdicts, in nats a text."""
        odds = self._log_odds(model, batch)
        return F.binary_cross_entropy_with_logits(odds, batch.verdicts), batch.ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Nats a text, and how often an accepted text has higher odds than a refused one (``auc``), for the model and
        for the scorer's figures alone."""
        split, flaws, verdicts = self.valid
        batch_of, plan = self._batches(self.valid), BatchPlan(8192, self.network.config.max_length, full_share=0.0)
        odds = torch.zeros(len(split))
        for rows, width in plan.epoch(split.lengths, 0):
            odds[torch.from_numpy(rows)] = self._log_odds(model, batch_of(rows, width)).cpu()
        accepted = verdicts >= ACCEPTED
        return {
            "loss": float(F.binary_cross_entropy_with_logits(odds, torch.from_numpy(verdicts))),
            "auc": auc(odds.numpy(), accepted),
            "auc of flaws": auc(-(flaws @ np.array(SHARES, np.float32)), accepted),
        }

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["loss"]


def scorer_figures(data: Path, split: Split, vocabulary: Tokenizer, model: Path) -> np.ndarray:
    """``figures_of`` the texts of a split of ``data``, by the scorer in a model's folder, float32 ``[N, 3]``.

    Raises:
        DataError: a text is longer than the scorer can read.
        ModelError: the model has no scorer.
    """
    scorer, counts = load_scorer(model / SCORER), load_counts(model)
    texts = [vocabulary.words(split.row(row).tolist()) for row in range(len(split))]
    with spinning(f"the scorer reads {len(texts):,} texts"):
        fluencies = fluency_of(scorer, texts)
    scored = [fluency for fluency in fluencies if fluency is not None]
    if len(scored) < len(texts):
        max_words = scorer[0].config.n_positions - 1
        raise DataError(f"has texts of more than {max_words} words, which the scorer cannot read.", where=str(data))
    return np.array(
        [figures_of(fluency, words, counts) for fluency, words in zip(scored, texts, strict=True)], np.float32
    )


def verdicts_of(split: Split, label: str) -> np.ndarray:
    """The verdicts of a split, float32.

    Raises:
        DataError: the data has no such field, or a verdict is not a number from 0 to 1.
    """
    verdicts = []
    for number, fields in enumerate(split.iter_fields(), start=1):
        if label not in fields:
            raise _missing_verdict(split, number, label, list(fields))
        try:
            verdict = float(fields[label])
        except (TypeError, ValueError):
            verdict = -1.0
        if not 0 <= verdict <= 1:
            message = f"the {label!r} of text {number} is {fields[label]!r}; a verdict is a number from 0 to 1."
            raise DataError(message[:300], where=str(split.fields))
        verdicts.append(verdict)
    return np.array(verdicts, np.float32)


def require_both(verdicts: np.ndarray, label: str, data: Path) -> None:
    """Refuse training verdicts ``[N]`` that are all equal.

    Raises:
        DataError: they are.
    """
    if verdicts.min() == verdicts.max():
        message = f"the {label!r} of all {len(verdicts):,} texts to learn from is {verdicts[0]:g}."
        remedy = "Training needs texts that readers accept and texts that they refuse."
        raise DataError(message, where=str(data), remedy=remedy)


def _missing_verdict(split: Split, number: int, label: str, known: list[str]) -> DataError:
    """The error for text ``number`` without a verdict; it says whether other texts have one."""
    if any(label in fields for fields in split.iter_fields()):
        remedy = "Give every text a verdict, or leave such texts out."
        return DataError(f"text {number} has no field {label!r}.", where=str(split.fields), remedy=remedy)
    remedy = did_you_mean(label, known) if known else "Give each text a verdict in a field, as in docs/training.md."
    return DataError(f"the data has no field {label!r}.", where="--label", remedy=remedy)


def auc(scores: np.ndarray, accepted: np.ndarray) -> float:
    """How often an accepted text scores higher than a refused one, ties as half; 0.5 if there are none of one kind."""
    positive, negative = scores[accepted], np.sort(scores[~accepted])
    if not len(positive) or not len(negative):
        return 0.5
    twice_below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(twice_below.mean() / 2 / len(negative))


def train_acceptability(
    config: AcceptabilityConfig, pretrained: Pretrained, data: Path, out: Path, *, label: str, resume: bool = False
) -> Path:
    """Train a classifier of acceptability and save it next to the model, or in the user's folder if the model is not
    theirs; ``out`` receives the files of the run.

    Returns:
        The folder of the saved weights and their card.

    Raises:
        DataError: ``data`` is not a prepared data set of the model's vocabulary with verdicts, or these are all equal.
        ModelError: the model is not a masked model, or has no scorer.
        UserError: ``out`` is the model's folder, holds an earlier run with ``resume`` off, or holds none with it on.
    """
    check_no_model(out, pretrained.folder)
    check_run_folder(out, data, resume=resume)
    folder = new_control_folder(pretrained.folder, pretrained.model, ACCEPTABILITY)
    check_writable(folder.parent)
    task = AcceptabilityTask(config, pretrained, data, label, resume=resume)
    inputs = {
        "label": label,
        "weights of the model": weights_digest(pretrained),
        SCORER_KEY: scorer_digest(pretrained.folder / SCORER),
    }
    judge = fit(task, config.loop, out, identity={**config.model_dump(), **inputs, **digest(data)}, resume=resume)
    if PartialState().is_main_process:
        state = round_matrices(judge.state_dict(), config.bits)
        judge.load_state_dict(state)
        card = {"texts": len(task.train.split), "training": config.model_dump(), "validation": task.validate(judge)}
        card |= {NETWORK: network_digest(task.network), SCORER_KEY: scorer_digest(pretrained.folder / SCORER)}
        save_control_weights(state, folder, pretrained.model, card)
        forget_acceptability(pretrained.model)
    return folder
