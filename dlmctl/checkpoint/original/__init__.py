"""Checkpoints of the original Diffusion-LM (Li et al. 2022): read as its training script leaves them, and written so.

A folder holds ``ema_RATE_STEP.pt`` and ``modelSTEP.pt``, ``training_args.json`` and ``vocab.json``; the sizes of
its BERT encoder may lie beside them in the folder that ``config_name`` names. Models trained end to end of the
architectures ``transformer``, ``1d-unet`` and ``conv-unet`` can be loaded; the rest is refused with the reason.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.original.load import load_original as load_original
    from dlmctl.checkpoint.original.save import export_original as export_original

# Imported when first asked for: few models are such.
_HOMES = {
    "export_original": "dlmctl.checkpoint.original.save",
    "load_original": "dlmctl.checkpoint.original.load",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
