"""What a model takes over from the one that it was trained on from, besides weights: controls, scorer, reader."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    CARD,
    CONTROLS,
    EMBEDDINGS,
    acceptability_folder,
    check_control_files,
    control_roots,
    embedding_digest,
    save_control_files,
)
from dlmctl.checkpoint.digests import DIGESTS
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.reader import pass_reader_on
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.scorer import scorer_digest, scorer_lineage, seal_scorer
from dlmctl.control.evidence.bag import load_bag, save_bag
from dlmctl.control.evidence.beside import fingerprint_of
from dlmctl.control.evidence.table import RECOUNT_REMEDY, load_table, read_arrays, save_table
from dlmctl.control.hints import HINTS
from dlmctl.datasets.staging import staged_folder
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError, UserError, short_message
from dlmctl.text.tokenizer import WordTokenizer, same_encoding
from dlmctl.text.word_matching import matched_words

log = logging.getLogger("dlmctl")


class Carried(NamedTuple):
    """The names of what was ``copied``, of what the folder held already and was ``kept``, and of what was
    ``left_out``."""

    copied: list[str]
    kept: list[str]
    left_out: list[str]


class _Transfer(NamedTuple):
    """The models between which controls are copied, and what is the same for all controls.

    Attributes:
        origins: the id in ``source`` of each word of ``target``, -1 for a new word.
        embeddings: the ``embedding_digest`` of ``target``.
    """

    source: Pretrained
    target: Pretrained
    origins: NDArray[np.int64]
    embeddings: str


def report_carried(source: Pretrained, target: Pretrained, name: str) -> None:
    """``carry_controls``, with notes on what was copied, kept and left out.

    Args:
        name: how the user named ``source``.
    """
    carried = carry_controls(source, target)
    said = (f"taken over from {name}", "kept as this model has it", "to be trained anew for this model")
    for what, names in zip(said, carried, strict=True):
        if names:
            print(f"note: {what}: {', '.join(names)}", file=sys.stderr)


def carry_controls(source: Pretrained, target: Pretrained) -> Carried:
    """Copy the controls of ``source`` into the folder of ``target``, a model that started from its weights.

    Evidence is transferred word by word, by spelling; new words have none, and tokens must be the same. Hints are
    copied as they are: they add to the states of a network that has changed since, but little. The scorer keeps its own
    words. Acceptability was learned from the states of ``source``, or of the model that reads for it, which goes on
    reading. Left out are classifiers, which read such states at every step, and hints of a network with another number
    of blocks.

    What the folder of ``target`` holds already, from an earlier part of a resumed run or from the user, is kept. What
    cannot be copied is left out with a warning, since the trained model is saved by then.
    """
    controls = _control_folders(source)
    has_scorer = (source.folder / SCORER).is_dir()
    has_acceptability = acceptability_folder(source.folder, source.model) is not None
    all_names = [*controls, *([SCORER] if has_scorer else []), *([ACCEPTABILITY] if has_acceptability else [])]
    are_words = isinstance(source.tokenizer, WordTokenizer) and isinstance(target.tokenizer, WordTokenizer)
    if not (are_words or same_encoding(source.tokenizer, target.tokenizer)):
        return Carried([], [], all_names)
    transfer = _Transfer(source, target, _origins(source, target), embedding_digest(target.model))
    copies: dict[str, Callable[[], bool]] = {
        name: partial(_carry, folder, target.folder / CONTROLS / name, transfer)
        for name, folder in controls.items()
        if not any(folder.glob("model*.safetensors"))
    }
    if has_scorer and _splitting(source) == _splitting(target):
        copies[SCORER] = partial(_carry_scorer, source, target)
        if has_acceptability:
            copies[ACCEPTABILITY] = partial(_carry_acceptability, source, target)
    results = {name: _result(copy, f"{name} of {source.folder}") for name, copy in copies.items()}
    copied, kept = ([name for name, result in results.items() if result is is_copied] for is_copied in (True, False))
    left_out = [name for name in all_names if results.get(name) is None]
    with_hints = [name for name in controls if name not in left_out and _has_hints(controls[name])]
    left_out += [f"hints of {name}" for name in with_hints if not _has_hints(target.folder / CONTROLS / name)]
    return Carried(copied, kept, left_out)


def _splitting(model: Pretrained) -> str | None:
    """How a model's words are split from text; None for one over tokens."""
    return model.tokenizer.splitting if isinstance(model.tokenizer, WordTokenizer) else None


