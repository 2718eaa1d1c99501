"""Saving a model as a checkpoint of the original Diffusion-LM."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from dlmctl.checkpoint.original.arguments import ARGUMENTS, BERT_FOLDER, write_arguments, write_bert_config
from dlmctl.checkpoint.original.names import HEAD, WORDS, original_names
from dlmctl.checkpoint.weights import check_new, staged
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from dlmctl.models.transformer import TransformerConfig
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

# The original reads the EMA rate and the step from the name; our weights are EMA weights whose step is not stored.
WEIGHTS = "ema_0.9999_000000.pt"


def export_original(model: DiffusionLM, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write ``ema_0.9999_000000.pt``, ``training_args.json``, ``vocab.json`` and the encoder's ``bert_config``.

    ``load_original`` returns the same model, tensor by tensor. All files are written to a staging folder first and then
    moved into place, so a full disk leaves nothing that could be taken for a checkpoint.

    Raises:
        ModelError: the original cannot express the model; nothing is written.
        UserError: the folder cannot be written, or is not empty.
    """
    folder, config = Path(folder), model.config
    arguments = write_arguments(config)
    if not isinstance(tokenizer, WordTokenizer):
        what = "the original cannot express this model: it supports whole words only, not a Hugging Face tokenizer."
        raise ModelError(what)
    check_new(folder)
    # Written in memory first: torch's own error for a full disk does not state the reason.
    weights = BytesIO()
    torch.save(original_weights(model), weights)
    with staged(folder) as staging:
        tokenizer.save(staging)
        (staging / ARGUMENTS).write_text(json.dumps(arguments, indent=2) + "\n", "utf-8")
        if isinstance(config.denoiser, TransformerConfig):
            (staging / BERT_FOLDER).mkdir()
            encoder = json.dumps(write_bert_config(config.denoiser), indent=2) + "\n"
            (staging / BERT_FOLDER / "config.json").write_text(encoder, "utf-8")
        # Path.write_bytes would keep the buffer in the traceback of a failed write, and Python 3.12.1 crashes when it
        # collects it.
        with open(staging / WEIGHTS, "wb") as file:
            file.write(weights.getbuffer())


def original_weights(model: DiffusionLM) -> dict[str, Tensor]:
    """The tensors of a model under the original's names, each in separate memory except for the tied head."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for our_name, names in original_names(model.config, state).items():
        for name, part in zip(names, state[our_name].chunk(len(names)), strict=True):
            weights[name] = part.clone()
    weights[HEAD] = weights[WORDS]
    if isinstance(model.config.denoiser, TransformerConfig):
        weights["position_ids"] = torch.arange(model.config.denoiser.max_length)[None]
    return weights
