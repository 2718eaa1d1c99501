"""Calls into torch, counted: each is a launch on a GPU, and some make it wait or send it data."""

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

# Views: of no cost but their call.
VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "alias",
    "detach", "as_strided", "split", "chunk", "unbind", "reshape", "lift_fresh", "split_with_sizes",
}  # fmt: skip
# Reading a tensor back, as functions of Python: these wait for the device.
READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero", "is_nonzero"}
# Making one from numbers of Python: these send it to the device.
MADE = {"tensor", "as_tensor", "from_numpy", "new_tensor"}


@dataclass
class Calls:
    """What was counted, over all steps. Times, which are float64 and on the CPU, and what is computed of them in
    float64 do not count.

    Attributes:
        steps: reverse steps.
        network: calls inside of networks, the denoiser's and the controls', forward.
        backward: calls inside of ``torch.autograd.grad``.
        other: all other calls but for views.
        waits: tensors read back, and searches for what is true, whose results have a size to be waited for.
        made: tensors made from numbers of Python.
        names: of the other calls, waits and made tensors, how many of each.
    """

    steps: int = 0
    network: int = 0
    backward: int = 0
    other: int = 0
    waits: int = 0
    made: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def a_step(self) -> dict[str, float]:
        """The counts of one step, on average."""
        names = "network", "backward", "other", "waits", "made"
        return {name: getattr(self, name) / max(1, self.steps) for name in names}


class _Dispatched(TorchDispatchMode):
    def __init__(self, count: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not any(map(_is_time, (found, *args))):
            self.count(func.overloadpacket.__name__)
        return found


class _Functions(TorchFunctionMode):
    def __init__(self, waits: Callable[[str], None], made: Callable[[str], None]) -> None:
        super().__init__()
        self.waits, self.made, self.deep = waits, made, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS and not _is_time(args[0]):
            self.waits(name)
        elif (name in MADE and not isinstance(args[0], Tensor)) or (
            name in ("__getitem__", "__setitem__") and _by_list(args[1])
        ):
            self.made(name)
        return func(*args, **(kwargs or {}))


def _is_time(value: Any) -> bool:
    """Times, and what is made of them, are float64 and on the CPU whatever the device."""
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _by_list(index: Any) -> bool:
    return any(isinstance(part, (list, range)) for part in (index if isinstance(index, tuple) else (index,)))


class CallCounter:
    """Counts while its ``counting`` lasts; ``paused`` may be set meanwhile."""

    def __init__(self) -> None:
        self.calls, self.paused = Calls(), False
        self._networks = self._backward = 0

    @contextmanager
    def counting(self) -> Iterator[Calls]:
        """Counts every call of this thread."""
        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        grad = torch.autograd.grad

        def counted(*args: Any, **kwargs: Any) -> Sequence[Tensor]:
            self._backward += 1
            try:
                return grad(*args, **kwargs)
            finally:
                self._backward -= 1

        torch.autograd.grad = counted  # type: ignore[assignment]
        try:
            with _Functions(self._waits, self._made), _Dispatched(self._call):
                yield self.calls
        finally:
            torch.autograd.grad = grad
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._networks += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._networks -= 1

    def _call(self, name: str) -> None:
        if self.paused or name in VIEWS:
            return
        if self._backward:
            self.calls.backward += 1
        elif self._networks:
            self.calls.network += 1
        else:
            self.calls.other += 1
            self.calls.names[name] += 1

    def _waits(self, name: str) -> None:
        if not self.paused:
            self.calls.waits += 1
            self.calls.names[f"waits: {name}"] += 1

    def _made(self, name: str) -> None:
        if not self.paused:
            self.calls.made += 1
            self.calls.names[f"made: {name}"] += 1
