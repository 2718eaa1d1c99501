"""Settings of torch in the host program that would change texts: dlmctl ignores them, and leaves them as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock

import torch

# What dlmctl computes in, whatever the host program's default dtype is.
DTYPE = torch.float32


class _DefaultDtype:
    """The default dtype, which all threads share: the first that enters sets it, the last that leaves sets it back."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = Lock(), 0, DTYPE

    @contextmanager
    def own(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(DTYPE)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    torch.set_default_dtype(self.before)


_DEFAULT_DTYPE = _DefaultDtype()
# The process that has computed here.
_USED_IN: list[int] = []


def _use_in_process() -> None:
    """Compute with one thread in a process that was forked from one that has computed: OpenMP's threads are not forked,
    and it would wait for them forever."""
    process = os.getpid()
    if _USED_IN and _USED_IN[0] != process:
        torch.set_num_threads(1)
    _USED_IN[:] = [process]


@contextmanager
def own_modes() -> Iterator[None]:
    """Ignore the caller's inference mode, autocast, default dtype and default device meanwhile; also a decorator.

    Whether gradients are recorded stays as it is.
    """
    _use_in_process()
    gradients, cpu = torch.is_grad_enabled(), torch.device("cpu")
    with (
        torch.inference_mode(mode=False),  # tensors created in inference mode could not take part in guidance
        torch.set_grad_enabled(gradients),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        nullcontext() if torch.get_default_device() == cpu else cpu,
        _DEFAULT_DTYPE.own(),
    ):
        yield
