"""Vendor checkpoints, unconverted: LLaDA, Dream and DiffuCoder, MDLM, BD3LM, SEDD, DiffusionGemma.

A folder as published by its authors is loaded into an installed class, in the precision of its weights, which are
mapped into memory and not copied. Code in the folder is never read, let alone run.
"""

from typing import TYPE_CHECKING

from dlmctl.checkpoint.on_demand import lazy_getattr

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.vendors.load import load_vendor as load_vendor

# Imported on first use, as few models need them.
_MODULES = {"load_vendor": ".load"}
__all__ = [*_MODULES]

__getattr__ = lazy_getattr(__name__, _MODULES)
