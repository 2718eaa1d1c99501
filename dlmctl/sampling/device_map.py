"""Spread models that are too large for one GPU over all GPUs of a machine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dlmctl import processes
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.models.decoder_network import DecoderNetwork

# The share of a GPU's free memory that weights may take; the rest is for scores and hidden states.
WEIGHT_SHARE = 0.7


def move_to_device(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device. A checkpoint that does not fit into the free memory of one GPU is spread over all of
    them, block by block, if this is the only process."""
    if isinstance(model, TokenLM) and isinstance(model.network, DecoderNetwork):
        if getattr(model.network.network, "hf_device_map", None) is not None:
            return  # already spread
        if device.type == "cuda" and torch.cuda.device_count() > 1 and processes.count() == 1:
            gpus = range(torch.cuda.device_count())
            budgets = {gpu: int(WEIGHT_SHARE * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus}
            if sum(weight.nbytes for weight in model.parameters()) > budgets[device.index or 0]:
                spread(model.network, device_map(model.network, budgets))
                return
    model.to(device)


def device_map(network: DecoderNetwork, budgets: Mapping[int, int]) -> dict[str, int | str]:
    """The device of each part of a network, in order and without dividing a block.

    Args:
        budgets: bytes of weights that each GPU may take, by its number; the rest goes to the CPU.
    """
    from accelerate import infer_auto_device_map

    inner = network.network
    blocks = [type(inner.model.layers[0]).__name__]
    max_memory = dict[int | str, int](budgets.items()) | {"cpu": 1 << 60}
    places: dict[str, int | str] = infer_auto_device_map(inner, max_memory=max_memory, no_split_module_classes=blocks)
    return places


def spread(network: DecoderNetwork, places: Mapping[str, int | str]) -> None:
    """Move the parts of a network to ``places``, with hooks that move its activations along."""
    from accelerate import dispatch_model

    dispatch_model(network.network, device_map=dict(places), force_hooks=True)
