"""Classifiers of controls: what trains one, and loading the weights that lie beside a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from dlmctl.checkpoint.control_weights import check_control_weights, control_folders, find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import load_into
from dlmctl.control.base import Control
from dlmctl.control.evidence.beside import Counted
from dlmctl.control.evidence.table import CountTable
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import ModelError, UserError
from dlmctl.text.files import read_json
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

LABELS_FILE = "labels.json"


class Labels(ABC):
    """What the classifier of a control learns, and how. A control names its class of them as ``Labels``.

    Some are known beforehand. Others only from the data, such as the fields and values of a corpus: these are made from
    the training rows and saved as ``labels.json`` beside the weights, which have no meaning without them.
    """

    @classmethod
    def from_data(cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None) -> Self:
        """The labels of these rows; ``label`` names the field that they are in, where the user chose one.

        Raises:
            UserError: the rows have no such labels.
        """
        if label is not None:
            raise UserError("this control has labels of its own, so it takes none.", where="--label")
        return cls()

    @classmethod
    def judged(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None, judge: str
    ) -> Self:
        """``from_data`` with another tagger or parser than the bundled one.

        Raises:
            UserError: these labels come from no such judge, or there is none of this name.
        """
        raise UserError("the labels of this control come from no tagger or parser.", where="--judge")

    @classmethod
    def counted(
        cls,
        sentences: list[list[str]],
        fields: list[dict[str, Any]] | None,
        vocabulary: WordTokenizer,
        label: str | None,
        judge: str | None,
    ) -> tuple[Self, Counted]:
        """These labels and, by file, all that is counted for them in place of a classifier: by default ``evidence``.

        Raises:
            UserError: as ``from_data`` and ``judged``.
        """
        own = cls.from_data(sentences, fields, label) if judge is None else cls.judged(sentences, fields, label, judge)
        file, table = own.evidence(sentences, fields, vocabulary)
        return own, {file: table}

    def to_json(self) -> Any:
        """What ``from_json`` makes them from again; None for labels that are known beforehand."""
        return None

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return cls()

    @abstractmethod
    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        """An untrained classifier over the latents of a model."""

    @abstractmethod
    def labels(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[Any]:
        """What the classifier is to predict, for each sentence; ``fields`` is what the data says beside the text."""

    @abstractmethod
    def classifier_loss(self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[Any]) -> tuple[Tensor, Tensor]:
        """Loss and accuracy per example, both ``[B]``, for latents ``[B, L, D]`` at times ``[B]``."""

    def evidence(
        self, sentences: list[list[str]], fields: list[dict[str, Any]] | None, vocabulary: Tokenizer
    ) -> tuple[str, CountTable]:
        """What is counted in text where a model has no latents to classify, and the name of its file; by default
        nothing, and then such a model cannot be steered by what these labels are of."""
        raise NotImplementedError

    def held_out(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> dict[str, float]:
        """Figures for the card about anything else that was learned, on validation rows."""
        return {}


L = TypeVar("L", bound=Labels)

# Every batch prepares its control anew; labels and weights are looked for and read for the first.
_Key = tuple[type[Control[Any]], str | None]
_LABELS: WeakKeyDictionary[nn.Module, dict[_Key, Labels]] = WeakKeyDictionary()
_LOADED: WeakKeyDictionary[nn.Module, dict[_Key, nn.Module]] = WeakKeyDictionary()


def forget_classifiers(model: nn.Module) -> None:
    """Read what was trained for a model from disk again when it is next asked for."""
    _LABELS.pop(model, None)
    _LOADED.pop(model, None)


def load_labels(
    kind: type[L], control: type[Control[Any]], of: BatchContext[Any] | Pretrained, name: str | None = None
) -> L:
    """The labels that a control's classifier was trained on; read once a model.

    Raises:
        ModelError: the weights are missing, or their ``labels.json`` is missing or damaged.
    """
    known = _LABELS.setdefault(of.model, {})
    if (control, name) not in known:
        known[control, name] = _read_labels(kind, _trained_folder(control, of, name) / LABELS_FILE)
    return cast("L", known[control, name])


def _read_labels(kind: type[L], path: Path) -> L:
    needed = path.exists() or kind.to_json is not Labels.to_json
    saved = read_json(path, remedy="Train the control again.") if needed else None
    try:
        return kind.from_json(saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy="Train the control again.") from None


def load_classifier(control: type[Control[Any]], batch: BatchContext[Any], name: str | None = None) -> nn.Module:
    """The trained classifier of a control for the model of a batch, in evaluation mode; loaded once a model.

    Raises:
        ModelError: it is missing, damaged or made for other sizes.
        UserError: the control has none to train.
    """
    loaded = _LOADED.setdefault(batch.model, {})
    if (control, name) not in loaded:
        labels = load_labels(labels_of(control), control, batch, name)
        classifier = labels.build_classifier(cast("ModelConfig", batch.model.config), batch.vocabulary)
        folder = _trained_folder(control, batch, name)
        load_into(classifier, folder)
        check_control_weights(folder, batch.model)
        loaded[control, name] = classifier.eval().requires_grad_(False)
    return loaded[control, name].to(batch.device)


def _trained_folder(control: type[Control[Any]], of: BatchContext[Any] | Pretrained, name: str | None) -> Path:
    found = find_control_folder(of.folder, of.model, control.name, name)
    if found is None:
        places = control_folders(of.folder, of.model, control.name)
        others = sorted({path.parent.name for place in places for path in place.glob("*/card.json")} - {name})
        remedy = f"Train them with `dlmctl train control {control.name} --model {of.folder} --data DATA --out RUN`."
        raise ModelError(
            f"the control {control.name!r} has no weights {f'named {name!r} ' if name else ''}for this model.",
            where=str(of.folder),
            remedy=f"There are weights named {', '.join(others)}." if others else remedy,
        )
    return found


def labels_of(kind: type[Control[Any]]) -> type[Labels]:
    """What the classifier of a control learns.

    Raises:
        UserError: it has none to train.
    """
    if kind.Labels is None:
        raise UserError(f"the control {kind.name!r} has no classifier, so there is nothing to train.")
    return kind.Labels
