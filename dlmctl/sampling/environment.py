"""What the bits of a text depend on besides the recipe: hardware, software, precision, batch size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dlmctl import __version__, processes
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.device import computed_in

# Environment variables by which a user chooses the kernels of torch's own loops, of oneDNN and of MKL.
KERNEL_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


def environment(sampler: SamplerSettings, device: torch.device, batch_size: int) -> dict[str, Any]:
    """Everything that must be equal for a recipe to give the same bits, as JSON values."""
    cuda = device.type == "cuda"
    features = torch.cpu.get_capabilities()
    return {
        "dlmctl": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "processor_features": sorted(name for name, has in features.items() if has is True),
        "kernels": {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ},
        "precision": computed_in(sampler.precision, device),
        "deterministic": sampler.deterministic,
        "batch_size": 1 if sampler.deterministic else batch_size,
        "threads": 1 if sampler.deterministic else torch.get_num_threads(),
        "processes": processes.count(),
    }


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Use a single thread meanwhile, so that the order of sums does not depend on the number of threads."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)
