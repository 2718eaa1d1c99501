"""Settings of torch in the host program that would change texts: dlmctl ignores them, and leaves them as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock, get_ident

import torch

# What dlmctl computes in, whatever the host program's default dtype is.
DTYPE = torch.float32


class _DefaultDtype:
    """The default dtype, which all threads share: the first that enters sets it, the last that leaves sets it back."""

    def __init__(self) -> None:
        self.lock, self.before = Lock(), DTYPE
        # The thread of each use.
        self.users: list[int] = []

    @contextmanager
    def own(self) -> Iterator[None]:
        user = get_ident()
        with self.lock:
            if not self.users:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(DTYPE)
            self.users.append(user)
        try:
            yield
        finally:
            with self.lock:
                self.users.remove(user)
                if not self.users:
                    torch.set_default_dtype(self.before)

    def leave_others(self) -> None:
        """In a forked process, forget the threads that stay behind: they can neither leave nor release the lock."""
        self.lock, others = Lock(), [user for user in self.users if user != get_ident()]
        self.users = [user for user in self.users if user == get_ident()]
        if others and not self.users:
            torch.set_default_dtype(self.before)


_DEFAULT_DTYPE = _DefaultDtype()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_DEFAULT_DTYPE.leave_others)
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
