"""Training a masked checkpoint on as a diffusion model of one's own texts: an encoder, DiffuGPT, A2D and others.

BERT and its kin learned to fill in few masks. With any share of their tokens masked, as in the bound of masked
diffusion, they learn to write whole texts, in far fewer steps than a network without knowledge of the language
(DiffusionBERT, He et al. 2023, arXiv 2211.15029). Checkpoints of diffusion models learn how such texts sound, and how
many tokens they have.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.checkpoint.vendors.save import original_of, save_trained
from dlmctl.datasets.dataset import load_splits
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.diffusion.uniform_tokens import UniformTokenLM
from dlmctl.errors import DataError, ModelError
from dlmctl.models.masked_encoder import MaskedEncoder
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import same_encoding
from dlmctl.training.config import LoopConfig
from dlmctl.training.masked import MaskedTask, refuse_blocks
from dlmctl.training.rows import length_counts
from dlmctl.training.training_text import EarlierText, save_training_text


class CheckpointSettings(BaseModel):
    """The user's settings for a checkpoint that is trained on; its sizes are its own."""

    model_config = ConfigDict(extra="forbid")

    family: Literal["checkpoint"] = "checkpoint"
    length: int = Field(default=64, gt=2, le=65536, description="longest sequence in positions, START and END included")
    objective: Literal["count", "time"] = Field(
        default="count",
        description="count: k of the n tokens are masked, k uniform, weight n / k; time: each with probability t, "
        "weight 1 / t",
    )
    lengths: ClassVar[Literal["data", "model"]] = "data"


class CheckpointTrainingConfig(BaseModel):
    """A configuration file of ``dlmctl train lm`` with ``model.family: checkpoint``."""

    model_config = ConfigDict(extra="forbid")

    model: CheckpointSettings = Field(description="method of the model")
    init: str = Field(description="the checkpoint, by folder or hub name: BERT, DiffuGPT, A2D, MDLM and others")
    loop: LoopConfig


class CheckpointTask(MaskedTask):
    """A checkpoint and a data set prepared with its tokenizer, for the training loop.

    Args:
        data: folder of a prepared data set with the splits ``train`` and ``valid``, one text a row.

    Raises:
        DataError: ``data`` is not a data set, is packed in blocks, or was prepared with another tokenizer.
        ModelError: the model that ``config.init`` names does not exist, cannot be trained on or is too short.
    """

    config: CheckpointTrainingConfig  # type: ignore[assignment]  # has what a masked task reads of it

    def __init__(self, config: CheckpointTrainingConfig, data: Path) -> None:
        self.config, self.tags = config, None
        self.train, self.valid, self.tokenizer = load_splits(data)
        refuse_blocks(self.train, self.tokenizer.start_id, data)
        checkpoint = from_pretrained(config.init)
        model, self.source = _trainable(checkpoint, config.init), None
        if not same_encoding(self.tokenizer, checkpoint.tokenizer):
            remedy = f"Prepare it with --vocabulary {config.init}"
            what = "was prepared with another tokenizer than that of the checkpoint."
            raise DataError(what, where=str(data), remedy=remedy)
        if config.model.length > model.config.length:
            what = f"length is {config.model.length}, but the checkpoint has {model.config.length} positions."
            raise ModelError(what, where="model.length")
        # That of the data encodes texts alike, but does not know MASK.
        self.tokenizer = checkpoint.tokenizer
        # Read before a long run, not after it. An encoder is written by ``transformers``.
        is_encoder = isinstance(model.network, MaskedEncoder)
        self.original = None if is_encoder else original_of(checkpoint.folder, model.network)
        torch.manual_seed(config.loop.seed)
        for weight in model.parameters():  # as stored, perhaps in half precision, and in the memory of the file
            weight.data = weight.data.float().clone()
        special = cast("CheckpointTokenizer", checkpoint.tokenizer).special_ids
        learned = model.config.trained_on(length_counts(self.train), special)
        self.model = TokenLM(learned, model.network).requires_grad_(True)  # type: ignore[assignment]
        self.earlier = EarlierText.of(checkpoint.folder)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a trained checkpoint with its tokenizer and the facts of its training text.

        Raises:
            UserError: the folder cannot be written.
        """
        trained, tokenizer = cast("TokenLM", model), cast("CheckpointTokenizer", self.tokenizer)
        save_trained(trained, tokenizer, self.original, folder)
        save_training_text(self.train, tokenizer, folder, self.earlier)


def _trainable(checkpoint: Pretrained, name: str) -> TokenLM:
    """The model of a checkpoint, if it can be trained on.

    Raises:
        ModelError: it cannot.
    """
    model = checkpoint.model
    if not isinstance(model, TokenLM):
        is_ours = isinstance(model, MaskedLM | DiffusionLM)
        remedy = "Set model.family to masked or gaussian for models trained with dlmctl." if is_ours else None
        raise ModelError("is not a checkpoint such as BERT or DiffuGPT.", where=name, remedy=remedy)
    if isinstance(model, UniformTokenLM) or model.config.block is not None:
        how = "replaces tokens by random ones" if isinstance(model, UniformTokenLM) else "attends by blocks"
        what = f"{model.config.kind} {how}; only checkpoints with masks that attend to all positions are trained on."
        raise ModelError(what, where=name)
    return model
