"""What was learned for a control: loading it from a model's folder, and guidance by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

from torch import nn

from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.control_weights import CARD, check_control_weights, control_folders, find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.user_weights import bundled_models_with
from dlmctl.checkpoint.weights import load_into, without_rng_effects
from dlmctl.control.base import Control
from dlmctl.control.evidence.beside import evidence_file
from dlmctl.control.evidence.prepared import ClassifierWithEvidence
from dlmctl.control.labels import Labels
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.control.training_command import training_command
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import ModelConfig
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError, RecipeError, SettingError, UserError
from dlmctl.text.files import read_json
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

LABELS_FILE = "labels.json"

# The remedy if the weights of a control are requested for a model for which none are trained.
INSTEAD = "Guide by `classifier: {model: FOLDER}`, fix words by `contains` or `pattern`, or train a model of your own."
# In the card of a control: the most positions of the texts that its classifier was trained on, if it reads no others.
POSITIONS = "positions"

L = TypeVar("L", bound=Labels)


class _Loaded(NamedTuple):
    """A classifier, and the most positions that it reads, None for all of the model's."""

    classifier: nn.Module
    positions: int | None


# Every batch prepares its control anew; labels and weights are located and read only for the first.
_Key = tuple[type[Control[Any]], str | None]
_LABELS: WeakKeyDictionary[nn.Module, dict[_Key, Labels]] = WeakKeyDictionary()
_LOADED: WeakKeyDictionary[nn.Module, dict[_Key, _Loaded]] = WeakKeyDictionary()


def forget_classifiers(model: nn.Module) -> None:
    """Drop the cached labels and classifiers of a model, so that the next use reads them from disk again."""
    _LABELS.pop(model, None)
    _LOADED.pop(model, None)


def load_labels(
    kind: type[L], control: type[Control[Any]], of: BatchContext[Any] | Pretrained, name: str | None = None
) -> L:
    """The labels that a control's classifier was trained on; read once per model.

    Raises:
        ModelError: the weights are missing, or their ``labels.json`` is missing or damaged.
    """
    known = _LABELS.setdefault(of.model, {})
    if (control, name) not in known:
        known[control, name] = _read_labels(kind, _trained_folder(control, of, name) / LABELS_FILE)
    return cast("L", known[control, name])


def _read_labels(kind: type[L], path: Path) -> L:
    is_needed = path.exists() or kind.to_json is not Labels.to_json
    saved = read_json(path, remedy="Train the control again.") if is_needed else None
    try:
        return kind.from_json(saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy="Train the control again.") from None


def load_classifier(control: type[Control[Any]], batch: BatchContext[Any], name: str | None = None) -> nn.Module:
    """The trained classifier of a control for the model of a batch, in evaluation mode; loaded once per model.

    Raises:
        ModelError: it is missing, damaged or of different sizes.
        UserError: the control has none to train.
        RecipeError: the texts of the batch may be longer than those that it was trained on.
    """
    loaded = _LOADED.setdefault(batch.model, {})
    if (control, name) not in loaded:
        labels = load_labels(labels_of(control), control, batch, name)
        with without_rng_effects():
            classifier = labels.build_classifier(cast("ModelConfig", batch.model.config), batch.vocabulary)
        folder = _trained_folder(control, batch, name)
        load_into(classifier, folder)
        positions = _positions(check_control_weights(folder, batch.model), folder)
        loaded[control, name] = _Loaded(classifier.eval().requires_grad_(False), positions)
    classifier, positions = loaded[control, name]
    if positions is not None and batch.length > positions:
        what = f"texts have up to {batch.length - 1} tokens; {control.name!r} learned from up to {positions - 1}."
        raise RecipeError(what, where="sampler.new_tokens", remedy=f"Set it to {positions - 1} or less.")
    on_device = all(weight.device == batch.device for weight in classifier.parameters())
    return classifier if on_device else classifier.to(batch.device)


def _positions(card: Mapping[str, Any], folder: Path) -> int | None:
    """The most positions that a classifier reads, as its card in ``folder`` says; None for all of the model's."""
    positions = card.get(POSITIONS)
    if positions is not None and (type(positions) is not int or positions < 1):
        what = f"{POSITIONS} must be a whole number of at least 1."
        raise ModelError(what, where=str(folder / CARD), remedy="Train the control again.")
    return positions


