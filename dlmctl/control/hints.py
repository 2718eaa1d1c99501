"""Hints: what a control tells a masked model about each position of a text, by trained vectors.

A control describes its target by features of positions ("tag NN", "first of an NP"). ``models.hints`` learns from
examples what to add to the states of the frozen network for them. The cost is one small encoder per batch, and no pass
per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from dlmctl.checkpoint.control_weights import check_control_weights
from dlmctl.checkpoint.weights import load_into, without_rng_effects
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError, typed_message
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.text.files import read_object

HINTS, CONFIG = "hints", "hints.json"

Features = Sequence[Sequence[str]]
"""The wanted features of each word of a text."""


class _CachedHints(NamedTuple):
    """The hints of a control: modification time of their file, network, and ids of its features."""

    written: int
    network: Hints
    feature_ids: dict[str, int]


# Every batch prepares its hints anew; they are read once and dropped together with their model.
_CACHE: WeakKeyDictionary[MaskedLM, dict[Path, _CachedHints]] = WeakKeyDictionary()


class HintRequest(NamedTuple):
    """A possible target of a text: features of its words and, if the model is told these as well, their labels."""

    features: Features
    tags: Sequence[str] = ()


def hints_for(folder: Path, batch: BatchContext[Any], texts: Sequence[Features]) -> Tensor | None:
    """The hints ``[layers, B, L, H]`` for the words of a batch; None if none were trained for its model.

    Args:
        folder: the folder of the control's weights.
        texts: for each row the wanted features of each word; unknown features are ignored.

    Raises:
        ModelError: the weights are damaged, or of another model.
    """
    loaded = load_hints(folder, batch.model) if isinstance(batch.model, MaskedLM) else None
    if loaded is None:
        return None
    network, feature_ids = loaded
    rows = [[[], *text][: layout.positions] for text, layout in zip(texts, batch.layouts, strict=True)]
    most = max((len(names) for row in rows for names in row), default=0)
    features = np.zeros((len(batch), batch.length, max(1, most)), np.int64)
    for at, row in enumerate(rows):
        fill(features[at], row, feature_ids)
    positions = torch.tensor([layout.positions for layout in batch.layouts])
    mask = torch.arange(batch.length) < positions[:, None]
    with torch.no_grad():
        hints: Tensor = network(torch.from_numpy(features).to(batch.device), mask.to(batch.device))
    return hints


def load_hints(folder: Path, model: MaskedLM) -> tuple[Hints, dict[str, int]] | None:
    """The network trained to encode a control's targets for a model, on the model's device, and the ids of its
    features; None if none was trained.

    Args:
        folder: the folder of the control's weights.

    Raises:
        ModelError: the weights are damaged, or of another model.
    """
    path = folder / CONFIG
    if not path.exists():
        return None
    cached, written = _CACHE.setdefault(model, {}), path.stat().st_mtime_ns
    if folder not in cached or cached[folder].written != written:
        cached[folder] = _CachedHints(written, *_read(folder, model))
    network, device = cached[folder].network, model.embeddings.device
    on_device = all(weight.device == device for weight in network.parameters())
    return network if on_device else network.to(device), cached[folder].feature_ids


def fill(features: NDArray[Any], places: Features, numbers: dict[str, int]) -> None:
    """Write the ids of the known features of each position into ``features [L, F]``; ``numbers`` maps names to ids."""
    for position, names in enumerate(places):
        known = [numbers[name] for name in names if name in numbers][: features.shape[1]]
        features[position, : len(known)] = known


def _read(folder: Path, model: MaskedLM) -> tuple[Hints, dict[str, int]]:
    check_control_weights(folder, model)
    try:
        config = HintsConfig.model_validate(read_object(folder / CONFIG))
    except ValidationError as error:
        raise ModelError(f"cannot be read: {typed_message(error)}.", where=str(folder / CONFIG)) from None
    with without_rng_effects():
        network = Hints(config, model.config.denoiser)
    load_into(network, folder, HINTS)
    feature_ids = {name: at for at, name in enumerate(config.features, start=1)}
    return network.eval().requires_grad_(False), feature_ids
