"""Functions of tensors, recorded as CUDA graphs and replayed: the hundreds of launches of a step become one.

For few texts, the GPU runs a step in a fraction of the time that Python takes to launch it. So the computation that a
batch repeats at every step - the network, the controls' gradients and all in between - is recorded at its second call
(Nguyen et al. 2021, "Accelerating PyTorch with CUDA graphs"). Recording takes about as long as a step, so no text is
delayed.
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

# With fewer steps than this, replays do not make up for the time spent on recording.
MIN_STEPS = 5
# Families whose networks are the toolkit's own; the networks of others may read values back, and are large enough to
# keep a GPU busy.
RECORDED_FAMILIES = ("gaussian", "masked")

Outputs = tuple[Tensor | None, ...]


def is_faster_recorded(device: torch.device, family: str, steps: int) -> bool:
    """Whether a walk of this many steps is faster with recorded steps."""
    return device.type == "cuda" and family in RECORDED_FAMILIES and steps >= MIN_STEPS


class Recorded:
    """Calls a function at every step of a batch, from the third call on by replaying a CUDA graph.

    The function may depend on its input tensors and on other tensors that stay in place, but not read values back to
    the host. Its outputs are valid until the next call. If it cannot be recorded, it is called directly, with a
    warning.

    Args:
        enabled: False always calls the function directly.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.pool: _Pool | None = None
        # Hands the pool back when this object is gone.
        self.finalizer: Any = None
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, _Graph] = {}

    def __call__(
        self,
        graph_key: Hashable,
        function: Callable[..., Outputs],
        *inputs: Tensor | None,
    ) -> Outputs:
        """``function(*inputs)``.

        Args:
            graph_key: all else that decides which calls the function makes; functions with the same key are
                interchangeable.
        """
        if not self.enabled:
            return function(*inputs)
        key = graph_key, *(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self.graphs:
            # The first call is direct: it loads kernels and creates whatever is created only once.
            if key not in self.seen:
                self.seen.add(key)
                return function(*inputs)
            try:
                self.graphs[key] = self._record(function, inputs)
            except Exception as error:  # called directly, the function works or raises its own error
                self.enabled = False
                if self.finalizer is not None:  # memory of a failed recording cannot be reused
                    self.finalizer.detach()
                warnings.warn(f"steps are not recorded as CUDA graphs: {error}".splitlines()[0], stacklevel=2)
                return function(*inputs)
        return self.graphs[key](inputs)

    def _record(self, function: Callable[..., Outputs], inputs: Sequence[Tensor | None]) -> _Graph:
        if self.pool is None:
            self.pool = _SPARE.pop() if _SPARE else _Pool()
            self.finalizer = weakref.finalize(self, _SPARE.append, self.pool)
        return _Graph(function, inputs, self.pool.handle)


class _Pool:
    """The memory pool of one ``Recorded``, reused by another when that is gone.

    A permanent recording in it keeps the memory from being released, which would take time, more with every batch.
    """

    def __init__(self) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()
        self.keep_alive = _Graph(lambda: (torch.zeros(1, device="cuda"),), (), self.handle)


# Free pools; all of a process are on one device.
_SPARE: list[_Pool] = []


class _Graph:
    """One recording: the graph, with the tensors that it reads and writes."""

    def __init__(self, function: Callable[..., Outputs], inputs: Sequence[Tensor | None], pool: Any) -> None:
        self.inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may continue meanwhile.
        self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            self.outputs = function(*self.inputs)
        finally:
            self.graph.capture_end()

    def __call__(self, inputs: Sequence[Tensor | None]) -> Outputs:
        for static_input, tensor in zip(self.inputs, inputs, strict=True):
            if static_input is not None and tensor is not None:
                static_input.copy_(tensor)
        self.graph.replay()
        return self.outputs


@contextmanager
def recordable(device: torch.device) -> Iterator[None]:
    """Switch to a side stream, as graphs cannot be recorded on the default one; ordered after earlier and before later
    work on the current stream."""
    if device.type != "cuda":
        yield
        return
    stream, outer = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
