"""Writing checkpoints that were trained on as they were read: with the names and settings of their authors."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from dlmctl.checkpoint.vendors.encoder_folder import SHARD_BYTES, TEXTS, save_encoder
from dlmctl.checkpoint.vendors.load import declared, stored_weights, weights_path
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError
from dlmctl.models.masked_encoder import MaskedEncoder
from dlmctl.models.transformers_network import TransformersNetwork
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.files import read_object


def stored_names(folder: Path, network: nn.Module) -> dict[str, str]:
    """The name that each weight of a network has in its file, by its name in the network.

    Raises:
        ModelError: a weight is not stored as it is, as in a mixture of experts.
    """
    vendor, _ = declared(folder, read_object(folder / "config.json"))
    renamed = {vendor.rename(name): name for name in stored_weights(weights_path(folder, network))}
    state, tied = _state_of(network)
    names = {own: name for own, name in renamed.items() if own is not None and own in state}
    if missing := state.keys() - names.keys() - tied:
        what = f"the weights are not stored one by one, such as {min(missing)!r}: mixtures of experts are not trained."
        raise ModelError(what, where=str(folder))
    return names


def save_trained(model: TokenLM, tokenizer: CheckpointTokenizer, source: Path, folder: Path) -> None:
    """Write a checkpoint over tokens that was trained on, with the lengths of its training texts.

    Args:
        source: the folder that it was read from.

    Raises:
        UserError: the folder cannot be written.
    """
    lengths = model.config.sentence_lengths
    if isinstance(model.network, MaskedEncoder):
        save_encoder(model, tokenizer, folder, lengths)
        return
    state, _ = _state_of(model.network)
    settings = {**read_object(source / "config.json"), TEXTS: {"sentence_lengths": list(lengths)}}
    with staged(folder) as staging:
        names = stored_names(source, model.network)
        write_shards({stored: state[own] for own, stored in names.items()}, staging, limit=SHARD_BYTES)
        tokenizer.inner.save_pretrained(staging)
        (staging / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _state_of(network: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """The weights of a network by the names to which its file is renamed, and those of them that are tied to others."""
    if isinstance(network, TransformersNetwork):
        return network.network.state_dict(), set(network.network.all_tied_weights_keys)
    return network.state_dict(), set()
