"""Writing checkpoints that were trained on as they were read: with the names and settings of their authors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from dlmctl.checkpoint.vendors.load import declared, stored_weights, weights_path
from dlmctl.checkpoint.vendors.trained_folder import SHARD_BYTES, TEXTS, save_encoder
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError
from dlmctl.models.transformers_network import TransformersNetwork
from dlmctl.text.checkpoint_tokenizer import TOKENIZER_FILES, CheckpointTokenizer, has_tokenizer
from dlmctl.text.files import read_object

# Read by the authors' own code.
OTHER_FILES = ("generation_config.json", "added_tokens.json", "tokenizer.model", "chat_template.json")


class Original(NamedTuple):
    """What is kept of a checkpoint that is trained on.

    Attributes:
        names: the name that each weight has in its file, by its name in the network.
        settings: of its ``config.json``.
        files: the contents of its tokenizer and of other settings, by name; empty if its tokenizer is elsewhere.
    """

    names: Mapping[str, str]
    settings: Mapping[str, Any]
    files: Mapping[str, bytes]


def original_of(folder: Path, network: nn.Module) -> Original:
    """What is kept of the checkpoint in a folder.

    Raises:
        ModelError: a weight is not stored as it is, as in a mixture of experts.
    """
    settings = read_object(folder / "config.json")
    vendor, _ = declared(folder, settings)
    renamed = {vendor.rename(name): name for name in stored_weights(weights_path(folder, type(network)))}
    state, tied = _state_of(network)
    names = {own: name for own, name in renamed.items() if own is not None and own in state}
    # Tied weights may be stored under either name.
    covered = {*names, *tied, *(source for name, source in tied.items() if name in names)}
    if missing := state.keys() - covered:
        what = f"the weights are not stored one by one, such as {min(missing)!r}: mixtures of experts are not trained."
        raise ModelError(what, where=str(folder))
    kept = (*TOKENIZER_FILES, *OTHER_FILES) if has_tokenizer(folder) else OTHER_FILES
    files = {name: (folder / name).read_bytes() for name in kept if (folder / name).is_file()}
    return Original(names, settings, files)


def save_trained(model: TokenLM, tokenizer: CheckpointTokenizer, original: Original | None, folder: Path) -> None:
    """Write a checkpoint over tokens that was trained on, with the lengths of its training texts.

    Args:
        original: what it was before; None for an encoder, which ``transformers`` writes.

    Raises:
        UserError: the folder cannot be written.
    """
    lengths = model.config.sentence_lengths
    if original is None:
        save_encoder(model, tokenizer, folder, lengths)
        return
    state, _ = _state_of(model.network)
    settings = {**original.settings, TEXTS: {"sentence_lengths": list(lengths)}}
    with staged(folder) as staging:
        write_shards({stored: state[own] for own, stored in original.names.items()}, staging, limit=SHARD_BYTES)
        if original.files.keys().isdisjoint(TOKENIZER_FILES):
            tokenizer.inner.save_pretrained(staging)
        for name, content in original.files.items():
            (staging / name).write_bytes(content)
        (staging / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _state_of(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of a network by the names to which its file is renamed; and of those that are tied, the source."""
    if isinstance(network, TransformersNetwork):
        return network.network.state_dict(), dict(network.network.all_tied_weights_keys)
    return network.state_dict(), {}
