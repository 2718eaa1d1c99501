"""Digests of a model's tensors, kept for as long as torch counts no change of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor, nn


class KeptDigests:
    """The digest of each model, with the state of the tensors that it is of: of billions of weights it takes seconds.

    Changes through ``.data`` are not counted, and none of tensors made in inference mode: theirs is always computed.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, tuple[Hashable, str]] = WeakKeyDictionary()

    def of(self, model: nn.Module, tensors: Sequence[Tensor], compute: Callable[[], str]) -> str:
        """The digest of some tensors of a model, always the same ones; ``compute`` is called if they have changed."""
        if any(tensor.is_inference() for tensor in tensors):
            return compute()
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        known, digest = self._known.get(model, (None, ""))
        if known != state:
            digest = compute()
            self._known[model] = state, digest
        return digest