def _result(copy: Callable[[], bool], what: str) -> bool | None:
    """Whether something was copied (else it was kept); None, with a warning, if it could not be."""
    try:
        return copy()
    except UserError as error:
        log.warning("dlmctl: %s could not be taken over: %s", what, error)
    except OSError as error:
        log.warning("dlmctl: %s could not be taken over: %s.", what, short_message(error))
    return None


def _carry_scorer(source: Pretrained, target: Pretrained) -> bool:
    """Copy the scorer; false if there is one already."""
    new = target.folder / SCORER
    if new.is_dir():
        return False
    with staged_folder(new, SCORER) as staging:
        shutil.copytree(source.folder / SCORER, staging, dirs_exist_ok=True)
        if not (staging / "vocab.json").exists():
            source.tokenizer.save(staging)
            seal_scorer(staging)
    return True


def _carry_acceptability(source: Pretrained, target: Pretrained) -> bool:
    """Name the reader; false if there was one already, or weights of the model's own."""
    if scorer_digest(source.folder / SCORER) not in scorer_lineage(target.folder / SCORER):
        raise ModelError("its scorer is another one.", where=str(target.folder))
    is_kept = acceptability_folder(target.folder, target.model) is not None
    pass_reader_on(source, target.folder)
    return not is_kept


def _control_folders(source: Pretrained) -> dict[str, Path]:
    """The folders of a model's controls by their paths below ``controls``; the model's own take precedence."""
    found: dict[str, Path] = {}
    for root in control_roots(source.folder, source.model):
        for card in (*root.glob(f"*/{CARD}"), *root.glob(f"*/*/{CARD}")):
            if not card.parent.name.startswith("."):  # left by a killed run
                found.setdefault(card.parent.relative_to(root).as_posix(), card.parent)
    return {name: found[name] for name in sorted(found) if name != ACCEPTABILITY}


def _carry(folder: Path, new: Path, transfer: _Transfer) -> bool:
    """Copy a control; false if ``new`` holds it already, which then gets only the digest of the present embeddings."""
    is_kept = _is_intact(new)
    folder = new if is_kept else folder
    card = check_control_files(folder)
    entries: dict[str, Any] = {key: value for key, value in card.items() if key != DIGESTS}
    keeps_hints = is_kept or _depth(transfer.source) == _depth(transfer.target)
    if EMBEDDINGS in entries:
        entries[EMBEDDINGS] = transfer.embeddings

    def write(staging: Path) -> None:
        for path in folder.iterdir():
            is_hints = path.name.startswith(HINTS)
            if path.name == CARD or not path.is_file() or (is_hints and not keeps_hints):
                continue
            if is_kept or not _reindex(path, staging / path.name, transfer):
                shutil.copyfile(path, staging / path.name)

    save_control_files(write, new, entries)
    return not is_kept


def _is_intact(folder: Path) -> bool:
    """Whether a control's files are those that were saved; false if there are none."""
    try:
        return bool(check_control_files(folder))
    except ModelError:
        return False


def _has_hints(folder: Path) -> bool:
    return any(folder.glob(f"{HINTS}*.safetensors"))


def _depth(pretrained: Pretrained) -> int:
    assert isinstance(pretrained.model, MaskedLM)
    return pretrained.model.config.denoiser.layers


def _origins(source: Pretrained, target: Pretrained) -> NDArray[np.int64]:
    """As in ``_Transfer``."""
    words = matched_words(target.tokenizer, source.tokenizer)
    origins = np.full(len(target.tokenizer), -1, np.int64)
    origins[words.ours.numpy()] = words.theirs.numpy()
    return origins


def _reindex(path: Path, new: Path, transfer: _Transfer) -> bool:
    """Write evidence about the words of the source for those of the target; false if the file holds none."""
    source, target, origins, _ = transfer
    ours, theirs = fingerprint_of(target.tokenizer), fingerprint_of(source.tokenizer)
    about = _evidence_metadata(path)
    if about.get("vocabulary") != theirs:
        return False
    if "axes" in about:
        table = load_table(path)
        _require_size(table.words, source, path)
        save_table(table.for_words(origins, ours), new)
    else:
        bag = load_bag(path)
        _require_size(len(bag.weights), source, path)
        save_bag(bag.for_words(origins, ours), new)
    return True


def _require_size(words: int, source: Pretrained, path: Path) -> None:
    if words != len(source.tokenizer):
        what = f"the evidence is about {words} words, and the model has {len(source.tokenizer)}."
        raise ModelError(what, where=str(path), remedy=RECOUNT_REMEDY)


def _evidence_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata of an evidence file; empty if the file is something else."""
    if path.suffix != ".safetensors":
        return {}
    try:
        return read_arrays(path)[0]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return {}
