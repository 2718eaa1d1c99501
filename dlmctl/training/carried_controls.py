"""What a model takes over from the one that it was trained on from, besides weights: controls, scorer, reader."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    CARD,
    EMBEDDINGS,
    acceptability_folder,
    check_control_files,
    control_folders,
    embedding_digest,
    save_control_files,
)
from dlmctl.checkpoint.digests import DIGESTS
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.scorer import seal_scorer
from dlmctl.control.evidence.bag import load_bag, save_bag
from dlmctl.control.evidence.beside import fingerprint_of
from dlmctl.control.evidence.table import load_table, read_arrays, save_table
from dlmctl.control.hints import HINTS
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import UserError
from dlmctl.metrics.acceptability import reader_of, write_reader
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.word_matching import matched_words

SCORER = "scorer"
log = logging.getLogger("dlmctl")


def report_carried(source: Pretrained, target: Pretrained, name: str) -> None:
    """``carry_controls``, with a note on what was copied. A fault is only a warning: the trained model is saved.

    Args:
        name: how the user named ``source``.
    """
    try:
        carried, left_out = carry_controls(source, target)
    except UserError as error:
        log.warning("dlmctl: the controls of %s could not be taken over: %s", name, error)
        return
    if carried:
        print(f"note: taken over from {name}: {', '.join(carried)}", file=sys.stderr)
    if left_out:
        print(f"note: to be trained anew for this model: {', '.join(left_out)}", file=sys.stderr)


def carry_controls(source: Pretrained, target: Pretrained) -> tuple[list[str], list[str]]:
    """Copy the controls of ``source`` into the folder of ``target``, a model that started from its weights.

    Evidence is transferred word by word, by spelling; new words have none. Hints are copied as they are: they add to
    the states of a network that has changed since, but little. The scorer keeps its own words. Acceptability was
    learned from the states of ``source``, which goes on reading. Left out are classifiers, which read such states at
    every step, and hints of a network with another number of blocks.

    Returns:
        The names of what was copied, and of what was not.

    Raises:
        UserError: a control of ``source`` is damaged, or the folder cannot be written.
    """
    found = _control_folders(source)
    if acceptability_folder(source.folder, source.model) is not None:
        found[ACCEPTABILITY] = source.folder  # has the network's weights: not copied
    if not (isinstance(source.tokenizer, WordTokenizer) and isinstance(target.tokenizer, WordTokenizer)):
        return [], list(found)
    names = [name for name, folder in found.items() if not any(folder.glob("model*.safetensors"))]
    for name in names:
        _carry(found[name], target.folder / "controls" / name, source, target)
    if source.tokenizer.splitting == target.tokenizer.splitting and (source.folder / SCORER).is_dir():
        _carry_scorer(source, target)
        names.append(SCORER)
        if ACCEPTABILITY in found:
            reader = reader_of(source, source.model.embeddings.device)
            write_reader(target.folder, _name_of(reader.folder))
            names.append(ACCEPTABILITY)
    return names, [name for name in found if name not in names]


def _carry_scorer(source: Pretrained, target: Pretrained) -> None:
    new = target.folder / SCORER
    shutil.copytree(source.folder / SCORER, new, dirs_exist_ok=True)
    if not (new / "vocab.json").exists():
        source.tokenizer.save(new)
        seal_scorer(new)


def _name_of(folder: Path) -> str:
    """The name of a bundled model, so that the reference holds on other machines; else the path."""
    bundled = bundled_path("models", folder.name)
    return folder.name if bundled is not None and bundled.samefile(folder) else str(folder.resolve())


def _control_folders(source: Pretrained) -> dict[str, Path]:
    """The folders of a model's controls by their paths below ``controls``; the model's own take precedence."""
    found: dict[str, Path] = {}
    for root in (path.parent for path in control_folders(source.folder, source.model, CARD)):
        for card in root.rglob(CARD):
            found.setdefault(card.parent.relative_to(root).as_posix(), card.parent)
    return {name: found[name] for name in sorted(found) if name != ACCEPTABILITY}


def _carry(folder: Path, new: Path, source: Pretrained, target: Pretrained) -> None:
    card = check_control_files(folder)
    entries: dict[str, Any] = {key: value for key, value in card.items() if key != DIGESTS}
    keeps_hints = _depth(source) == _depth(target)
    if EMBEDDINGS in entries:
        entries[EMBEDDINGS] = embedding_digest(target.model)
    origins = _origins(source, target)

    def write(staging: Path) -> None:
        for path in folder.iterdir():
            is_hints = path.name.startswith(HINTS)
            if path.name == CARD or not path.is_file() or (is_hints and not keeps_hints):
                continue
            if not _reindex(path, staging / path.name, origins, source, target):
                shutil.copyfile(path, staging / path.name)

    save_control_files(write, new, entries)


def _depth(pretrained: Pretrained) -> int:
    assert isinstance(pretrained.model, MaskedLM)
    return pretrained.model.config.denoiser.layers


def _origins(source: Pretrained, target: Pretrained) -> NDArray[np.int64]:
    """The id in ``source`` of each word of ``target``, -1 for a new word."""
    words = matched_words(target.tokenizer, source.tokenizer)
    origins = np.full(len(target.tokenizer), -1, np.int64)
    origins[words.ours.numpy()] = words.theirs.numpy()
    return origins


def _reindex(path: Path, new: Path, origins: NDArray[np.int64], source: Pretrained, target: Pretrained) -> bool:
    """Write evidence about the words of ``source`` for those of ``target``; false if the file holds none."""
    ours, theirs = fingerprint_of(target.tokenizer), fingerprint_of(source.tokenizer)
    about = _evidence_metadata(path)
    if about.get("vocabulary") != theirs:
        return False
    if "axes" in about:
        save_table(load_table(path).for_words(origins, ours), new)
    else:
        save_bag(load_bag(path).for_words(origins, ours), new)
    return True


def _evidence_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata of an evidence file; empty if the file is something else."""
    if path.suffix != ".safetensors":
        return {}
    try:
        return read_arrays(path)[0]
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}
