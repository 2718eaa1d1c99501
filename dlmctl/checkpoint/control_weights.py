"""The weights of controls for a model: where they are stored, and checks that they were trained on this model.

They are stored in the model's folder, in ``controls/CONTROL`` or ``controls/CONTROL/NAME``; or, where that folder must
not be written to, in the user's data folder (``platformdirs``), by model name and digest of its embeddings.
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
from dlmctl.checkpoint.kept_digests import KeptDigests
from dlmctl.checkpoint.user_weights import NO_FOLDER, user_controls_folder
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.errors import ModelError, UserError
from dlmctl.models.adapters import adapted_matrices
from dlmctl.text.files import read_object

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlmctl.diffusion.masked_base import MaskedModel
    from dlmctl.diffusion.model import DiffusionLM

CONTROLS, CARD = "controls", "card.json"
# The remedy where weights in a model's folder cannot be replaced.
COPY_REMEDY = "Copy the model's folder and give the copy."
# Stored like a control's weights: the model of which texts readers accept; or this file, with the name of another
# model, which reads the texts in its place.
ACCEPTABILITY = "acceptability"
READER_FILE = "reader.json"
log = logging.getLogger("dlmctl")

# The key in a card for the digest of the embeddings that the weights were trained on.
EMBEDDINGS = "embeddings"


_DIGESTS = KeptDigests()


def embedding_digest(model: DiffusionLM | MaskedModel) -> str:
    """The SHA-256 of a model's table of word embeddings.

    It is taken in half precision, so that a model saved with ``save_pretrained(dtype=torch.float16)`` has the same one.
    Every batch asks for it, so that of a table that is not being trained is kept (``KeptDigests``).
    """
    table = model.embedding_table
    if table.requires_grad:
        return _half_precision_digest(table)
    return _DIGESTS.of(model, [table], lambda: _half_precision_digest(table))


def network_digest(network: nn.Module) -> str:
    """The SHA-256 of the last matrix that has adapters, in half precision too. It changes when the network is trained
    further, though the word embeddings may not."""
    return _half_precision_digest(list(adapted_matrices(network).values())[-1])


def _half_precision_digest(tensor: Tensor) -> str:
    table = tensor.detach().to("cpu", torch.float16).contiguous()
    return hashlib.sha256(str(list(table.shape)).encode() + table.view(torch.uint8).numpy().tobytes()).hexdigest()


def control_folders(
    folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> list[Path]:
    """The folders in which the weights of a control are looked for, in this order; they need not exist.

    Args:
        folder: the model's folder.
        name: the name of the weights, where a model has several sets for one control.

    Raises:
        UserError: ``name`` is a path.
    """
    subfolder = _subfolder(control, name)
    return [root / subfolder for root in control_roots(folder, model)]


def control_roots(folder: Path, model: DiffusionLM | MaskedModel) -> list[Path]:
    """The folders that hold those of a model's controls: in the model's folder, and the user's; they need not exist."""
    return [folder / CONTROLS, _user_folder(folder, model)]


