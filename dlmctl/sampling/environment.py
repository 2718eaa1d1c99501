"""What the bits of a text depend on beside the recipe: what computed it, and in what company."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dlmctl import __version__, processes
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.device import computed_in

# By these a user chooses the kernels of torch's own loops, of oneDNN and of MKL.
CHOOSE_KERNELS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


def environment(sampler: SamplerSettings, device: torch.device, batch_size: int) -> dict[str, Any]:
    """All that must be the same for the same recipe to give the same bits, as JSON values."""
    cuda = device.type == "cuda"
    features = torch.cpu.get_capabilities()
    return {
        "dlmctl": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "processor_features": sorted(name for name, has in features.items() if has is True),
        "kernels": {name: os.environ[name] for name in CHOOSE_KERNELS if name in os.environ},
        "precision": computed_in(sampler.precision, device),
        "deterministic": sampler.deterministic,
        "batch_size": 1 if sampler.deterministic else batch_size,
        "threads": 1 if sampler.deterministic else torch.get_num_threads(),
        "processes": processes.count(),
    }


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Sums are not split among threads meanwhile, so their order does not depend on how many there are."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)


@contextmanager
def own_modes() -> Iterator[None]:
    """Gradients and precisions are those of the sampler meanwhile, whatever a caller has around it."""
    with (
        torch.inference_mode(mode=False),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
