"""Functions of tensors, recorded as CUDA graphs and replayed: the hundreds of launches of a step become one.

A step of few texts takes a GPU a fraction of the time in which Python launches it. So what a batch asks at every step,
the network, the controls' gradients and all that lies between, is recorded when it is first asked a second time (Nguyen
et al. 2021, "Accelerating PyTorch with CUDA graphs"). Recording takes about as long as a step, so no text comes later.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# With fewer steps than this the step that is spent on recording is not won back.
LEAST_STEPS = 5
# Families whose networks are the toolkit's own; what others call for may look at its numbers, and is large enough.
RECORDED = ("gaussian", "masked")

Outputs = tuple[Tensor | None, ...]


def pays(device: torch.device, family: str, steps: int) -> bool:
    """Whether a walk of so many steps is quicker when its steps are recorded."""
    return device.type == "cuda" and family in RECORDED and steps >= LEAST_STEPS


class Recorded:
    """What is asked at every step of a batch, from the third time on by one launch.

    It must be a function of the tensors it is given and of some that stay where they are, without a look at what is in
    them. What it gives is valid until it is asked again. Where it cannot be recorded it is called as it is, with a
    warning.

    Args:
        on: False calls it as it is, always.
    """

    def __init__(self, on: bool) -> None:
        self.on = on
        self.pool: _Pool | None = None
        self.left: Any = None
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, _Graph] = {}

    def __call__(
        self,
        kind: Hashable,
        function: Callable[..., Outputs],
        *inputs: Tensor | None,
    ) -> Outputs:
        """``function(*inputs)``.

        Args:
            kind: what else decides which calls it makes; functions of one kind are alike.
        """
        if not self.on:
            return function(*inputs)
        key = kind, *(None if one is None else (one.shape, one.dtype) for one in inputs)
        if key not in self.graphs:
            # The first time as it is: that loads kernels, and what is made once is then made.
            if key not in self.seen:
                self.seen.add(key)
                return function(*inputs)
            try:
                self.graphs[key] = self._record(function, inputs)
            except Exception as error:  # called as it is, it works or says what is wrong
                self.on = False
                if self.left is not None:  # memory in which a recording broke off takes no other
                    self.left.detach()
                warnings.warn(f"steps are not recorded as CUDA graphs: {error}".splitlines()[0], stacklevel=2)
                return function(*inputs)
        return self.graphs[key](inputs)

    def _record(self, function: Callable[..., Outputs], inputs: Sequence[Tensor | None]) -> _Graph:
        if self.pool is None:
            self.pool = _SPARE.pop() if _SPARE else _Pool()
            self.left = weakref.finalize(self, _SPARE.append, self.pool)
        return _Graph(function, inputs, self.pool.handle)


class _Pool:
    """The memory of what one ``Recorded`` records; another one's gets it when that is gone.

    A recording in it that stays keeps the memory from being given back, which would take time, and more of it with
    every batch.
    """

    def __init__(self) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()
        self.stays = _Graph(lambda: (torch.zeros(1, device="cuda"),), (), self.handle)


# Of recordings that are gone; all of a process are on one device.
_SPARE: list[_Pool] = []


class _Graph:
    """One recording: tensors it reads and writes, and the graph."""

    def __init__(self, function: Callable[..., Outputs], inputs: Sequence[Tensor | None], pool: Any) -> None:
        self.inputs = [None if one is None else one.clone() for one in inputs]
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may go on with what is theirs.
        self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            self.outputs = function(*self.inputs)
        finally:
            self.graph.capture_end()

    def __call__(self, inputs: Sequence[Tensor | None]) -> Outputs:
        for own, given in zip(self.inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self.graph.replay()
        return self.outputs


@contextmanager
def recordable(device: torch.device) -> Iterator[None]:
    """A stream on which graphs can be recorded, as they cannot on the usual one. What was launched before comes first,
    and what is launched afterwards comes later."""
    if device.type != "cuda":
        yield
        return
    stream, usual = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(usual)
    with torch.cuda.stream(stream):
        yield
    usual.wait_stream(stream)


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
