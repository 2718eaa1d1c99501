"""Training a control's classifier on a model's frozen embeddings, at all levels of noise; see ``Inputs``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

from dlmctl.checkpoint.control_weights import (
    check_will_be_found,
    new_control_folder,
    save_control_weights,
    warn_of_replaced_weights,
)
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.classifier import (
    LABELS_FILE,
    POSITIONS,
    forget_classifiers,
    is_counted,
    labels_of,
    require_trainable,
    takes_hints,
)
from dlmctl.control.evidence.beside import EvidenceFiles, save_evidence
from dlmctl.control.labels import refuse_unused_options
from dlmctl.datasets.dataset import BatchPlan, batch_stream, load_split, padded_batch
from dlmctl.datasets.staging import check_writable
from dlmctl.diffusion.model import ModelConfig
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import UserError
from dlmctl.generation.identity import weights_digest
from dlmctl.training.config import LoopConfig
from dlmctl.training.control_inputs import inputs_of
from dlmctl.training.counting import count_control, require_words_of, text_of
from dlmctl.training.hints import HintRun
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.progress import Grid
from dlmctl.training.rows import Rows
from dlmctl.training.run_folder import check_apart, check_no_model, check_run_folder
from dlmctl.training.state import digest

COMMONEST = "accuracy_commonest"
NOISE_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
VALIDATION_ROWS = 512


class ControlTask(StatelessTask):
    """A control's classifier, for the training loop.

    Raises:
        DataError: the data was prepared with a vocabulary other than the model's.
    """

    def __init__(
        self,
        control: type[Control[Any]],
        pretrained: Pretrained,
        config: LoopConfig,
        data: Path,
        label: str | None,
        judge: str | None = None,
    ) -> None:
        self.config = config
        self.lm, self.tokenizer = pretrained.model, pretrained.tokenizer
        self.inputs = inputs_of(pretrained)
        levels = [f"{level:g}" for level in NOISE_LEVELS]
        rows = {name: [f"accuracy_{kind}_{level}" for level in levels] for kind, name in self.inputs.kinds.items()}
        require_words_of(pretrained, data)
        self.train, self.valid = (load_split(data, split, self.tokenizer) for split in ("train", "valid"))
        splits = self.train, self.valid
        # Checkpoints over tokens hold many more positions than texts have.
        is_checkpoint = isinstance(self.lm, TokenLM)
        self.length = int(max(split.lengths.max() for split in splits)) if is_checkpoint else self.lm.config.length
        self.text, self.valid_text = (text_of(split, self.tokenizer, label, judge) for split in splits)
        self.kind = labels_of(control)
        refuse_unused_options(self.kind, self.text)
        self.learned = self.kind.from_data(self.text)
        self.train_labels = self.learned.labels(self.text)
        self.valid_labels = self.learned.labels(self.valid_text)
        # The split may be sorted by label.
        self.valid_rows = self.valid.spread(VALIDATION_ROWS)
        self.commonest = self.learned.commonest_accuracy([self.valid_labels[row] for row in self.valid_rows])
        if self.commonest is not None:
            rows["always the commonest"] = [COMMONEST] * len(levels)
        self.grid = Grid("accuracy at noise level", levels, rows)
        torch.manual_seed(config.seed)
        self.model = self.learned.build_classifier(cast("ModelConfig", self.lm.config), self.tokenizer)

    def batches(self, skip: int, rank: int, world: int) -> Iterator[tuple[Tensor, list[Any]]]:
        plan = BatchPlan(
            self.config.batch_positions,
            self.length,
            self.config.bucket,
            self.config.full_share,
            self.config.seed,
        )
        texts = Rows(self.train, self.tokenizer.pad_id, next(self.model.parameters()).device)
        for rows, width in batch_stream(self.train, plan, skip=skip, rank=rank, world=world):
            yield texts.batch(rows, width), [self.train_labels[row] for row in rows]

    def loss(self, model: nn.Module, batch: tuple[Tensor, list[Any]]) -> tuple[Tensor, int]:
        ids, labels = batch
        self.lm.to(ids.device)
        latents = self.inputs.batch(ids)
        losses, _ = self.learned.classifier_loss(model, latents.x, latents.t, labels)
        return losses.mean(), ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy at each noise level for each kind of latents, and the mean loss."""
        device, figures = next(model.parameters()).device, dict[str, float]()
        rows = self.valid_rows
        ids = torch.from_numpy(padded_batch(self.valid, rows, self.length, self.tokenizer.pad_id)).to(device)
        labels = [self.valid_labels[row] for row in rows]
        losses = []
        for level in NOISE_LEVELS:
            for kind, latents in self.inputs.at(level, ids).items():
                loss, accuracy = self.learned.classifier_loss(model, latents.x, latents.t, labels)
                figures[f"accuracy_{kind}_{level:g}"] = accuracy.mean().item()
                losses.append(loss.mean().item())
        commonest = {} if self.commonest is None else {COMMONEST: self.commonest}
        return {"loss": sum(losses) / len(losses), **figures, **commonest}

    def counted(self) -> EvidenceFiles:
        """The word evidence that guides along with the classifier; empty if nothing is counted."""
        if not (self.kind.counts_too and self.kind.counted_in(self.tokenizer)):
            return {}
        return self.kind.counted(self.text, self.tokenizer)[1]

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["loss"]