def guide(control: Control[Any], batch: BatchContext[Any], wanted: Sequence[Any], name: str | None = None) -> Prepared:
    """Guidance by what was learned for a control: by its counts, by its classifier of latents, or by both if the
    model's folder has both.

    Args:
        wanted: the target of each text of the batch, in the form that the control's ``Labels`` take.
        name: name of the weights, if a model has several for one control.

    Raises:
        ModelError: nothing was learned for this model, or a file is damaged.
        UserError: a target is not among the labels, or the control has no labels.
    """
    kind = labels_of(type(control))
    path = None if kind.counts is None else evidence_file(batch, control.name, kind.counts, name)
    has_both = path is not None and kind.counts_too and any(path.parent.glob("model*.safetensors"))
    if path is not None and not has_both:
        return kind.by_counts(path.parent, batch, wanted)
    labels = load_labels(kind, type(control), batch, name)
    guided = labels.by_classifier(load_classifier(type(control), batch, name), batch, wanted)
    if path is None:
        return guided
    return ClassifierWithEvidence(guided, *kind.beside(path.parent, batch, wanted))


def require_trainable(control: type[Control[Any]], of: BatchContext[Any] | Pretrained) -> None:
    """Check that a control can be trained, or counted, for the model.

    Raises:
        ModelError: it is a DiffusionGemma, which has no masked texts for a classifier, or another program's
            (``LogitsControl``).
    """
    needs_network = of.model.family == "canvas" and not is_counted(labels_of(control), of)
    if needs_network or (of.model.family == "tokens" and not isinstance(of.model, TokenLM)):
        what = f"controls are not trained for this kind of model, so {control.name!r} has no weights for it."
        raise ModelError(what, where=str(of.folder), remedy=INSTEAD)


def named_weights(control: type[Control[Any]], of: BatchContext[Any] | Pretrained) -> list[str]:
    """The names of the weights that a model has for a control."""
    folders = control_folders(of.folder, of.model, control.name)
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/card.json")})


def _trained_folder(control: type[Control[Any]], of: BatchContext[Any] | Pretrained, name: str | None) -> Path:
    trained = find_control_folder(of.folder, of.model, control.name, name)
    if trained is None:
        require_trainable(control, of)
        others = [other for other in named_weights(control, of) if other != name]
        what = f"the control {control.name!r} has no weights {f'named {name!r} ' if name else ''}for this model."
        if others:
            raise SettingError("name", what, where=model_name(of.folder), remedy=_name_remedy(others))
        command = training_command(control, model_name(of.folder), name, out="RUN" if _needs_run(control, of) else None)
        models = bundled_models_with(control.name, name)
        elsewhere = f"`model: {models[0]}` has them. " if models else ""
        raise ModelError(what, where=model_name(of.folder), remedy=f"{elsewhere}Train them with `{command}`.")
    return trained


def _name_remedy(names: Sequence[str]) -> str:
    return f"There are weights named {', '.join(names)}: choose with `name`, such as `name: {names[0]}`."


def _needs_run(control: type[Control[Any]], of: BatchContext[Any] | Pretrained) -> bool:
    """Whether a network is trained, rather than only counts made, without hints for the model."""
    kind = labels_of(control)
    return not is_counted(kind, of) or takes_hints(kind, of)


def is_counted(kind: type[Labels], of: BatchContext[Any] | Pretrained) -> bool:
    """Whether evidence is counted for a model, in place of a classifier."""
    return isinstance(of.model, MaskedModel) and kind.counted_in(_vocabulary(of))


def takes_hints(kind: type[Labels], of: BatchContext[Any] | Pretrained) -> bool:
    """Whether hints can be trained for a model: it is of the family ``masked``, over words, and the labels have any."""
    is_masked = of.model.family == "masked" and isinstance(_vocabulary(of), WordTokenizer)
    return is_masked and kind.asks is not Labels.asks


def _vocabulary(of: BatchContext[Any] | Pretrained) -> Tokenizer:
    return of.tokenizer if isinstance(of, Pretrained) else of.vocabulary


def labels_of(kind: type[Control[Any]]) -> type[Labels]:
    """The ``Labels`` of a control: what its classifier learns.

    Raises:
        UserError: it has no classifier to train.
    """
    if kind.Labels is None:
        raise UserError(f"the control {kind.name!r} has no classifier, so there is nothing to train.")
    return kind.Labels
