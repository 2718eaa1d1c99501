"""Checkpoints of others as they are: LLaDA, Dream and DiffuCoder, MDLM, DiffusionGemma.

A folder as its authors publish it is read into a class that is installed here, in the precision of its weights, which
are mapped into memory and not copied. No code that lies beside them is ever read, let alone run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.vendors.load import is_vendor as is_vendor
    from dlmctl.checkpoint.vendors.load import load_vendor as load_vendor

# Imported when first asked for: few models are such.
_HOMES = {
    "is_vendor": "dlmctl.checkpoint.vendors.load",
    "load_vendor": "dlmctl.checkpoint.vendors.load",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