def find_control_folder(
    folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> Path | None:
    """The first of ``control_folders`` that holds weights, or None."""
    subfolder = _subfolder(control, name)
    in_model = folder / CONTROLS / subfolder
    if any(in_model.glob("*.safetensors")):  # called for every batch, so the digest is computed only if needed
        return in_model
    in_user_folder = _user_folder(folder, model) / subfolder
    return in_user_folder if any(in_user_folder.glob("*.safetensors")) else None


def acceptability_folder(folder: Path, model: DiffusionLM | MaskedModel) -> Path | None:
    """The folder of a model's acceptability weights: those that the user has trained, else those of the model, else
    the name of its reader (``READER_FILE``); None if there is nothing."""
    in_model, in_user_folder = control_folders(folder, model, ACCEPTABILITY)
    candidates = (path for path in (in_user_folder, in_model) if any(path.glob("*.safetensors")))
    return next(candidates, in_model if (in_model / READER_FILE).is_file() else None)


def new_control_folder(folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None) -> Path:
    """The folder for new weights of a control: in the model's folder, unless that is bundled or not writable.

    Arguments and errors as for ``control_folders``.

    Raises:
        UserError: the user has no home folder, and the model's folder is no place for them.
    """
    in_model, in_user_folder = control_folders(folder, model, control, name)
    if _belongs_to_user(folder):
        return in_model
    if in_user_folder.is_relative_to(NO_FOLDER):
        raise UserError("there is no home folder to save the weights in.", remedy="Set HOME, or copy the model.")
    return in_user_folder


def check_will_be_found(
    new: Path, folder: Path, model: DiffusionLM | MaskedModel, control: str, name: str | None = None
) -> None:
    """Refuse to train weights that would never be used, because those in the model's folder take precedence.

    Args:
        new: the result of ``new_control_folder``, which takes the other arguments too.

    Raises:
        UserError: the model has weights of this control in a folder that must not be written to.
    """
    if find_control_folder(folder, model, control, name) not in (None, new):
        what = f"the weights of {control!r} in this folder take precedence, and they cannot be replaced."
        raise UserError(what, where=str(folder), remedy=COPY_REMEDY)


def warn_of_replaced_weights(folder: Path, *, resume: bool) -> None:
    """Warn before training that weights will be replaced; a resumed run replaces only its own."""
    if not resume and any(folder.glob("*.safetensors")):
        log.warning("dlmctl: %s: the weights in this folder will be replaced.", folder)


def _subfolder(control: str, name: str | None) -> Path:
    if name is None:
        return Path(control)
    if not name or name in (".", "..") or name != Path(name).name:
        raise UserError(f"{name!r} cannot be the name of weights.", remedy="Use a single word, such as sentiment.")
    return Path(control, name)


def _user_folder(folder: Path, model: DiffusionLM | MaskedModel) -> Path:
    return user_controls_folder() / f"{folder.resolve().name}-{embedding_digest(model)[:16]}"


def _belongs_to_user(folder: Path) -> bool:
    """Whether a model's folder may be written to: not bundled, not in the package, not read-only."""
    path = folder.resolve()
    bundled = [bundled_path("models", name) for name in bundled_names("models")]
    is_bundled = any(folder.samefile(model) for model in bundled if model)
    existing = path / CONTROLS if (path / CONTROLS).exists() else path
    return not is_bundled and not path.is_relative_to(PACKAGE) and os.access(existing, os.W_OK)


def save_control_weights(
    state: Mapping[str, Tensor],
    folder: Path,
    model: DiffusionLM | MaskedModel,
    card: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
    beside: Callable[[Path], object] = lambda staging: None,
) -> None:
    """Write the weights of a control, its labels and its card. Arguments and errors as for ``save_control_files``.

    Args:
        state: the state of the classifier.
        model: the model that it was trained on; the digest of its embeddings is added to the card.
        beside: writes further learned files into a folder.
    """

    def write(staging: Path) -> None:
        write_shards(state, staging, "model")
        beside(staging)

    save_control_files(write, folder, {**card, EMBEDDINGS: embedding_digest(model)}, files)


def save_control_files(
    write: Callable[[Path], object],
    folder: Path,
    card: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
    *,
    keep: bool = False,
) -> None:
    """Write a control's learned files, its labels and its card to a staging folder, then move them into place together.

    Args:
        write: writes the learned files into a folder.
        folder: the result of ``new_control_folder``.
        card: the contents of the card; the digests of the files are added.
        files: further JSON files by name, such as labels.
        keep: keep the other files of the earlier card, such as hints. Otherwise they are removed: they were learned
            from other text, and would guide along with what was learned now.

    Raises:
        UserError: the folder cannot be written.
    """
    earlier = set() if keep else _listed_files(folder)
    with staged(folder) as staging:
        write(staging)
        for name, value in (files or {}).items():
            (staging / name).write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", "utf-8")
        digests = folder_digests(staging, list(staging.iterdir()))
        (staging / CARD).write_text(json.dumps({**card, DIGESTS: digests}, indent=2) + "\n", "utf-8")
    for name in earlier - digests.keys():
        (folder / name).unlink(missing_ok=True)


def _listed_files(folder: Path) -> set[str]:
    """The names of the files in a control's folder that its card lists; none if it has no card that can be read."""
    try:
        digests = read_object(folder / CARD).get(DIGESTS)
    except UserError:
        return set()
    return {path.name for path in folder.iterdir() if path.name in digests} if isinstance(digests, dict) else set()


def check_control_files(folder: Path) -> Mapping[str, Any]:
    """Check that the files of a control are those that were saved, and return its card (empty if there is none).

    Raises:
        ModelError: a file was changed.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        return {}
    card = read_object(path)
    check_digests(folder, card.get(DIGESTS), CARD)
    return card


def check_control_weights(folder: Path, model: DiffusionLM | MaskedModel) -> Mapping[str, Any]:
    """Check that the files of a control are those that were saved and were trained on this model; return its card.

    A folder without a card, or with a card of an earlier version, passes.

    Raises:
        ModelError: a file or the embeddings of the model were changed.
    """
    card = check_control_files(folder)
    if card.get(EMBEDDINGS) not in (None, embedding_digest(model)):
        raise ModelError(
            "the weights were trained on word embeddings other than the model's.",
            where=str(folder),
            remedy="The model was trained further or is a different one: train the control again.",
        )
    return card
