"""Training the classifier of a control on a model's frozen embeddings, and loading it again.

Noise-aware (Li et al. 2022, section 5.1): half of each batch is latents x_t at random t. The other half is the
model's own x_0 estimates from such latents, given as noise level 0: what guidance at the x_0 estimate shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from dlmctl.checkpoint.control_weights import check_control_weights, save_control_weights
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import load_into
from dlmctl.control.base import Control, Setting
from dlmctl.control.catalogue import is_trainable
from dlmctl.datasets.dataset import BatchPlan, Split, load_split, load_vocabulary, padded, stream
from dlmctl.diffusion.model import DiffusionLM, ModelConfig, q_sample
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.text.files import read_json
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import fit

NOISE_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
VALIDATION_ROWS = 512
LABELS_FILE = "labels.json"

# Every batch prepares its control anew; the weights are read for the first.
_LOADED: WeakKeyDictionary[nn.Module, dict[tuple[type[Control[Any]], str | None], nn.Module]] = WeakKeyDictionary()


class Trainable(Protocol):
    """What trains a classifier: a control class with these as class methods, or its ``Labels`` (``DataLabels``)."""

    def build_classifier(self, config: ModelConfig, tokenizer: Tokenizer) -> nn.Module:
        """An untrained classifier over the latents of a model."""

    def labels(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[Any]:
        """What the classifier is to predict, for each sentence."""

    def classifier_loss(self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Any]) -> tuple[Tensor, Tensor]:
        """Loss and accuracy per example, both ``[B]``, for latents ``[B, L, D]`` at times ``[B]``."""


class DataLabels(Trainable, Protocol):
    """Labels that are known only from the data, such as the fields and values of a corpus.

    A control names its class of them as ``Labels``. They are made from the training rows and saved as
    ``labels.json`` beside the weights, which have no meaning without them.
    """

    @classmethod
    def from_data(cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None) -> Self:
        """The labels of these rows; ``label`` names the field that they are in, where the user chose one.

        Raises:
            DataError: the rows have no such labels.
        """

    def to_json(self) -> Any:
        """What ``from_json`` makes them from again."""

    @classmethod
    def from_json(cls, saved: Any) -> Self: ...

    def held_out(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> dict[str, float]:
        """Figures for the card about anything else that was learned, on validation rows."""


L = TypeVar("L", bound=DataLabels)


class ControlTask:
    """A control's classifier, for the training loop.

    Raises:
        DataError: the data was prepared with another vocabulary than the model's.
    """

    def __init__(
        self, control: type[Control[Any]], pretrained: Pretrained, config: LoopConfig, data: Path, label: str | None
    ) -> None:
        self.config = config
        self.lm: DiffusionLM = pretrained.model.requires_grad_(False)
        self.tokenizer = pretrained.tokenizer
        self.train, self.valid = load_split(data, "train"), load_split(data, "valid")
        if getattr(load_vocabulary(data), "vocabulary", None) != getattr(self.tokenizer, "vocabulary", None):
            raise DataError(
                "was prepared with another vocabulary than the model's.",
                where=str(data),
                remedy="Prepare it again with the model's vocabulary (`dlmctl data prepare --vocabulary MODEL`).",
            )
        rows = self._rows(self.train)
        self.trainable = _trainable(control, rows, label)
        self.train_labels = self.trainable.labels(*rows)
        self.valid_rows = self._rows(self.valid)
        self.valid_labels = self.trainable.labels(*self.valid_rows)
        torch.manual_seed(config.seed)
        self.model = self.trainable.build_classifier(self.lm.config, self.tokenizer)

    def _rows(self, split: Split) -> tuple[list[list[str]], list[dict[str, Any]] | None]:
        sentences = [self.tokenizer.words(split.row(row).tolist()) for row in range(len(split))]
        return sentences, split.read_fields() if split.fields else None

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
        losses, _ = self.trainable.classifier_loss(model, x, t, labels)
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
            _, accuracy = self.trainable.classifier_loss(model, x, t, labels)
            figures[f"accuracy_x_t_{level:g}"] = accuracy.mean().item()
            _, accuracy = self.trainable.classifier_loss(model, self.lm.predict(x, t).x0, torch.zeros_like(t), labels)
            figures[f"accuracy_x0_{level:g}"] = accuracy.mean().item()
        return figures

    def samples(self, model: nn.Module) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


def _trainable(
    control: type[Control[Any]], rows: tuple[list[list[str]], list[dict[str, Any]] | None], label: str | None
) -> Trainable:
    kind = _label_kind(control)
    if kind is not None:
        return kind.from_data(*rows, label)
    if label is not None:
        raise UserError(f"the control {control.name!r} has labels of its own, so it takes none.", where="--label")
    return cast("Trainable", control)


def _label_kind(control: type[Control[Any]]) -> type[DataLabels] | None:
    return getattr(control, "Labels", None)


def classifier_folder(model: Path, control: str, name: str | None = None) -> Path:
    """Where the weights of a control lie beside a model's; ``name`` tells several of one control apart.

    Raises:
        UserError: ``name`` is a path.
    """
    folder = model / "controls" / control
    if name is None:
        return folder
    if not name or name != Path(name).name:
        raise UserError(f"{name!r} cannot be the name of weights.", remedy="Take one word, such as sentiment.")
    return folder / name


def train_control(
    control: type[Control[Any]],
    pretrained: Pretrained,
    config: LoopConfig,
    data: Path,
    out: Path,
    *,
    label: str | None = None,
    name: str | None = None,
    resume: bool = False,
) -> Path:
    """Train a control's classifier and save it beside the model.

    Args:
        control: one that ``require_trainable`` accepts.
        data: a prepared data set with the model's vocabulary.
        out: folder of the run (metrics, checkpoint).
        label: the field of the data that holds the labels, for controls that take them from there.
        name: of the weights, where a model has several of one control.

    Returns:
        The folder of the saved weights and their card.
    """
    task = ControlTask(control, pretrained, config, data, label)
    classifier = fit(task, config, out, resume=resume)
    folder = classifier_folder(pretrained.folder, control.name, name)
    if not PartialState().is_main_process:
        return folder
    figures, files = task.validate(classifier), {}
    if _label_kind(control) is not None:
        learned = cast("DataLabels", task.trainable)
        files[LABELS_FILE] = learned.to_json()
        figures |= learned.held_out(*task.valid_rows)
    card = {"control": control.name, "training": config.model_dump(), "validation": figures}
    save_control_weights(classifier.state_dict(), folder, pretrained.model, card, files)
    return folder


def load_labels(kind: type[L], control: type[Control[Any]], of: Setting | Pretrained, name: str | None = None) -> L:
    """The labels that a control's classifier was trained on.

    Raises:
        ModelError: the weights are missing, or their ``labels.json`` is missing or damaged.
    """
    path = _trained_folder(control, of.folder, name) / LABELS_FILE
    saved = read_json(path, remedy="Train the control again.")
    try:
        return kind.from_json(saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy="Train the control again.") from None


def load_classifier(control: type[Control[Any]], setting: Setting, name: str | None = None) -> nn.Module:
    """The trained classifier of a control for the model in ``setting``, in evaluation mode; loaded once a model.

    Raises:
        ModelError: it is missing, damaged or made for other sizes.
    """
    loaded = _LOADED.setdefault(setting.model, {})
    if (control, name) not in loaded:
        kind = _label_kind(control)
        trainable = cast("Trainable", control) if kind is None else load_labels(kind, control, setting, name)
        classifier = trainable.build_classifier(setting.model.config, setting.tokenizer)
        folder = _trained_folder(control, setting.folder, name)
        load_into(classifier, folder)
        check_control_weights(folder, setting.model)
        loaded[control, name] = classifier.eval().requires_grad_(False)
    return loaded[control, name]


def _trained_folder(control: type[Control[Any]], model: Path, name: str | None) -> Path:
    folder = classifier_folder(model, control.name, name)
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.parent.name for path in folder.parent.glob("*/card.json")) if name else []
        others += sorted(path.parent.name for path in folder.glob("*/card.json"))
        remedy = f"Train them with `dlmctl train control {control.name} --model {model} --data DATA --out RUN`."
        raise ModelError(
            f"the control {control.name!r} has no weights {f'named {name!r} ' if name else ''}for this model.",
            where=str(model),
            remedy=f"There are weights named {', '.join(others)}." if others else remedy,
        )
    return folder


def require_trainable(kind: type[Control[Any]]) -> None:
    """Check that a control has a classifier to train, itself or by its ``Labels``.

    Raises:
        UserError: it has none.
    """
    if not is_trainable(kind):
        raise UserError(f"the control {kind.name!r} has no classifier, so there is nothing to train.")