def _check_arguments(
    control: type[Control[Any]], out: Path | None, data: Path, model: Path, name: str | None, *, resume: bool
) -> None:
    if out is not None:
        check_apart(out, data)
        check_no_model(out, model)
    elif resume:
        raise UserError("needs the folder of the run to continue.", where="--resume", remedy="Give its --out.")
    # A recipe selects weights by the parameter `name`; without it, named weights could never be used.
    if name is not None and "name" not in control.Params.model_fields:
        message = f"the weights of {control.name!r} cannot be named, as the control has no parameter `name`."
        raise UserError(message, where="--name", remedy="Leave it out.")


def _folder_of_classifier(
    control: type[Control[Any]], pretrained: Pretrained, name: str | None, sentences: int | None
) -> Path:
    """The folder to save the classifier in, checked to be writable and to be found by a recipe."""
    if sentences is not None:
        message = f"{control.name!r} is not counted for this model: a classifier is trained, on all of the data."
        raise UserError(message, where="--sentences", remedy="Leave it out.")
    folder = new_control_folder(pretrained.folder, pretrained.model, control.name, name)
    check_will_be_found(folder, pretrained.folder, pretrained.model, control.name, name)
    check_writable(folder.parent)
    return folder


def train_control(
    control: type[Control[Any]],
    pretrained: Pretrained,
    config: LoopConfig,
    data: str | Path,
    out: str | Path | None,
    *,
    label: str | None = None,
    name: str | None = None,
    judge: str | None = None,
    sentences: int | None = None,
    add: bool = False,
    resume: bool = False,
) -> Path:
    """Train a control's classifier and save it next to the model, or in the user's folder if the model is not theirs.

    For a masked model, evidence is counted instead where possible (``count_control``); with ``out``, hints are trained,
    too, if its vocabulary is one of words.

    Args:
        control: one with ``Labels``.
        data: a prepared data set with the model's vocabulary.
        out: folder of the run (metrics, checkpoint); None if evidence is only counted.
        label: the field of the data that holds the labels, for controls that read them from the data.
        name: of the weights, for a model with several of one control.
        judge: the tagger or parser for texts without tags or a tree in the data, in place of the bundled one.
        sentences: the most sentences to count evidence in.
        add: add the counts to those that the model has.

    Returns:
        The folder of the saved weights and their card.

    Raises:
        UserError: a setting, an argument or the model does not fit, the data has no such labels, or ``out`` is None.
    """
    data, out = Path(data), None if out is None else Path(out)
    _check_arguments(control, out, data, pretrained.folder, name, resume=resume)
    require_trainable(control, pretrained)
    arguments = {"control": control.name, "label": label, "name": name, "judge": judge}
    if is_counted(labels_of(control), pretrained):
        hints = None if out is None else HintRun(config, out, resume, arguments)
        if out is not None and takes_hints(labels_of(control), pretrained):
            check_run_folder(out, resume=resume)
        return count_control(
            control, pretrained, data, label=label, name=name, judge=judge, sentences=sentences, hints=hints, add=add
        )
    if add:
        what = "this control is not counted for this model, and only counts can be added up."
        raise UserError(what, where="--add", remedy="Leave it out.")
    if out is None:
        what = f"training for the model {pretrained.folder.name!r} needs a folder for the run."
        raise UserError(what, where="--out", remedy="E.g. --out runs/pos; --model chooses another model.")
    folder = _folder_of_classifier(control, pretrained, name, sentences)
    return _train_classifier(control, pretrained, config, data, out, folder, arguments, resume=resume)


def _train_classifier(
    control: type[Control[Any]],
    pretrained: Pretrained,
    config: LoopConfig,
    data: Path,
    out: Path,
    folder: Path,
    arguments: dict[str, str | None],
    *,
    resume: bool,
) -> Path:
    """Train a classifier and save it in ``folder``. ``arguments`` are those of the run that name what is learned."""
    label, judge = arguments["label"], arguments["judge"]
    check_run_folder(out, resume=resume)
    task = ControlTask(control, pretrained, config, data, label, judge)
    warn_of_replaced_weights(folder, resume=resume)
    # The classifier learns from the model's estimates, so all weights matter and not just the embeddings.
    inputs = {"weights of the model": weights_digest(pretrained), **arguments, **digest(data)}
    classifier = fit(task, config, out, identity={"loop": config.model_dump(), **inputs}, resume=resume)
    if not PartialState().is_main_process:
        return folder
    figures = {**task.validate(classifier), **task.learned.held_out(task.valid_text)}
    files = {} if (learned := task.learned.to_json()) is None else {LABELS_FILE: learned}
    judge_entry = {} if judge is None else {"judge": judge}
    # Where a text ends is settled before it is drawn, or the classifier reads as many positions as it may have.
    reads_all = isinstance(pretrained.model, TokenLM) and pretrained.model.config.ends
    positions = {POSITIONS: task.length} if reads_all else {}
    card = {"control": control.name, **judge_entry, **positions, "training": config.model_dump(), "validation": figures}
    save_counted = partial(save_evidence, task.counted())
    save_control_weights(classifier.state_dict(), folder, pretrained.model, card, files, save_counted)
    forget_classifiers(pretrained.model)
    return folder
