"""Training the classifier of a control on a model's frozen embeddings, and loading it again.

Noise-aware (Li et al. 2022, section 5.1): half of each batch is latents x_t at random t. The other half is the
model's own x_0 estimates from such latents, given as noise level 0: what guidance at the x_0 estimate shows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from dlmctl.checkpoint import Pretrained, load_into, save_weights
from dlmctl.control import Control, Setting
from dlmctl.dataset import BatchPlan, Split, load_split, padded, stream
from dlmctl.diffusion import DiffusionLM, ModelConfig, q_sample
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.tokenizer import Tokenizer
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import fit

NOISE_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
VALIDATION_ROWS = 512


class Trainable(Protocol):
    """What a control class offers so that its classifier can be trained."""

    name: ClassVar[str]

    @classmethod
    def build_classifier(cls, config: ModelConfig, tokenizer: Tokenizer) -> nn.Module:
        """An untrained classifier over the latents of a model."""

    @classmethod
    def labels(cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[Any]:
        """What the classifier is to predict, for each sentence."""

    @classmethod
    def classifier_loss(cls, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Any]) -> tuple[Tensor, Tensor]:
        """Loss and accuracy per example, both ``[B]``, for latents ``[B, L, D]`` at times ``[B]``."""


class ControlTask:
    """A control's classifier, for the training loop.

    Raises:
        DataError: the data was prepared with another vocabulary than the model's.
    """

    def __init__(self, control: type[Trainable], pretrained: Pretrained, config: LoopConfig, data: Path) -> None:
        self.control, self.config = control, config
        self.lm: DiffusionLM = pretrained.model.requires_grad_(False)
        self.tokenizer = pretrained.tokenizer
        self.train, self.valid = load_split(data, "train"), load_split(data, "valid")
        if json.loads((data / "vocab.json").read_text("utf-8")) != getattr(self.tokenizer, "vocabulary", None):
            raise DataError(
                "was prepared with another vocabulary than the model's.",
                where=str(data),
                remedy="Prepare it again with the model's vocabulary (`dlmctl data prepare --vocabulary MODEL`).",
            )
        self.train_labels = self._label(self.train)
        self.valid_labels = self._label(self.valid)
        torch.manual_seed(config.seed)
        self.model = control.build_classifier(self.lm.config, self.tokenizer)

    def _label(self, split: Split) -> list[Any]:
        sentences = [self.tokenizer.words(split.row(row).tolist()) for row in range(len(split))]
        return self.control.labels(sentences, split.read_fields() if split.fields else None)

    def batches(self, skip: int, rank: int, world: int) -> Iterator[tuple[Tensor, list[Any]]]:
        plan = BatchPlan(
            self.config.batch_positions,
            self.lm.config.length,
            self.config.bucket,
            self.config.full_share,
            self.config.seed,
        )
        for ids, rows in stream(self.train, plan, self.tokenizer.pad_id, skip=skip, rank=rank, world=world):
            yield torch.from_numpy(ids), [self.train_labels[row] for row in rows]

    def loss(self, model: nn.Module, batch: tuple[Tensor, list[Any]]) -> tuple[Tensor, int]:
        ids, labels = batch
        device = next(model.parameters()).device
        self.lm.to(device)
        clean = self.lm.embed(ids.to(device))
        t = torch.rand(len(ids), dtype=torch.float64).to(device)
        x = q_sample(self.lm.schedule, clean, t, torch.randn_like(clean))
        half = len(ids) // 2
        if half:
            with torch.no_grad():
                estimate = self.lm.predict(x[:half], t[:half]).x0.to(x)
            x = torch.cat([estimate, x[half:]])
            t = torch.cat([torch.zeros_like(t[:half]), t[half:]])
        losses, _ = self.control.classifier_loss(model, x, t, labels)
        return losses.mean(), ids.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy at each noise level, on x_t and on the model's x_0 estimate from it."""
        device, figures = next(model.parameters()).device, dict[str, float]()
        rows = np.arange(min(VALIDATION_ROWS, len(self.valid)))
        ids = torch.from_numpy(padded(self.valid, rows, self.lm.config.length, self.tokenizer.pad_id)).to(device)
        labels = [self.valid_labels[row] for row in rows]
        clean = self.lm.embed(ids)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(device)
        for level in NOISE_LEVELS:
            t = torch.full((len(ids),), level, dtype=torch.float64, device=device)
            x = q_sample(self.lm.schedule, clean, t, noise)
            _, accuracy = self.control.classifier_loss(model, x, t, labels)
            figures[f"accuracy_x_t_{level:g}"] = accuracy.mean().item()
            _, accuracy = self.control.classifier_loss(model, self.lm.predict(x, t).x0, torch.zeros_like(t), labels)
            figures[f"accuracy_x0_{level:g}"] = accuracy.mean().item()
        return figures

    def samples(self, model: nn.Module) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


def classifier_folder(model: Path, control: str) -> Path:
    """Where the weights of a control lie beside a model's."""
    return model / "controls" / control


def train_control(
    control: type[Trainable], pretrained: Pretrained, config: LoopConfig, data: Path, out: Path, *, resume: bool = False
) -> Path:
    """Train a control's classifier and save it beside the model.

    Args:
        data: a prepared data set with the model's vocabulary.
        out: folder of the run (metrics, checkpoint).

    Returns:
        The folder of the saved weights and their card.
    """
    task = ControlTask(control, pretrained, config, data)
    classifier = fit(task, config, out, resume=resume)
    folder = classifier_folder(pretrained.folder, control.name)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(classifier.state_dict(), folder)
    card = {"control": control.name, "training": config.model_dump(), "validation": task.validate(classifier)}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    return folder


def load_classifier(control: type[Trainable], setting: Setting) -> nn.Module:
    """The trained classifier of a control for the model in ``setting``, in evaluation mode.

    Raises:
        ModelError: it is missing, damaged or made for other sizes.
    """
    folder = classifier_folder(setting.folder, control.name)
    if not folder.is_dir():
        raise ModelError(
            f"the control {control.name!r} has no weights for this model.",
            where=str(setting.folder),
            remedy=f"Train them with `dlmctl train control {control.name} --model {setting.folder} --data DATA`.",
        )
    classifier = control.build_classifier(setting.model.config, setting.tokenizer)
    load_into(classifier, folder)
    return classifier.eval().requires_grad_(False)


def require_trainable(kind: type[Control[Any]]) -> type[Trainable]:
    """The control class as a ``Trainable``.

    Raises:
        UserError: it has no classifier to train.
    """
    missing = [name for name in ("build_classifier", "labels", "classifier_loss") if not hasattr(kind, name)]
    if missing:
        raise UserError(f"the control {kind.name!r} has no classifier, so there is nothing to train.")
    return cast("type[Trainable]", kind)
