"""Classifiers of controls: what trains one, and loading the weights that lie beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from dlmctl.checkpoint.pretrained import Pretrained, load_into
from dlmctl.control.base import Control
from dlmctl.control.state import Setting
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import ModelError, UserError
from dlmctl.text.tokenizer import Tokenizer

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


def load_labels(kind: type[L], control: type[Control[Any]], of: Setting | Pretrained, name: str | None = None) -> L:
    """The labels that a control's classifier was trained on.

    Raises:
        ModelError: the weights are missing, or their ``labels.json`` is missing or damaged.
    """
    path = _trained_folder(control, of.folder, name) / LABELS_FILE
    try:
        return kind.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        load_into(classifier, _trained_folder(control, setting.folder, name))
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


def is_trainable(kind: type[Control[Any]]) -> bool:
    """Whether a control has a classifier to train, itself or by its ``Labels`` (see ``dlmctl.training.classifier``)."""
    offered = getattr(kind, "Labels", kind)
    return all(hasattr(offered, method) for method in ("build_classifier", "labels", "classifier_loss"))
