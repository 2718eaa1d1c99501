"""Checkpoints of others as they are: LLaDA, Dream and DiffuCoder, MDLM, DiffusionGemma.

A folder as its authors publish it is read into a class that is installed here, in the precision of its weights, which
are mapped into memory and not copied. No code that lies beside them is ever read, let alone run.
"""

from typing import TYPE_CHECKING

from dlmctl.checkpoint.on_demand import on_demand

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.vendors.load import is_vendor as is_vendor
    from dlmctl.checkpoint.vendors.load import load_vendor as load_vendor

# Few models are such.
_HOMES = {"is_vendor": ".load", "load_vendor": ".load"}
__all__ = [*_HOMES]

__getattr__ = on_demand(__name__, _HOMES)
