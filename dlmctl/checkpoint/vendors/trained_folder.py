"""Folders of checkpoints that were trained on with dlmctl: as published, with the lengths of the texts; encoders as of
``transformers``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from dlmctl.checkpoint.vendors.declared import Sizes
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError, first_validation_error
from dlmctl.models.masked_encoder import MaskedEncoder
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.files import read_object

# Bytes of tensors in one file, as in transformers.
SHARD_BYTES = 5 * 10**9
# The key of ``config.json`` under which the lengths are; other programs ignore it.
TEXTS = "dlmctl_texts"
Number = Annotated[int, Field(strict=True, ge=0, le=2**53)]


class TrainingTexts(Sizes):
    """What a checkpoint was trained on.

    Attributes:
        sentence_lengths: the number of texts by their number of tokens, from 0.
    """

    sentence_lengths: Annotated[list[Number], Field(max_length=1_000_000)] = []


class _Trained(Sizes):
    """What dlmctl adds to the ``config.json`` of a checkpoint that it trained."""

    texts: TrainingTexts = Field(default=TrainingTexts(), alias=TEXTS)


def training_texts(settings: Mapping[str, Any], path: Path) -> TrainingTexts:
    """What a ``config.json`` says of the training texts; nothing if the model was not trained with dlmctl.

    Raises:
        ModelError: it is damaged.
    """
    try:
        return _Trained.model_validate(settings).texts
    except ValidationError as error:
        raise ModelError(first_validation_error(error), where=str(path)) from None


def save_encoder(model: TokenLM, tokenizer: CheckpointTokenizer, folder: Path, sentence_lengths: Sequence[int]) -> None:
    """Write an encoder as ``transformers`` does, so that both read it.

    Args:
        sentence_lengths: as in ``TrainingTexts``.

    Raises:
        UserError: the folder cannot be written.
    """
    assert isinstance(model.network, MaskedEncoder)
    network = model.network.network
    state = {name: weight for name, weight in network.state_dict().items() if name not in network.all_tied_weights_keys}
    network.config.architectures = [type(network).__name__]
    with staged(folder) as staging:
        write_shards(state, staging, limit=SHARD_BYTES)
        network.config.save_pretrained(staging)
        tokenizer.inner.save_pretrained(staging)
        path = staging / "config.json"
        settings = {**read_object(path), TEXTS: {"sentence_lengths": list(sentence_lengths)}}
        path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
