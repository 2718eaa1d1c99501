"""The weights that controls have for a model: where they lie, and that they are those that were trained on it.

They lie in the folder of the model, ``controls/CONTROL`` or ``controls/CONTROL/NAME``, or, where nothing is written
into that folder, in the user's own (``platformdirs``), by the name of the model and the digest of its embeddings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlmctl.checkpoint.bundled import PACKAGE, bundled_names, bundled_path
from dlmctl.checkpoint.digests import DIGESTS, check_digests, folder_digests
from dlmctl.checkpoint.user_weights import users_controls
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.errors import ModelError, UserError
from dlmctl.models.adapters import adapted
from dlmctl.text.files import read_object

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlmctl.diffusion.masked_base import MaskedModel
    from dlmctl.diffusion.model import DiffusionLM

CARD = "card.json"
# What to do where weights beside a model cannot be replaced.
COPY = "Copy the model's folder and give the copy."
# Beside the weights of controls lies what has learned from readers which texts of the model they accept.
ACCEPTABILITY = "acceptability"
log = logging.getLogger("dlmctl")

# The key in a card for the digest of the embeddings that the weights were trained on.
EMBEDDINGS = "embeddings"


def embedding_digest(model: DiffusionLM | MaskedModel) -> str:
    """The SHA-256 of a model's table of word embeddings.

    Of the table in half precision, so that a model saved so (``save_pretrained(dtype=torch.float16)``) is the same.
    """
    return _half_digest(model.embedding_table)


def network_digest(network: nn.Module) -> str:
    """The SHA-256 of the last matrix that has adapters, in half precision, too: what is read off a network that was
    trained further is of another one, though its word embeddings may be the same."""
    return _half_digest(list(adapted(network).values())[-1])


def _half_digest(tensor: Tensor) -> str:
    table = tensor.detach().to("cpu", torch.float16).contiguous()
    return hashlib.sha256(str(list(table.shape)).encode() + table.view(torch.uint8).numpy().tobytes()).hexdigest()


def control_folders(
    folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> list[Path]:
    """Where the weights of a control are looked for, in this order; none of them need be there.

    Args:
        folder: of the model.
        name: of the weights, where a model has several of one control.

    Raises:
        UserError: ``name`` is a path.
    """
    inside = _inside(control, name)
    return [folder / "controls" / inside, _user_folder(folder, model) / inside]


def find_control_folder(
    folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> Path | None:
    """The first of ``control_folders`` that holds weights, or None."""
    inside = _inside(control, name)
    beside = folder / "controls" / inside
    if any(beside.glob("*.safetensors")):  # asked for every batch, so without a digest where none is needed
        return beside
    own = _user_folder(folder, model) / inside
    return own if any(own.glob("*.safetensors")) else None


def acceptability_folder(folder: Path, model: DiffusionLM | MaskedModel) -> Path | None:
    """Where it lies which texts of a model readers accept: what the user has trained, else what came with the model.

    None where there is neither.
    """
    beside, own = control_folders(folder, model, ACCEPTABILITY)
    return next((path for path in (own, beside) if any(path.glob("*.safetensors"))), None)


def new_control_folder(folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None) -> Path:
    """Where new weights of a control are to be written: beside the model, unless it is bundled or cannot be written to.

    Arguments and errors as ``control_folders``.
    """
    beside, own = control_folders(folder, model, control, name)
    return beside if _is_the_users(folder) else own


def check_found(
    new: Path, folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> None:
    """Refuse to make weights that nothing would find, as those beside the model are found first.

    Args:
        new: as ``new_control_folder`` gives it; the others as there.

    Raises:
        UserError: weights of this control lie beside a model whose folder is not the user's to write to.
    """
    if find_control_folder(folder, model, control, name) not in (None, new):
        what = f"what was learned for {control!r} is read beside the model, and nothing can be written there."
        raise UserError(what, where=str(folder), remedy=COPY)


def tell_of_weights(folder: Path, *, resume: bool) -> None:
    """Say on stderr, before anything is trained, where it will replace weights; a run that goes on replaces its own."""
    if not resume and any(folder.glob("*.safetensors")):
        log.warning("dlmctl: %s: the weights that lie here will be replaced.", folder)


def _inside(control: str, name: str | None) -> Path:
    if name is None:
        return Path(control)
    if not name or name in (".", "..") or name != Path(name).name:
        raise UserError(f"{name!r} cannot be the name of weights.", remedy="Take one word, such as sentiment.")
    return Path(control, name)


def _user_folder(folder: Path, model: DiffusionLM | MaskedModel) -> Path:
    return users_controls() / f"{folder.resolve().name}-{embedding_digest(model)[:16]}"


def _is_the_users(folder: Path) -> bool:
    """Whether a model's folder is the user's to write to: not bundled, not in the package, not read-only."""
    place = folder.resolve()
    ships = any(folder.samefile(path) for name in bundled_names("models") if (path := bundled_path("models", name)))
    existing = next(path for path in (place / "controls", place) if path.exists() or path == place)
    return not ships and not place.is_relative_to(PACKAGE) and os.access(existing, os.W_OK)


def save_control_weights(
    state: Mapping[str, Tensor],
    folder: Path,
    model: DiffusionLM | MaskedModel,
    card: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
    beside: Callable[[Path], object] = lambda staging: None,
) -> None:
    """Write the weights of a control, its labels and its card. Arguments and errors as ``save_control_files``.

    Args:
        state: of the classifier.
        model: that it was trained on; the digest of its embeddings is added to the card.
        beside: writes what else was learned into a folder.
    """

    def write(staging: Path) -> None:
        write_shards(state, staging, "model")
        beside(staging)

    save_control_files(write, folder, {**card, EMBEDDINGS: embedding_digest(model)}, files)


def save_control_files(
    write: Callable[[Path], object], folder: Path, card: Mapping[str, Any], files: Mapping[str, Any] | None = None
) -> None:
    """Write what a control has learned, its labels and its card, all aside first and moved into place together.

    Args:
        write: writes what it has learned into a folder.
        folder: as ``new_control_folder`` gives it.
        card: what to say of it; the digests of the files are added.
        files: further JSON files by name, such as labels.

    Raises:
        UserError: the folder cannot be written.
    """
    with staged(folder) as staging:
        write(staging)
        for name, value in (files or {}).items():
            (staging / name).write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", "utf-8")
        seal = {DIGESTS: folder_digests(staging, list(staging.iterdir()))}
        (staging / CARD).write_text(json.dumps({**card, **seal}, indent=2) + "\n", "utf-8")


def check_control_files(folder: Path) -> Mapping[str, Any]:
    """Check that the files of a control are those that were saved; its card, empty where there is none.

    Raises:
        ModelError: a file is another one.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        return {}
    card = read_object(path)
    check_digests(folder, card.get(DIGESTS), CARD)
    return card


def check_control_weights(folder: Path, model: DiffusionLM | MaskedModel) -> Mapping[str, Any]:
    """Check that the files of a control are those that were saved, and that they were trained on this model; its card.

    A folder without a card, or with one of an earlier version, passes.

    Raises:
        ModelError: a file is another one, or the embeddings of the model are.
    """
    card = check_control_files(folder)
    if card.get(EMBEDDINGS) not in (None, embedding_digest(model)):
        raise ModelError(
            "the weights were trained on other word embeddings than the model has now.",
            where=str(folder),
            remedy="The model was trained further or is another one: train the control again.",
        )
    return card
