"""Checkpoints of others as they are: LLaDA, Dream and DiffuCoder, MDLM, DiffusionGemma.

A folder as its authors publish it is read into a class that is installed here, in the precision of its weights, which
are mapped into memory and not copied. No code that lies beside them is ever read, let alone run.
"""

from dlmctl.checkpoint.vendors.load import is_vendor, load_vendor

__all__ = ["is_vendor", "load_vendor"]
