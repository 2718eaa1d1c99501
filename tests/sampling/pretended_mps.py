"""A pretended device of Apple (MPS): CPU tensors that say they are on it, among which float64 is refused as there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MPS, CPU = torch.device("mps", 0), torch.device("cpu")


class OnMps(torch.Tensor):
    """A tensor ``inner`` of the CPU that says it is on the device."""

    device = property(lambda self: MPS)

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, inner.size(), **layout)
        tensor.inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()


def is_mps(device):
    return device is not None and torch.device(device).type == "mps"


def run(func, args, kwargs):
    """A call on the inner tensors; its results are on the device if a tensor of it was given or it was asked for."""
    given = {id(x.inner): x for x in tree_leaves((args, kwargs)) if isinstance(x, OnMps)}
    device = kwargs.get("device")
    result = func(*tree_map(inner_of, args), **tree_map(inner_of, kwargs))
    if not is_mps(device) and (not given or device is not None):
        return result
    return tree_map(lambda x: (given[id(x)] if id(x) in given else OnMps(x)) if type(x) is torch.Tensor else x, result)


def inner_of(x):
    if isinstance(x, torch.device) and is_mps(x):
        return CPU
    return x.inner if isinstance(x, OnMps) else x


def moved(x, *args, **kwargs):
    """``Tensor.to``, which C++ would refuse."""
    goals = [*args, *kwargs.values()]
    device = next((goal for goal in goals if isinstance(goal, str | torch.device)), None)
    dtype = next((goal for goal in goals if isinstance(goal, torch.dtype)), None)
    for like in (goal for goal in goals if isinstance(goal, torch.Tensor)):
        device, dtype = like.device, like.dtype
    if isinstance(x, OnMps) and device is not None and not is_mps(device):
        return x.detach().inner.to(dtype or x.dtype, copy=kwargs.get("copy", False))
    if isinstance(x, OnMps) or not is_mps(device):
        return NotImplemented if device is None or not is_mps(device) else x.type(dtype or x.dtype)
    return OnMps(x.detach().to(dtype or x.dtype))


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.to and (result := moved(*args, **kwargs)) is not NotImplemented:
            return result
        if func in (torch.tensor, torch.as_tensor) and is_mps(kwargs.get("device")):
            result = func(*args, **{**kwargs, "device": CPU})
            return result if isinstance(result, OnMps) else OnMps(result)
        if func is torch.Tensor.cpu and isinstance(args[0], OnMps):
            return args[0].detach().inner
        return func(*args, **kwargs)


class Calls(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


@contextmanager
def pretended_mps() -> Iterator[None]:
    """Meanwhile there is such a device; modules that were moved to it are moved back at the end, as some are cached."""
    originals = []

    def module_to(module, *args, **kwargs):
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and not isinstance(tensor, OnMps):
                        originals.append((tensors, name, tensor))
                        copy = OnMps(tensor.detach())
                        tensors[name] = nn.Parameter(copy) if isinstance(tensor, nn.Parameter) else copy
        return module

    with pytest.MonkeyPatch.context() as patch, Functions(), Calls():
        patch.setattr(nn.Module, "to", module_to)
        yield
    for tensors, name, tensor in originals:
        tensors[name] = tensor
