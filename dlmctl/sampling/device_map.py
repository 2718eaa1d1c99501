"""Models that are too large for one GPU, spread over all of a machine's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dlmctl import processes
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.models.full_attention import FullAttention

# Of the free memory of a GPU, the share that weights may take; the rest is for scores and hidden states.
SHARE = 0.7


def put_on(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device. A checkpoint that the free memory of one GPU does not hold is spread over all of them,
    block by block, where this process has them for itself."""
    if isinstance(model, TokenLM) and isinstance(model.network, FullAttention):
        if getattr(model.network.network, "hf_device_map", None) is not None:
            return  # spread before
        if device.type == "cuda" and torch.cuda.device_count() > 1 and processes.count() == 1:
            budgets = {at: int(SHARE * torch.cuda.mem_get_info(at)[0]) for at in range(torch.cuda.device_count())}
            if sum(weight.nbytes for weight in model.parameters()) > budgets[device.index or 0]:
                spread(model.network, device_map(model.network, budgets))
                return
    model.to(device)


def device_map(network: FullAttention, budgets: Mapping[int, int]) -> dict[str, int | str]:
    """Where the parts of a network go, in their order and no block of it divided.

    Args:
        budgets: bytes of weights that each GPU may take, by its number; what is left goes to the CPU.
    """
    from accelerate import infer_auto_device_map

    inner = network.network
    blocks = [type(inner.model.layers[0]).__name__]
    most = dict[int | str, int](budgets.items()) | {"cpu": 1 << 60}
    found: dict[str, int | str] = infer_auto_device_map(inner, max_memory=most, no_split_module_classes=blocks)
    return found


def spread(network: FullAttention, places: Mapping[str, int | str]) -> None:
    """Put the parts of a network where ``places`` says; what goes through it follows."""
    from accelerate import dispatch_model

    dispatch_model(network.network, device_map=dict(places), force_hooks=True)
