"""Writing a model as a checkpoint of the original Diffusion-LM."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from dlmctl.checkpoint.original.arguments import ARGUMENTS, BERT_FOLDER, write_arguments, write_bert_config
from dlmctl.checkpoint.original.names import HEAD, WORDS, their_names
from dlmctl.checkpoint.weights import check_new, staged
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from dlmctl.models.transformer import TransformerConfig
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer

# The original reads rate and step of the average from the name; ours are averages whose step is not kept.
WEIGHTS = "ema_0.9999_000000.pt"


def export_original(model: DiffusionLM, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write ``ema_0.9999_000000.pt``, ``training_args.json``, ``vocab.json`` and the encoder's ``bert_config``.

    ``load_original`` gives back the same model, tensor by tensor. All files are written aside first and then moved
    into place, so a full disk leaves nothing that would be taken for a checkpoint.

    Raises:
        ModelError: the original cannot express the model; nothing is written.
        UserError: the folder cannot be written, or holds something already.
    """
    folder, config = Path(folder), model.config
    arguments = write_arguments(config)
    if not isinstance(tokenizer, WordTokenizer):
        what = "the original cannot express this model: it knows whole words only, not a Hugging Face tokenizer."
        raise ModelError(what)
    check_new(folder)
    # Through memory: where torch writes a file itself, a full disk is an error of its own without a reason.
    weights = BytesIO()
    torch.save(their_weights(model), weights)
    with staged(folder) as staging:
        tokenizer.save(staging)
        (staging / ARGUMENTS).write_text(json.dumps(arguments, indent=2) + "\n", "utf-8")
        if isinstance(config.denoiser, TransformerConfig):
            (staging / BERT_FOLDER).mkdir()
            encoder = json.dumps(write_bert_config(config.denoiser), indent=2) + "\n"
            (staging / BERT_FOLDER / "config.json").write_text(encoder, "utf-8")
        (staging / WEIGHTS).write_bytes(weights.getbuffer())


def their_weights(model: DiffusionLM) -> dict[str, Tensor]:
    """The tensors of a model under the original's names, each in memory of its own but for the tied head."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for ours, theirs in their_names(model.config, state).items():
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            weights[name] = part.clone()
    weights[HEAD] = weights[WORDS]
    if isinstance(model.config.denoiser, TransformerConfig):
        weights["position_ids"] = torch.arange(model.config.denoiser.max_length)[None]
    return weights
