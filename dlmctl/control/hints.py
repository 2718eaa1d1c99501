"""What a control tells a masked model about each place of a text, and the trained vectors that say it to the network.

A control describes its target by features of places ("tag NN", "first of an NP"). ``models.hints`` learns from examples
what to add to the states of the frozen network for them. It costs one small encoder a batch and no pass a step.
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
from dlmctl.checkpoint.weights import load_into, without_draws
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError, first_line
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.text.files import read_object

HINTS, CONFIG = "hints", "hints.json"

Features = Sequence[Sequence[str]]
"""What is wanted of each word of a text."""


class _Loaded(NamedTuple):
    """What was read of a control, when it was written, and the numbers of its features."""

    written: int
    network: Hints
    numbers: dict[str, int]


# Every batch asks for its hints anew; they are read for the first, and go when their model goes.
_LOADED: WeakKeyDictionary[MaskedLM, dict[Path, _Loaded]] = WeakKeyDictionary()


class Ask(NamedTuple):
    """Something that a text can be asked: features of its words and, where these are told as well, their labels."""

    features: Features
    tags: Sequence[str] = ()


def hints_for(folder: Path, batch: BatchContext[Any], texts: Sequence[Features]) -> Tensor | None:
    """What the network is told of the words of a batch ``[layers, B, L, H]``; None where nothing was trained for it.

    Args:
        folder: of the control's weights.
        texts: of each row what is wanted of each word; unknown features say nothing.

    Raises:
        ModelError: the weights are damaged, or of another model.
    """
    known = load_hints(folder, batch.model) if isinstance(batch.model, MaskedLM) else None
    if known is None:
        return None
    network, numbers = known
    rows = [[[], *text][: layout.positions] for text, layout in zip(texts, batch.layouts, strict=True)]
    most = max((len(place) for row in rows for place in row), default=0)
    features = np.zeros((len(batch), batch.length, max(1, most)), np.int64)
    for at, row in enumerate(rows):
        fill(features[at], row, numbers)
    positions = torch.tensor([layout.positions for layout in batch.layouts])
    mask = torch.arange(batch.length) < positions[:, None]
    with torch.no_grad():
        found: Tensor = network(torch.from_numpy(features).to(batch.device), mask.to(batch.device))
    return found


def load_hints(folder: Path, model: MaskedLM) -> tuple[Hints, dict[str, int]] | None:
    """What was trained to tell a model what a control asks, on the model's device, and the numbers of its features;
    None if nothing was.

    Args:
        folder: of the control's weights.

    Raises:
        ModelError: the weights are damaged, or of another model.
    """
    path = folder / CONFIG
    if not path.exists():
        return None
    loaded, written = _LOADED.setdefault(model, {}), path.stat().st_mtime_ns
    if folder not in loaded or loaded[folder].written != written:
        loaded[folder] = _Loaded(written, *_read(folder, model))
    network, device = loaded[folder].network, model.embeddings.device
    there = all(weight.device == device for weight in network.parameters())
    return network if there else network.to(device), loaded[folder].numbers


def fill(features: NDArray[Any], places: Features, numbers: dict[str, int]) -> None:
    """Write the numbers of the known features of each place into ``features [L, F]``."""
    for place, names in enumerate(places):
        known = [numbers[name] for name in names if name in numbers][: features.shape[1]]
        features[place, : len(known)] = known


def _read(folder: Path, model: MaskedLM) -> tuple[Hints, dict[str, int]]:
    check_control_weights(folder, model)
    try:
        config = HintsConfig.model_validate(read_object(folder / CONFIG))
    except ValidationError as error:
        raise ModelError(f"cannot be read: {first_line(error)}.", where=str(folder / CONFIG)) from None
    with without_draws():
        network = Hints(config, model.config.denoiser)
    load_into(network, folder, HINTS)
    numbers = {name: at for at, name in enumerate(config.features, start=1)}
    return network.eval().requires_grad_(False), numbers
