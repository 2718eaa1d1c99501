"""Counting calls into torch: each is a kernel launch on a GPU, and some also synchronise or transfer data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Views cost nothing except their call.
VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "alias",
    "detach", "as_strided", "split", "chunk", "unbind", "reshape", "lift_fresh", "split_with_sizes",
}  # fmt: skip
# Python functions that read a tensor back, and so wait for the device.
READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero", "is_nonzero"}
# Functions that make a tensor from Python numbers, and so send it to the device.
CREATIONS = {"tensor", "as_tensor", "from_numpy", "new_tensor"}


@dataclass
class Calls:
    """Counts over all steps. Times, which are float64 on the CPU, and float64 values computed from them do not count.

    Attributes:
        steps: reverse steps.
        network: calls in forward passes of networks, the denoiser's and the controls'.
        backward: calls inside ``torch.autograd.grad``.
        other: all other calls except views.
        waits: tensors read back, and ``nonzero`` and the like, whose result size has to be waited for.
        made: tensors made from Python numbers.
        names: counts by name of the other calls, waits and made tensors.
    """

    steps: int = 0
    network: int = 0
    backward: int = 0
    other: int = 0
    waits: int = 0
    made: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def per_step(self) -> dict[str, float]:
        """The mean counts per step."""
        names = "network", "backward", "other", "waits", "made"
        return {name: getattr(self, name) / max(1, self.steps) for name in names}


class _DispatchCounter(TorchDispatchMode):
    def __init__(self, count: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(map(_is_time, (result, *args))):
            self.count(func.overloadpacket.__name__)
        return result


class _FunctionCounter(TorchFunctionMode):
    def __init__(self, count_wait: Callable[[str], None], count_creation: Callable[[str], None]) -> None:
        super().__init__()
        self.count_wait, self.count_creation = count_wait, count_creation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS and not _is_time(args[0]):
            self.count_wait(name)
        elif (name in CREATIONS and not isinstance(args[0], Tensor)) or (
            name in ("__getitem__", "__setitem__") and _indexes_by_list(args[1])
        ):
            self.count_creation(name)
        return func(*args, **(kwargs or {}))


def _is_time(value: Any) -> bool:
    """Whether a value is a time or computed from one: these are float64 on the CPU, whatever the device."""
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _indexes_by_list(index: Any) -> bool:
    return any(isinstance(part, (list, range)) for part in (index if isinstance(index, tuple) else (index,)))


class CallCounter:
    """Counts calls inside ``counting()``, except while ``paused`` is set."""

    def __init__(self) -> None:
        self.calls, self.paused = Calls(), False
        self._network_depth = self._backward_depth = 0

    @contextmanager
    def counting(self) -> Iterator[Calls]:
        """Context manager that counts every call of this thread."""
        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        grad = torch.autograd.grad

        def counted_grad(*args: Any, **kwargs: Any) -> Sequence[Tensor]:
            self._backward_depth += 1
            try:
                return grad(*args, **kwargs)
            finally:
                self._backward_depth -= 1

        torch.autograd.grad = counted_grad  # type: ignore[assignment]
        try:
            with _FunctionCounter(self._count_wait, self._count_creation), _DispatchCounter(self._count_call):
                yield self.calls
        finally:
            torch.autograd.grad = grad
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._network_depth += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._network_depth -= 1

    def _count_call(self, name: str) -> None:
        if self.paused or name in VIEWS:
            return
        if self._backward_depth:
            self.calls.backward += 1
        elif self._network_depth:
            self.calls.network += 1
        else:
            self.calls.other += 1
            self.calls.names[name] += 1

    def _count_wait(self, name: str) -> None:
        if not self.paused:
            self.calls.waits += 1
            self.calls.names[f"waits: {name}"] += 1

    def _count_creation(self, name: str) -> None:
        if not self.paused:
            self.calls.made += 1
            self.calls.names[f"made: {name}"] += 1
